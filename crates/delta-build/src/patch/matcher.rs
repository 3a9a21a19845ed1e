//! Finds in an old sequence of bytes what a new one was made from, approximately: where code moved,
//! the addresses in it change, and all between them stays.
//!
//! Exact matches come from a suffix array of the old bytes. Each is extended to both sides for as
//! long as more bytes agree than differ, as Percival's "Naive differences of executable code"
//! (2003) has it.

use libsais::SuffixArrayConstruction;

use crate::patch::shingles::{self, Shingles};

/// How many more bytes than the present alignment a match must have right, to be worth a jump.
const WORTH_A_JUMP: usize = 8;

// What is not searched for would not be worth a jump.
const _: () = assert!(shingles::LEN <= WORTH_A_JUMP + 1);

/// Shortest copy that takes less than its bytes as literals, found on real images.
const WORTH_A_COPY: usize = 20;

/// A literal, then a copy; either may be empty, not both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// New bytes that are not in the old ones.
    pub(crate) literal: usize,
    /// Where in the old bytes the copy begins.
    pub(crate) old: usize,
    /// Bytes that are copied, some of which may differ.
    pub(crate) copy: usize,
}

/// Old bytes that can be searched.
pub(crate) struct Matcher<'a> {
    old: &'a [u8],
    suffixes: Vec<i32>,
    /// Where the suffixes with each first two bytes begin, and one more at the end.
    buckets: Vec<u32>,
    shingles: Shingles,
}

/// The old bytes are too many, or there is no memory.
#[derive(Debug)]
pub(crate) struct TooLarge;

impl<'a> Matcher<'a> {
    /// `old` must be shorter than 2 GiB.
    pub(crate) fn new(old: &'a [u8]) -> Result<Self, TooLarge> {
        let array = SuffixArrayConstruction::for_text(old)
            .in_owned_buffer32()
            .single_threaded()
            .run()
            .map_err(|_| TooLarge)?;
        let suffixes = array.into_vec();
        let mut buckets = vec![0_u32; (1 << 16) + 1];
        for pair in old.windows(2) {
            buckets[bucket(pair) + 1] += 1;
        }
        // The last byte alone sorts before all that begin with it.
        if let Some(&last) = old.last() {
            buckets[(usize::from(last) << 8) + 1] += 1;
        }
        let mut sum = 0;
        for bucket in &mut buckets {
            sum += *bucket;
            *bucket = sum;
        }
        Ok(Self {
            old,
            suffixes,
            buckets,
            shingles: Shingles::new(old),
        })
    }

    /// The longest match for the beginning of `new`: where, and how long.
    fn search(&self, new: &[u8]) -> (usize, usize) {
        let Some(pair) = new.get(..2) else {
            return (0, 0);
        };
        let of = bucket(pair);
        let (mut low, mut high) = (self.buckets[of] as usize, self.buckets[of + 1] as usize);
        let (mut low_len, mut high_len) = (0, 0);
        let mut best = (0, 0);
        while low < high {
            let middle = usize::midpoint(low, high);
            let at = self.suffixes[middle].cast_unsigned() as usize;
            let known = low_len.min(high_len);
            let len = known + common(&self.old[at + known..], &new[known..]);
            if len > best.1 {
                best = (at, len);
            }
            if len == new.len() {
                break;
            }
            let is_less = self.old.get(at + len).is_none_or(|&old| old < new[len]);
            if is_less {
                low = middle + 1;
                low_len = len;
            } else {
                high = middle;
                high_len = len;
            }
        }
        best
    }

    /// What `new` is made from.
    pub(crate) fn steps(&self, new: &[u8]) -> Vec<Step> {
        let mut copies = Copies::new(self.old, new);
        let (mut scan, mut len) = (0, 0);
        while scan < new.len() {
            scan += len;
            let mut right = 0;
            let mut counted = scan;
            let mut at = 0;
            len = 0;
            while scan < new.len() {
                let rest = &new[scan..];
                // Where the present alignment is right, how long it is so is wanted, too.
                (at, len) = if copies.agrees(scan) || self.shingles.may_have(rest) {
                    self.search(rest)
                } else {
                    (0, 0)
                };
                for i in counted..scan + len {
                    right += usize::from(copies.agrees(i));
                }
                counted = counted.max(scan + len);
                if len == right && len != 0 || len > right + WORTH_A_JUMP {
                    break;
                }
                right -= usize::from(copies.agrees(scan) && scan < counted);
                scan += 1;
                counted = counted.max(scan);
            }
            if len != right || scan == new.len() {
                copies.jump(scan.min(new.len()), at);
            }
        }
        worthwhile(copies.steps())
    }
}

/// Steps without the copies that are too short to be worth telling.
pub(crate) fn worthwhile(steps: Vec<Step>) -> Vec<Step> {
    let mut kept: Vec<Step> = Vec::with_capacity(steps.len());
    let mut literal = 0;
    let mut end = None;
    for step in steps {
        literal += step.literal;
        // What goes on where the last copy ended costs next to nothing.
        let goes_on =
            end.is_some_and(|end| step.old >= end && step.old - end <= literal + WORTH_A_JUMP);
        if step.copy < WORTH_A_COPY && !goes_on {
            literal += step.copy;
            continue;
        }
        end = Some(step.old + step.copy);
        kept.push(Step { literal, ..step });
        literal = 0;
    }
    if literal > 0 {
        kept.push(Step {
            literal,
            old: 0,
            copy: 0,
        });
    }
    kept
}

/// The alignment of the moment, and the copies so far.
struct Copies<'a> {
    old: &'a [u8],
    new: &'a [u8],
    /// From where on this alignment holds, in the new and in the old bytes.
    new_at: usize,
    old_at: usize,
    /// Old place minus new place of this alignment.
    shift: isize,
    /// New place, old place and length of each.
    found: Vec<(usize, usize, usize)>,
}

impl<'a> Copies<'a> {
    fn new(old: &'a [u8], new: &'a [u8]) -> Self {
        Self {
            old,
            new,
            new_at: 0,
            old_at: 0,
            shift: 0,
            found: Vec::new(),
        }
    }

    /// Whether the present alignment has a new byte right.
    fn agrees(&self, at: usize) -> bool {
        let old = at.checked_add_signed(self.shift);
        old.is_some_and(|old| self.old.get(old) == Some(&self.new[at]))
    }

    /// Ends the present alignment, for one that has `scan` at `old`.
    fn jump(&mut self, scan: usize, old: usize) {
        let mut forward = self.forward(scan);
        let mut backward = if scan < self.new.len() {
            self.backward(scan, old)
        } else {
            0
        };
        // Where both extend over the same bytes, the border goes where most are right.
        let overlap = (self.new_at + forward + backward).saturating_sub(scan);
        if overlap > 0 {
            let (mut score, mut most, mut border) = (0_isize, 0, 0);
            for i in 0..overlap {
                let ours = self.new_at + forward - overlap + i;
                let ours = self.new[ours] == self.old[self.old_at + forward - overlap + i];
                let theirs = self.new[scan - backward + i] == self.old[old - backward + i];
                score += isize::from(ours) - isize::from(theirs);
                if score > most {
                    (most, border) = (score, i + 1);
                }
            }
            forward = forward + border - overlap;
            backward -= border;
        }
        if forward > 0 {
            self.found.push((self.new_at, self.old_at, forward));
        }
        self.new_at = scan - backward;
        self.old_at = old.saturating_sub(backward);
        self.shift = self.old_at.cast_signed() - self.new_at.cast_signed();
    }

    /// How far the present alignment is worth keeping, at most up to `scan`.
    fn forward(&self, scan: usize) -> usize {
        let most = (scan - self.new_at).min(self.old.len() - self.old_at);
        let pairs = self.new[self.new_at..][..most]
            .iter()
            .zip(&self.old[self.old_at..]);
        worth(pairs)
    }

    /// How far the next alignment is worth having before `scan`.
    fn backward(&self, scan: usize, old: usize) -> usize {
        let most = (scan - self.new_at).min(old);
        let pairs = self.new[scan - most..scan]
            .iter()
            .rev()
            .zip(self.old[..old].iter().rev());
        worth(pairs)
    }

    fn steps(self) -> Vec<Step> {
        let mut steps = Vec::with_capacity(self.found.len() + 1);
        let mut at = 0;
        for (new, old, copy) in self.found {
            steps.push(Step {
                literal: new - at,
                old,
                copy,
            });
            at = new + copy;
        }
        if at < self.new.len() {
            steps.push(Step {
                literal: self.new.len() - at,
                old: 0,
                copy: 0,
            });
        }
        steps
    }
}

/// The length at which most more bytes agree than differ.
fn worth<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    let (mut score, mut most, mut len) = (0_isize, 0, 0);
    for (i, (new, old)) in pairs.enumerate() {
        score += if new == old { 1 } else { -1 };
        if score > most {
            (most, len) = (score, i + 1);
        }
    }
    len
}

fn bucket(pair: &[u8]) -> usize {
    usize::from(pair[0]) << 8 | usize::from(pair[1])
}

/// How many bytes two sequences have in common at their beginnings.
pub(crate) fn common(one: &[u8], other: &[u8]) -> usize {
    let mut len = 0;
    for (one, other) in one.chunks_exact(8).zip(other.chunks_exact(8)) {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("it has 8 bytes"));
        let differing = word(one) ^ word(other);
        if differing != 0 {
            return len + (differing.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    let rest = one[len..].iter().zip(&other[len..]);
    len + rest.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn steps_cover_the_new_bytes_exactly(
            old in proptest::collection::vec(0_u8..4, 0..400),
            new in proptest::collection::vec(0_u8..4, 0..400),
        ) {
            let matcher = Matcher::new(&old).unwrap();
            let mut covered = 0;
            for step in matcher.steps(&new) {
                prop_assert!(step.old + step.copy <= old.len());
                prop_assert!(step.literal + step.copy > 0);
                covered += step.literal + step.copy;
            }
            prop_assert_eq!(covered, new.len());
        }

        #[test]
        fn the_longest_match_is_found(
            old in proptest::collection::vec(0_u8..3, 1..200),
            new in proptest::collection::vec(0_u8..3, 2..40),
        ) {
            let best = (0..old.len()).map(|at| common(&old[at..], &new)).max().unwrap();
            let (at, len) = Matcher::new(&old).unwrap().search(&new);
            prop_assert!(len <= best);
            // A single byte is no match.
            prop_assert!(len == best || best < 2);
            prop_assert_eq!(common(&old[at..], &new).min(len), len);
        }
    }

    #[test]
    fn a_changed_address_within_moved_code_is_no_reason_to_jump() {
        let old: Vec<u8> = (0..4000_u32)
            .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let mut new = old[500..9000].to_vec();
        for at in [100, 3000, 3001, 8000] {
            new[at] ^= 0x55;
        }
        let steps = Matcher::new(&old).unwrap().steps(&new);
        assert_eq!(
            steps,
            [Step {
                literal: 0,
                old: 500,
                copy: 8500
            }]
        );
    }
}

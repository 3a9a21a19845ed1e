//! Finds the longest match of all, by a suffix array of the old bytes.

use libsais::SuffixArrayConstruction;

use super::TooLarge;
use super::shingles::{self, Shingles};
use super::steps::{Copies, Step, WORTH_A_JUMP, common};

// What is not searched for would not be worth a jump.
const _: () = assert!(shingles::LEN <= WORTH_A_JUMP + 1);

/// Old bytes that can be searched.
pub(crate) struct Suffixes<'a> {
    old: &'a [u8],
    array: Vec<i32>,
    /// Where the suffixes with each first two bytes begin, and one more at the end.
    buckets: Vec<u32>,
    shingles: Shingles,
}

impl<'a> Suffixes<'a> {
    /// `old` must be shorter than 2 GiB.
    pub(super) fn new(old: &'a [u8]) -> Result<Self, TooLarge> {
        let array = SuffixArrayConstruction::for_text(old)
            .in_owned_buffer32()
            .single_threaded()
            .run()
            .map_err(|_| TooLarge)?;
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
            array: array.into_vec(),
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
            let at = self.array[middle].cast_unsigned() as usize;
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
    pub(super) fn steps(&self, new: &[u8]) -> Vec<Step> {
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
        copies.steps()
    }
}

fn bucket(pair: &[u8]) -> usize {
    usize::from(pair[0]) << 8 | usize::from(pair[1])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_longest_match_is_found(
            old in proptest::collection::vec(0_u8..3, 1..200),
            new in proptest::collection::vec(0_u8..3, 2..40),
        ) {
            let best = (0..old.len()).map(|at| common(&old[at..], &new)).max().unwrap();
            let (at, len) = Suffixes::new(&old).unwrap().search(&new);
            prop_assert!(len <= best);
            // A single byte is no match.
            prop_assert!(len == best || best < 2);
            prop_assert_eq!(common(&old[at..], &new).min(len), len);
        }
    }
}

//! What a new sequence of bytes is made from: copies of old bytes, approximately, and new bytes between
//! them.
//!
//! Each copy is extended to both sides for as long as more bytes agree than differ, as Percival's
//! "Naive differences of executable code" (2003) has it.

/// How many more bytes than the present alignment a match must have right, to be worth a jump.
pub(super) const WORTH_A_JUMP: usize = 8;

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

/// Steps without the copies that are too short to be worth telling.
pub(crate) fn worthwhile(steps: Vec<Step>) -> Vec<Step> {
    let mut end = None;
    without(steps, |step, literal| {
        // What goes on where the last copy ended costs next to nothing.
        let goes_on =
            end.is_some_and(|end| step.old >= end && step.old - end <= literal + WORTH_A_JUMP);
        if step.copy < WORTH_A_COPY && !goes_on {
            return false;
        }
        end = Some(step.old + step.copy);
        true
    })
}

/// Steps without the copies that are not worth it, told each step and how long its literal is then.
pub(super) fn without(
    steps: Vec<Step>,
    mut is_worth_it: impl FnMut(&Step, usize) -> bool,
) -> Vec<Step> {
    let mut kept: Vec<Step> = Vec::with_capacity(steps.len());
    let mut literal = 0;
    for step in steps {
        literal += step.literal;
        if !is_worth_it(&step, literal) {
            literal += step.copy;
            continue;
        }
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
pub(super) struct Copies<'a> {
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
    pub(super) fn new(old: &'a [u8], new: &'a [u8]) -> Self {
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
    pub(super) fn agrees(&self, at: usize) -> bool {
        let old = at.checked_add_signed(self.shift);
        old.is_some_and(|old| self.old.get(old) == Some(&self.new[at]))
    }

    /// How many bytes from a place on the present alignment has right, one after the other.
    pub(super) fn same(&self, at: usize) -> usize {
        let old = at.checked_add_signed(self.shift);
        let old = old.and_then(|old| self.old.get(old..));
        old.map_or(0, |old| common(old, &self.new[at..]))
    }

    /// Ends the present alignment, for one that has `scan` at `old`.
    pub(super) fn jump(&mut self, scan: usize, old: usize) {
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
        let new = &self.new[self.new_at..][..most];
        let old = &self.old[self.old_at..][..most];
        let mut worth = Worth::default();
        for (new, old) in new.chunks(WORD).zip(old.chunks(WORD)) {
            worth.word(new.iter().zip(old), new == old);
        }
        worth.len
    }

    /// How far the next alignment is worth having before `scan`.
    fn backward(&self, scan: usize, old: usize) -> usize {
        let most = (scan - self.new_at).min(old);
        let new = &self.new[scan - most..scan];
        let old = &self.old[old - most..old];
        let mut worth = Worth::default();
        for (new, old) in new.rchunks(WORD).zip(old.rchunks(WORD)) {
            worth.word(new.iter().rev().zip(old.iter().rev()), new == old);
        }
        worth.len
    }

    pub(super) fn steps(self) -> Vec<Step> {
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

/// Bytes that are compared at once.
const WORD: usize = 8;

/// The length at which most more bytes agree than differ.
#[derive(Default)]
struct Worth {
    /// How many more bytes agreed than differed so far, and at most.
    score: isize,
    most: isize,
    seen: usize,
    len: usize,
}

impl Worth {
    /// The next bytes, which may all be the same.
    fn word<'b>(&mut self, pairs: impl ExactSizeIterator<Item = (&'b u8, &'b u8)>, are_same: bool) {
        if are_same {
            self.seen += pairs.len();
            self.score += pairs.len().cast_signed();
            self.mark();
            return;
        }
        for (new, old) in pairs {
            self.seen += 1;
            self.score += if new == old { 1 } else { -1 };
            self.mark();
        }
    }

    fn mark(&mut self) {
        if self.score > self.most {
            (self.most, self.len) = (self.score, self.seen);
        }
    }
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

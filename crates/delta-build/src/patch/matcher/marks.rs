//! Finds matches quickly: some places of the old bytes are known by what stands there, and wherever the
//! present alignment is wrong, the new bytes are looked up among them.

use super::TooLarge;
use super::shingles;
use super::steps::{Copies, Step, common};

/// Bytes that a place is known by.
const RUN: usize = shingles::LEN;

/// How far apart places are that are known: a match of `RUN + APART - 1` bytes is always seen.
const APART: usize = 4;

/// How many bytes of a match the present alignment must have wrong, to be worth a jump. Less leads to
/// matches by chance: a longer patch, and an applier that unpacks the same over and over.
const WORTH_A_JUMP: usize = 12;

/// Old bytes that can be searched.
pub(crate) struct Marks<'a> {
    old: &'a [u8],
    /// The last place with each hash, and nothing as the largest number.
    places: Vec<u32>,
    /// How far a hash is shifted to the right to become an index.
    shift: u32,
}

const NOWHERE: u32 = u32::MAX;

impl<'a> Marks<'a> {
    /// Takes one to two bytes for each of `old`, which must be shorter than 4 GiB.
    pub(super) fn new(old: &'a [u8]) -> Result<Self, TooLarge> {
        u32::try_from(old.len()).map_err(|_| TooLarge)?;
        let slots = (old.len() / APART).next_power_of_two().max(2);
        let mut marks = Self {
            old,
            places: vec![NOWHERE; slots],
            shift: u64::BITS - slots.trailing_zeros(),
        };
        for (i, run) in old.windows(RUN).step_by(APART).enumerate() {
            let slot = marks.slot(run);
            marks.places[slot] = u32::try_from(i * APART).expect("it is less than the length");
        }
        Ok(marks)
    }

    fn slot(&self, run: &[u8]) -> usize {
        usize::try_from(shingles::hash(run) >> self.shift).expect("it is below the number of slots")
    }

    /// A match for the beginning of `new`: where, and how long.
    fn search(&self, new: &[u8]) -> Option<(usize, usize)> {
        let place = self.places[self.slot(new.get(..RUN)?)];
        let at = (place != NOWHERE).then_some(place as usize)?;
        Some((at, common(&self.old[at..], new)))
    }

    /// What `new` is made from.
    pub(super) fn steps(&self, new: &[u8]) -> Vec<Step> {
        let mut copies = Copies::new(self.old, new);
        let mut at = 0;
        while at + RUN <= new.len() {
            let same = copies.same(at);
            if same >= RUN {
                at += same;
                continue;
            }
            if let Some((old, len)) = self.search(&new[at..])
                && len > WORTH_A_JUMP
            {
                let mut wrong = (at..at + len).filter(|&at| !copies.agrees(at));
                if wrong.nth(WORTH_A_JUMP).is_some() {
                    copies.jump(at, old);
                    at += len;
                    continue;
                }
            }
            at += 1;
        }
        copies.jump(new.len(), 0);
        copies.steps()
    }
}

//! Finds in an old sequence of bytes what a new one was made from, approximately: where code moved,
//! the addresses in it change, and all between them stays.

mod marks;
mod reach;
mod shingles;
mod steps;
mod suffixes;

pub(crate) use steps::{Step, common, worthwhile};

pub(crate) use reach::Reach;

use crate::patch::effort::Effort;
use marks::Marks;
use suffixes::Suffixes;

/// Old bytes that can be searched.
pub(crate) enum Matcher<'a> {
    Suffixes(Suffixes<'a>),
    Marks(Marks<'a>),
}

/// The old bytes are too many, or there is no memory.
#[derive(Debug)]
pub(crate) struct TooLarge;

impl<'a> Matcher<'a> {
    /// `old` must be shorter than 2 GiB.
    pub(crate) fn new(old: &'a [u8], effort: Effort) -> Result<Self, TooLarge> {
        Ok(match effort {
            Effort::Fast => Self::Marks(Marks::new(old)?),
            Effort::Default => Self::Suffixes(Suffixes::new(old)?),
        })
    }

    /// What `new` is made from.
    pub(crate) fn steps(&self, new: &[u8]) -> Vec<Step> {
        worthwhile(match self {
            Self::Suffixes(suffixes) => suffixes.steps(new),
            Self::Marks(marks) => marks.steps(new),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EFFORTS: [Effort; 2] = [Effort::Fast, Effort::Default];

    proptest! {
        #[test]
        fn steps_cover_the_new_bytes_exactly(
            old in proptest::collection::vec(0_u8..4, 0..400),
            new in proptest::collection::vec(0_u8..4, 0..400),
        ) {
            for effort in EFFORTS {
                let matcher = Matcher::new(&old, effort).unwrap();
                let mut covered = 0;
                for step in matcher.steps(&new) {
                    prop_assert!(step.old + step.copy <= old.len());
                    prop_assert!(step.literal + step.copy > 0);
                    covered += step.literal + step.copy;
                }
                prop_assert_eq!(covered, new.len());
            }
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
        for effort in EFFORTS {
            let steps = Matcher::new(&old, effort).unwrap().steps(&new);
            let whole = Step {
                literal: 0,
                old: 500,
                copy: 8500,
            };
            assert_eq!(steps, [whole], "{effort:?}");
        }
    }
}

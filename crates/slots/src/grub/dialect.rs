//! The variables that a GRUB script reads, and what they mean.
//!
//! In: a block, or a [`Boot`]. Out: the other one. Each meaning here is what a script does:
//! `dist/boot/grub.cfg`, or that of the devices of 2014 (upgrader spec, section 17).

use super::block::Block;
use crate::boot::{Boot, Trial};
use crate::error::BootError;
use crate::set::Slots;

const SLOT: &str = "system_image_slot";
const TRIAL: &str = "system_image_trial";
const LEFT: &str = "system_image_left";

const AB: &str = "snappy_ab";
const MODE: &str = "snappy_mode";
const BEGUN: &str = "snappy_trial_boot";

#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    /// Ours: the default, the slot on trial, and a tally of its tries. GRUB's script cannot count,
    /// so a try is a digit: `1` to come, `0` made. The value keeps its length all along.
    Counted,
    /// The slot to boot, `regular` or `try`, and `1` once a trial has begun. The slot to go back
    /// to is the other one.
    Classic,
}

impl Dialect {
    /// All variables that are ours.
    pub(super) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Counted => &[SLOT, TRIAL, LEFT],
            Self::Classic => &[AB, MODE, BEGUN],
        }
    }

    /// The variables to set; the others of [`names`](Self::names) are absent.
    pub(super) fn variables(self, boot: &Boot) -> Vec<(&'static str, String)> {
        let default = boot.default.to_string();
        match (self, &boot.trial) {
            (Self::Counted, None) => vec![(SLOT, default)],
            (Self::Counted, Some(trial)) => vec![
                (SLOT, default),
                (TRIAL, trial.slot.to_string()),
                (LEFT, "1".repeat(trial.left.into())),
            ],
            (Self::Classic, None) => vec![
                (AB, default),
                (MODE, "regular".to_owned()),
                (BEGUN, "0".to_owned()),
            ],
            (Self::Classic, Some(trial)) => vec![
                (AB, trial.slot.to_string()),
                (MODE, "try".to_owned()),
                (BEGUN, "0".to_owned()),
            ],
        }
    }

    /// What the script does with the variables of this block.
    pub(super) fn boot(self, block: &Block, slots: &Slots) -> Result<Boot, BootError> {
        match self {
            Self::Counted => {
                let left = block.value(LEFT).map_or(0, tally);
                slots.boot(block.value(SLOT), block.value(TRIAL), left)
            }
            Self::Classic => {
                let first = slots.first()?;
                let named = slots.named(block.value(AB)).unwrap_or(first);
                let other = slots.other(named)?;
                if block.value(MODE) != Some(b"try") {
                    return Ok(Boot::always(named.clone()));
                }
                let begun = block.value(BEGUN) == Some(b"1");
                Ok(Boot {
                    default: other.clone(),
                    trial: Some(Trial {
                        slot: named.clone(),
                        left: u8::from(!begun),
                    }),
                })
            }
        }
    }
}

/// Tries to come in a tally such as `0011`; none in what is no tally.
fn tally(text: &[u8]) -> u8 {
    let made = text.iter().take_while(|digit| **digit == b'0').count();
    let left = &text[made..];
    if left.iter().any(|digit| *digit != b'1') {
        return 0;
    }
    u8::try_from(left.len()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_that_grub_would_not_understand_has_no_tries_left() {
        for (text, left) in [
            ("111", 3),
            ("011", 2),
            ("000", 0),
            ("", 0),
            ("101", 0),
            ("3", 0),
            ("11 ", 0),
        ] {
            assert_eq!(tally(text.as_bytes()), left, "{text:?}");
        }
    }
}

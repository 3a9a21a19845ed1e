//! What a boot loader will do: the default, and a trial of another slot.

use system_image_formats::name::SlotName;

/// What the boot loader will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The slot that boots when nothing is tried, or nothing any more.
    pub default: SlotName,
    /// Another slot that is being tried, or has been without success.
    pub trial: Option<Trial>,
}

/// A slot that boots until its tries are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Never the default.
    pub slot: SlotName,
    /// Tries to come. A try is taken off before it is made, so a system that runs in its last try
    /// sees 0. If another slot runs and this is 0, the trial has failed.
    pub left: u8,
}

impl Boot {
    /// The slot that boots next.
    pub fn next(&self) -> &SlotName {
        match &self.trial {
            Some(trial) if trial.left > 0 => &trial.slot,
            _ => &self.default,
        }
    }

    /// `slot` and nothing else.
    pub(crate) fn always(slot: SlotName) -> Self {
        Self {
            default: slot,
            trial: None,
        }
    }

    /// With a trial of `slot`; of the default there is none.
    pub(crate) fn trying(self, slot: &SlotName, tries: u8) -> Self {
        let trial = (*slot != self.default).then(|| Trial {
            slot: slot.clone(),
            left: tries,
        });
        Self { trial, ..self }
    }
}

//! The slots of a device, and what of a caller's wishes fits them.

use system_image_formats::name::SlotName;

use crate::boot::{Boot, Trial};
use crate::error::BootError;

/// The slots of a device in the integrator's order; the first one boots when nothing is known.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Vec<SlotName>);

impl Slots {
    pub(crate) fn new(slots: Vec<SlotName>) -> Self {
        Self(slots)
    }

    /// The slot that boots when nothing is known.
    ///
    /// # Errors
    /// [`BootError::Slots`] for fewer than two, or one that is named twice.
    pub(crate) fn first(&self) -> Result<&SlotName, BootError> {
        let twice = |(place, slot)| self.0[..place].contains(slot);
        match self.0.as_slice() {
            [first, _, ..] if !self.0.iter().enumerate().any(twice) => Ok(first),
            _ => Err(BootError::Slots(self.list())),
        }
    }

    /// The slot that `slot` is not, of exactly two.
    pub(crate) fn other(&self, slot: &SlotName) -> Result<&SlotName, BootError> {
        match self.0.as_slice() {
            [one, other] if one != other => Ok(if one == slot { other } else { one }),
            _ => Err(BootError::NotTwo(self.list())),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SlotName> {
        self.0.iter()
    }

    /// Refuses a slot that this device does not have.
    pub(crate) fn expect(&self, slot: &SlotName) -> Result<(), BootError> {
        self.first()?;
        if self.0.contains(slot) {
            return Ok(());
        }
        Err(BootError::Unknown {
            slot: slot.clone(),
            known: self.list(),
        })
    }

    /// Refuses a trial of a slot that this device does not have, or without a try.
    pub(crate) fn expect_trial(&self, slot: &SlotName, tries: u8) -> Result<(), BootError> {
        self.expect(slot)?;
        (tries > 0).then_some(()).ok_or(BootError::NoTries)
    }

    /// The slot that a boot loader's variable names; what it does not know, it has not read.
    pub(crate) fn named(&self, text: Option<&[u8]>) -> Option<&SlotName> {
        let text = text?;
        self.0.iter().find(|slot| slot.as_str().as_bytes() == text)
    }

    /// What a boot loader with a variable for the default and one for the slot on trial does:
    /// without a default that it knows, the first slot boots, and of the default there is no trial.
    pub(crate) fn boot(
        &self,
        default: Option<&[u8]>,
        trial: Option<&[u8]>,
        left: u8,
    ) -> Result<Boot, BootError> {
        let first = self.first()?;
        let default = self.named(default).unwrap_or(first);
        let trial = self.named(trial).filter(|slot| *slot != default);
        Ok(Boot {
            default: default.clone(),
            trial: trial.cloned().map(|slot| Trial { slot, left }),
        })
    }

    fn list(&self) -> String {
        let names: Vec<_> = self.0.iter().map(SlotName::as_str).collect();
        names.join(", ")
    }
}

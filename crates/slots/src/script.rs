//! A program of the integrator's, for a boot loader that we do not know.
//!
//! It is called with one of `read`, `try-out SLOT TRIES`, `confirm SLOT`, `abandon`, `check`. Exit
//! status 0 is success. `read` writes lines of `name=value`: `default`, and for a trial `trial` and
//! `left`. That a change is one atomic step is the program's business.

use camino::Utf8PathBuf;
use system_image_formats::name::SlotName;

use crate::BootControl;
use crate::boot::Boot;
use crate::error::BootError;
use crate::program::{run, value};
use crate::set::Slots;

/// Boot control by a program of the integrator's.
#[derive(Debug)]
pub struct Script {
    program: Utf8PathBuf,
    slots: Slots,
}

impl Script {
    /// By this program; a name without `/` is looked for in the path.
    pub fn new(program: Utf8PathBuf, slots: Vec<SlotName>) -> Self {
        Self {
            program,
            slots: Slots::new(slots),
        }
    }

    fn call(&self, arguments: &[&str]) -> Result<String, BootError> {
        run(&self.program, arguments, "")
    }
}

impl BootControl for Script {
    fn read(&self) -> Result<Boot, BootError> {
        self.slots.first()?;
        let output = self.call(&["read"])?;
        let wrong = |why| BootError::Answer {
            program: self.program.clone(),
            why,
        };
        let slot = |name| {
            value(&output, name)
                .map(|text| self.slots.named(Some(text.as_bytes())))
                .map(|slot| slot.ok_or_else(|| wrong("it names a slot that is not there")))
                .transpose()
        };
        let default = slot("default")?.ok_or_else(|| wrong("it names no `default`"))?;
        let boot = Boot::always(default.clone());
        let Some(trial) = slot("trial")? else {
            return Ok(boot);
        };
        let left = value(&output, "left").and_then(|left| left.parse().ok());
        let left = left.ok_or_else(|| wrong("`left` is no number from 0 to 255"))?;
        Ok(boot.trying(trial, left))
    }

    fn try_out(&self, slot: &SlotName, tries: u8) -> Result<(), BootError> {
        self.slots.expect_trial(slot, tries)?;
        self.call(&["try-out", slot.as_str(), &tries.to_string()])
            .map(drop)
    }

    fn confirm(&self, slot: &SlotName) -> Result<(), BootError> {
        self.slots.expect(slot)?;
        self.call(&["confirm", slot.as_str()]).map(drop)
    }

    fn abandon(&self) -> Result<(), BootError> {
        self.call(&["abandon"]).map(drop)
    }

    fn check(&self) -> Result<(), BootError> {
        self.call(&["check"])?;
        self.read().map(drop)
    }
}

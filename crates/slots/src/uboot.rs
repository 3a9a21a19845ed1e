//! U-Boot: variables of its environment, changed by its own tools.
//!
//! In: the tools' configuration. Out: variables of a trial, set by one run of `fw_setenv`, which
//! with a redundant environment writes one copy and then makes it the valid one. The counting is
//! U-Boot's: while `upgrade_available` is 1 it adds to `bootcount` before each boot, and beyond
//! `bootlimit` it runs `altbootcmd` (`dist/boot/uboot.env`), which boots the default.

use camino::Utf8PathBuf;
use system_image_formats::name::SlotName;

use crate::BootControl;
use crate::boot::Boot;
use crate::error::BootError;
use crate::program::{run, value};
use crate::set::Slots;

const PRINT: &str = "fw_printenv";
const SET: &str = "fw_setenv";

/// Its script, so that there need not be a writable directory.
const STDIN: &str = "/proc/self/fd/0";

/// The slot that boots without a trial.
const SLOT: &str = "system_image_slot";

/// The slot on trial.
const TRIAL: &str = "system_image_trial";

/// 1 while U-Boot counts.
const COUNTS: &str = "upgrade_available";

/// Tries made, and how many may be.
const MADE: &str = "bootcount";
const LIMIT: &str = "bootlimit";

/// The slot that the commands boot when nothing is known.
const FIRST: &str = "system_image_first";

/// What U-Boot runs when the tries are used up.
const FALL_BACK: &str = "altbootcmd";

/// Boot control by U-Boot.
#[derive(Debug)]
pub struct UBoot {
    config: Option<Utf8PathBuf>,
    slots: Slots,
}

impl UBoot {
    /// Over the environment that `config` describes, or `/etc/fw_env.config`.
    pub fn new(config: Option<Utf8PathBuf>, slots: Vec<SlotName>) -> Self {
        Self {
            config,
            slots: Slots::new(slots),
        }
    }

    fn call(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, BootError> {
        let config = self.config.iter().flat_map(|path| ["-c", path.as_str()]);
        let arguments: Vec<_> = config.chain(arguments.iter().copied()).collect();
        run(program.into(), &arguments, input)
    }

    fn boot(&self, environment: &str) -> Result<Boot, BootError> {
        let variable = |name| value(environment, name);
        let number = |name| variable(name).map_or(Some(0), |text| text.parse::<u32>().ok());
        let left = match (number(LIMIT), number(MADE)) {
            // Without a limit U-Boot does not look at the count.
            _ if variable(COUNTS) != Some("1") => Some(0),
            (None | Some(0), _) | (_, None) => None,
            (Some(limit), Some(made)) => Some(limit.saturating_sub(made)),
        };
        let boot = self.slots.boot(
            variable(SLOT).map(str::as_bytes),
            variable(TRIAL).map(str::as_bytes),
            u8::try_from(left.unwrap_or(0)).unwrap_or(u8::MAX),
        )?;
        if boot.trial.is_some() && left.is_none() {
            return Err(answer(PRINT, "a slot is on trial without a limit"));
        }
        Ok(boot)
    }

    fn store(&self, boot: &Boot) -> Result<(), BootError> {
        let slot = format!("{SLOT}={}\n", boot.default);
        let rest = match &boot.trial {
            None => format!("{TRIAL}=\n{COUNTS}=0\n{MADE}=0\n"),
            Some(trial) => format!(
                "{TRIAL}={}\n{COUNTS}=1\n{MADE}=0\n{LIMIT}={}\n",
                trial.slot, trial.left
            ),
        };
        self.call(SET, &["-s", STDIN], &(slot + &rest))?;
        // An older tool of the same name reads scripts of another form, and may call that success.
        if self.read()? == *boot {
            return Ok(());
        }
        Err(answer(SET, "the variables are not as they were set"))
    }
}

impl BootControl for UBoot {
    fn read(&self) -> Result<Boot, BootError> {
        self.slots.first()?;
        self.boot(&self.call(PRINT, &[], "")?)
    }

    fn try_out(&self, slot: &SlotName, tries: u8) -> Result<(), BootError> {
        self.slots.expect_trial(slot, tries)?;
        let boot = self.read()?;
        let wanted = boot.clone().trying(slot, tries);
        if wanted == boot {
            Ok(())
        } else {
            self.store(&wanted)
        }
    }

    fn confirm(&self, slot: &SlotName) -> Result<(), BootError> {
        self.slots.expect(slot)?;
        let wanted = Boot::always(slot.clone());
        match self.read() {
            Ok(boot) if boot == wanted => Ok(()),
            _ => self.store(&wanted),
        }
    }

    fn abandon(&self) -> Result<(), BootError> {
        let boot = self.read()?;
        if boot.trial.is_none() {
            return Ok(());
        }
        self.store(&Boot::always(boot.default))
    }

    fn check(&self) -> Result<(), BootError> {
        run(SET.into(), &["-V"], "")?;
        let environment = self.call(PRINT, &[], "")?;
        self.boot(&environment)?;
        let first = value(&environment, FIRST);
        if value(&environment, FALL_BACK).is_none() {
            return Err(answer(PRINT, "there is no `altbootcmd` to fall back with"));
        }
        if first.is_some_and(|first| first != self.slots.first().map_or("", SlotName::as_str)) {
            return Err(answer(PRINT, "`system_image_first` is not the first slot"));
        }
        Ok(())
    }
}

fn answer(program: &str, why: &'static str) -> BootError {
    BootError::Answer {
        program: program.into(),
        why,
    }
}

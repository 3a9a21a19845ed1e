//! Why a boot loader's state was not read or changed.

use std::io;
use std::process::ExitStatus;

use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::name::SlotName;

/// Why a boot loader's state was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The integrator's list of slots is no such list.
    #[error("a device has two slots or more, each named once, not `{0}`")]
    Slots(String),
    /// The boot loader's variables can tell two slots apart, not more.
    #[error("the classic variables are for exactly two slots, not `{0}`")]
    NotTwo(String),
    /// The caller names a slot that is not there.
    #[error("`{slot}` is no slot of this device, which has {known}")]
    Unknown {
        /// What was named.
        slot: SlotName,
        /// What is there.
        known: String,
    },
    /// A trial was asked for that would never boot.
    #[error("a trial has at least one try")]
    NoTries,
    /// A file of the boot loader is missing or cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file or directory.
        path: Utf8PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the boot loader cannot be written; it is as it was.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: Utf8PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the boot loader is there and does not say what boots.
    #[error("`{path}` does not say what boots: {why}")]
    Damaged {
        /// The file or directory.
        path: Utf8PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An environment block has a fixed size, and others have filled it.
    #[error("`{path}` has no room for the variables of a trial")]
    Full {
        /// The environment block.
        path: Utf8PathBuf,
    },
    /// A slot that the boot loader does not know of.
    #[error("slot `{slot}` has no entry in `{path}`")]
    NoEntry {
        /// The slot.
        slot: SlotName,
        /// The directory of entries.
        path: Utf8PathBuf,
    },
    /// What the integrator has set up makes something else boot.
    #[error("`{path}` does not let the boot loader choose: {why}")]
    SetUp {
        /// The file or directory.
        path: Utf8PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A program that is needed cannot be started, or not be listened to.
    #[error("cannot run `{program}`")]
    Run {
        /// The program.
        program: Utf8PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A program says that it failed.
    #[error("`{program}` failed, {status}: {said}")]
    Failed {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The beginning of what it wrote to standard error.
        said: String,
    },
    /// A program's answer makes no sense, or it did not do what it said.
    #[error("`{program}` does not answer as it should: {why}")]
    Answer {
        /// The program.
        program: Utf8PathBuf,
        /// What is wrong with the answer.
        why: &'static str,
    },
}

impl BootError {
    /// One line for the person at the keyboard.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(
                "mount the boot partition, and see docs/boot-control.md for what must be there",
            ),
            Self::Run { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("install the program, or correct its path")
            }
            Self::Damaged { .. } => {
                Some("confirm the slot that runs, or make the file anew as in docs/boot-control.md")
            }
            Self::Full { .. } => Some("remove variables with grub-editenv"),
            Self::NoEntry { .. } | Self::SetUp { .. } => {
                Some("see docs/boot-control.md for what the integrator sets up")
            }
            Self::Slots(_) | Self::NotTwo(_) | Self::Unknown { .. } => {
                Some("correct the slots in the configuration")
            }
            _ => None,
        }
    }
}

/// For `map_err` after an attempt to write `path`.
pub(crate) fn write(path: &Utf8Path) -> impl FnOnce(io::Error) -> BootError {
    let path = path.to_owned();
    move |source| BootError::Write { path, source }
}

/// For `map_err` after an attempt to read `path`.
pub(crate) fn read(path: &Utf8Path) -> impl FnOnce(io::Error) -> BootError {
    let path = path.to_owned();
    move |source| BootError::Read { path, source }
}

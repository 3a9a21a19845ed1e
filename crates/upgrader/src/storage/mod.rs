//! Where a system is and how it is made accessible: the seam between an update and the device's
//! storage.

mod device;
mod directory;
mod image;
mod loopback;
mod mounts;

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use system_image_delta::Root;

use crate::config::block::{BlockName, NotFound};
use crate::config::{Mounted, SlotAt};

pub use image::Image;

use device::Device;
use directory::Directory;

/// A place for the system that is changed while nobody uses it.
///
/// Steps come in the order format, mount, changes, unmount; each may be repeated after an
/// interruption.
pub trait Storage: std::fmt::Debug {
    /// Finds out whether the other steps can be taken. Changes nothing.
    fn check(&self) -> Result<(), SystemError>;
    /// Bytes that the system can hold at most, as far as that can be told without a change.
    fn capacity(&self) -> Result<Option<u64>, SystemError>;
    /// Makes the system empty.
    fn format(&self) -> Result<(), SystemError>;
    /// Makes the system accessible. What an interrupted run left mounted is put in order first.
    fn mount(&self) -> Result<Root, SystemError>;
    /// Makes it accessible for reading only, while it may be in use.
    fn look(&self) -> Result<Root, SystemError>;
    /// Puts the system away, everything on the disk.
    fn unmount(&self, root: Root) -> Result<(), SystemError>;
}

/// Why the place for the system cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// The path is not what the settings say it is.
    #[error("`{path}` is no {wanted}")]
    Kind {
        /// The path of the settings.
        path: Utf8PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// A file operation failed.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path concerned.
        path: Utf8PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program that is needed cannot be run.
    #[error("cannot run `{program}`")]
    Run {
        /// Its name.
        program: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A program failed.
    #[error("`{program}` failed with {status}: {output}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of what it said.
        output: String,
    },
    /// The device is in use somewhere else.
    #[error("`{device}` is mounted on `{mountpoint}`")]
    InUse {
        /// The block device.
        device: Utf8PathBuf,
        /// Where it is mounted.
        mountpoint: Utf8PathBuf,
    },
    /// A device that the settings name cannot be found.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// Another program has the device open and did not let go of it.
    #[error("`{device}` is in use by another program")]
    Busy {
        /// The block device.
        device: Utf8PathBuf,
    },
    /// Something else is mounted where the system is to be.
    #[error("something else than `{device}` is mounted on `{mountpoint}`")]
    Occupied {
        /// The block device of the settings.
        device: Utf8PathBuf,
        /// The mount point of the settings.
        mountpoint: Utf8PathBuf,
    },
}

impl SystemError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Kind { .. } | Self::NotFound(_) => {
                Some("`system-image-upgrader check` looks at what the settings name")
            }
            Self::Run { .. } => {
                Some("the programs of the file system must be part of the recovery")
            }
            Self::Busy { .. } => Some("stop the program, or wait until it is done"),
            Self::InUse { .. } | Self::Occupied { .. } => Some("unmount it first"),
            _ => None,
        }
    }
}

/// A system in a directory.
pub fn directory(path: Utf8PathBuf) -> Box<dyn Storage> {
    Box::new(Directory::new(path))
}

/// A system on a block device.
pub fn device(mounted: &Mounted<BlockName>) -> Result<Box<dyn Storage>, SystemError> {
    let Mounted {
        on,
        mountpoint,
        filesystem,
    } = mounted;
    Ok(Box::new(Device::new(
        on.find()?,
        mountpoint.clone(),
        *filesystem,
    )))
}

/// The system of one slot.
pub fn slot(at: &SlotAt, slot: &str) -> Result<Box<dyn Storage>, SystemError> {
    match at {
        SlotAt::Directory(path) => Ok(directory(path.replace("{slot}", slot).into())),
        SlotAt::Device(mounted) => device(&Mounted {
            on: mounted.on.of_slot(slot),
            ..mounted.clone()
        }),
    }
}

pub(crate) fn failed(action: &'static str, path: &Utf8Path, source: io::Error) -> SystemError {
    SystemError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

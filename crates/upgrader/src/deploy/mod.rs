//! Where a new system is prepared while nobody uses it, and how it takes the place of the old one.
//!
//! | way | the tree | how it becomes the system |
//! | --- | --- | --- |
//! | [`beside`] | a directory on the system's own file system; for deltas its files are those of the old tree | entries at the top are renamed |
//! | [`new_image`] | a new image file beside the old one | the file is renamed |
//! | [`slot`] | the slot that does not run, with a copy of the one that does | the boot loader is told to try it |
//!
//! Without room for any of them, [`live`](crate::live) changes the system itself.

pub mod beside;
pub mod new_image;
pub mod slot;
pub mod swap;

use std::io;

use system_image_delta::Root;
use system_image_slots::{BootError, SlotName};
use system_image_tree::manifest::ManifestError;

use crate::config::{Settings, SystemAt, Way};
use crate::storage::{self, Image, Storage, SystemError};
use beside::Beside;
use new_image::NewImage;
use slot::Slot;
use swap::Record;

/// A new system that is being prepared, and then takes the place of the old one.
///
/// Steps come in the order open, changes to the tree, seal, commit, finish. Up to the seal,
/// [`abandon`](Self::abandon) leaves everything as it was, and so does starting again after a cut.
/// Commit and finish may be repeated, also by a new process that did not open anything.
pub trait Deployment: std::fmt::Debug {
    /// Finds out whether the other steps can be taken. Changes nothing that anybody sees.
    fn check(&self) -> Result<(), DeployError>;

    /// Begins a tree: an empty one for a full image, else one that holds what the base holds.
    ///
    /// `bytes` is what will be written to it at most, as far as that is known.
    fn open(&mut self, is_full: bool, bytes: u64) -> Result<(), DeployError>;

    /// The tree.
    fn tree(&self) -> &Root;

    /// Everything of the tree is on the disk, and is what was written.
    fn seal(&mut self) -> Result<(), DeployError>;

    /// The tree takes the place of the system.
    fn commit(&mut self) -> Result<(), DeployError>;

    /// What is not needed any more is removed, and everything put away.
    fn finish(&mut self) -> Result<(), DeployError>;

    /// What was begun is removed, and everything put away.
    fn abandon(&mut self) -> Result<(), DeployError>;

    /// After a failure: leaves nothing mounted, and everything else as it is.
    fn put_away(&mut self) -> Result<(), DeployError>;

    /// How far it has got, as is seen from what is there.
    fn state(&mut self) -> Result<State, DeployError>;

    /// The slot that is changed, where there are slots.
    fn slot(&self) -> Result<Option<SlotName>, DeployError> {
        Ok(None)
    }

    /// Goes on with what another process sealed for this slot.
    fn resume(&mut self, _slot: Option<SlotName>) {}
}

/// How far a new system has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none, or nothing is to be done for it any more.
    Nothing,
    /// It waits to be put in place; the old one is whole.
    Prepared,
    /// It is being put in place, and must be to the end.
    Committing,
}

/// Why a new system cannot be prepared or put in place.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The storage cannot be used.
    #[error(transparent)]
    Storage(#[from] SystemError),
    /// There is not enough room beside the old system.
    #[error("there is no room for the new system beside the old one")]
    NoRoom,
    /// A file operation failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The running slot is not known, or there is no other.
    #[error("it is not known which slot runs")]
    Running,
    /// The base of a delta has been changed since it was installed.
    #[error("the running system has been changed since it was installed, a delta does not fit it")]
    Base(#[source] ManifestError),
    /// The disk does not give back what was written to it.
    #[error("the new system cannot be read back as it was written")]
    ReadBack(#[source] ManifestError),
    /// The boot loader cannot be told.
    #[error("cannot tell the boot loader")]
    Boot(#[from] BootError),
}

impl DeployError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Storage(error) => error.hint(),
            Self::NoRoom => Some("set `way = \"auto\"` to have the system changed directly"),
            Self::Io { .. } => None,
            Self::Running => Some(
                "the boot loader must pass `system_image.slot=NAME` to the kernel, as in `docs/boot-control.md`",
            ),
            Self::Base(_) => Some("install a full image"),
            Self::ReadBack(_) => Some("the disk may be failing"),
            Self::Boot(error) => error.hint(),
        }
    }

    /// Whether it is for want of room.
    pub fn is_full(&self) -> bool {
        match self {
            Self::NoRoom => true,
            Self::Io { source, .. } => is_full(source),
            _ => false,
        }
    }
}

/// Whether an error is that of a disk that is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// For [`Result::map_err`].
fn failed(action: &'static str) -> impl Fn(io::Error) -> DeployError {
    move |source| DeployError::Io { action, source }
}

/// Where the system of these settings is, to be changed directly. None on a device with slots, where
/// the one that runs is never changed.
pub fn live(settings: &Settings) -> Result<Option<Box<dyn Storage>>, SystemError> {
    Ok(match &settings.system {
        SystemAt::Directory(path) => Some(storage::directory(path.clone())),
        SystemAt::Device(mounted) => Some(storage::device(mounted)?),
        SystemAt::Image { mounted, size, .. } => Some(Box::new(Image::new(mounted.clone(), *size))),
        SystemAt::Slots(_) => None,
    })
}

/// How a new system is prepared on this device; `None` if the settings want it changed directly.
pub fn prepared(
    settings: &Settings,
    is_full: bool,
) -> Result<Option<Box<dyn Deployment>>, SystemError> {
    if let SystemAt::Slots(slots) = &settings.system {
        return Ok(Some(Box::new(Slot::new(slots.clone()))));
    }
    if settings.way == Way::Direct {
        return Ok(None);
    }
    if let (
        true,
        SystemAt::Image {
            mounted,
            names,
            size,
        },
    ) = (is_full, &settings.system)
    {
        let image = NewImage::new(mounted.clone(), names.clone(), *size);
        return Ok(Some(Box::new(image)));
    }
    let Some(storage) = live(settings)? else {
        return Ok(None);
    };
    let data = Root::open(settings.data.as_std_path())
        .map_err(|error| storage::failed("open", &settings.data, error))?;
    Ok(Some(Box::new(Beside::new(storage, Record::new(data)))))
}

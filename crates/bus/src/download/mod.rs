//! The download manager, from its client's side (downloader spec, 1 to 11 and 19).
//!
//! A [`Group`] is files that arrive all or not at all. Nothing is transferred before
//! [`Group::start`], and no event is missed, however late it is asked for. How long a silence is
//! too long is for the caller to say.

mod event;
mod group;
mod queue;

use camino::Utf8PathBuf;
use system_image_formats::checksum::Sha256;
use zbus::Connection;

pub use self::event::{Cause, Control, Event, Failure};
pub use self::group::Group;
use crate::{CallError, presence};

/// The names of a generation of the download manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `com.canonical.applications`.
    Canonical,
    /// `com.lomiri.applications`.
    Lomiri,
}

impl Family {
    /// Both, in the order in which they are tried.
    pub const ALL: [Self; 2] = [Self::Canonical, Self::Lomiri];

    /// The bus name.
    pub const fn service(self) -> &'static str {
        match self {
            Self::Canonical => "com.canonical.applications.Downloader",
            Self::Lomiri => "com.lomiri.applications.Downloader",
        }
    }

    /// The interface of the manager, whose object is `/`.
    pub const fn manager(self) -> &'static str {
        match self {
            Self::Canonical => "com.canonical.applications.DownloadManager",
            Self::Lomiri => "com.lomiri.applications.DownloadManager",
        }
    }

    /// The interface of a download of one file.
    pub const fn download(self) -> &'static str {
        match self {
            Self::Canonical => "com.canonical.applications.Download",
            Self::Lomiri => "com.lomiri.applications.Download",
        }
    }

    /// The interface of a group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Canonical => "com.canonical.applications.GroupDownload",
            Self::Lomiri => "com.lomiri.applications.GroupDownload",
        }
    }

    /// What every download's path begins with.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Canonical => "/com/canonical/applications/download",
            Self::Lomiri => "/com/lomiri/applications/download",
        }
    }
}

/// Which download manager is on the bus or can be started; none if there is none.
pub async fn present(connection: &Connection) -> Result<Option<Family>, CallError> {
    for family in Family::ALL {
        if presence::reachable(connection, family.service()).await? {
            return Ok(Some(family));
        }
    }
    Ok(None)
}

/// A file to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where from.
    pub url: String,
    /// Where to, absolute. No such file may exist.
    pub destination: Utf8PathBuf,
    /// What it must be; none if that is found out later.
    pub sha256: Option<Sha256>,
}

/// Why a group cannot be had, or goes on unseen.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// There is none.
    #[error("there is no download manager on the message bus")]
    Absent,
    /// It did not do what it was asked for.
    #[error("the download manager does not do what it is asked for")]
    Call(#[from] CallError),
    /// The bus does not tell us of its signals.
    #[error("cannot listen to the download manager")]
    Listen(#[source] Box<zbus::Error>),
    /// It ended, or the bus did. What it had downloaded may be lost.
    #[error("the download manager has left the message bus")]
    Left,
    /// A signal is not what its interface says.
    #[error("the download manager sends a signal `{signal}` that nobody understands")]
    Garbled {
        /// The signal's name.
        signal: String,
        /// What does not fit.
        source: Box<zbus::Error>,
    },
}

impl DownloadError {
    /// What a person can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Absent => Some("install a download manager, or choose the built-in one"),
            Self::Call(error) => error.hint(),
            Self::Left => Some("try again"),
            Self::Listen(_) | Self::Garbled { .. } => None,
        }
    }
}

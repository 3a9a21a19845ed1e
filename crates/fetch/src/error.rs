//! Why a file was not fetched.
//!
//! The texts of transfer errors are the original's: `<reason>: <url>`, and for a digest
//! `HASH ERROR: <destination>` (client spec, 13.3), because programs show them.

use std::io;

use camino::Utf8PathBuf;
use system_image_formats::checksum::Sha256;

/// Why a file was not fetched. Whatever was received by then is kept, unless the variant says
/// otherwise, and the next attempt goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server says that there is no such file: 404 or 410.
    #[error("The requested URL returned error: {status}: {url}")]
    Absent {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server refuses, or still has a problem after the last attempt.
    #[error("The requested URL returned error: {status}: {url}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The transfer failed, also after the last attempt.
    #[error("{trouble}: {url}")]
    Transfer {
        /// What was asked for.
        url: String,
        /// In what way.
        trouble: Trouble,
        /// What the network said.
        source: Option<Box<reqwest::Error>>,
    },
    /// More than five redirects.
    #[error("Maximum (5) redirects followed: {url}")]
    Redirects {
        /// What was asked for.
        url: String,
    },
    /// The file is longer than it may be.
    #[error("Maximum file size of {max} bytes exceeded: {url}")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The limit, in bytes.
        max: u64,
    },
    /// The server has a file of another size.
    #[error("The file has {got} bytes instead of {want}: {url}")]
    Size {
        /// What was asked for.
        url: String,
        /// The expected size, in bytes.
        want: u64,
        /// The size that the server announces.
        got: u64,
    },
    /// The content is not what it must be. It has been deleted.
    #[error("HASH ERROR: {destination}")]
    Checksum {
        /// Where the file should have gone.
        destination: Utf8PathBuf,
        /// The expected digest.
        want: Sha256,
        /// The digest of what the server sent.
        got: Sha256,
    },
    /// The disk is full.
    #[error("no space left to write `{path}`")]
    Full {
        /// The file that is being written.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write `{path}`")]
    Disk {
        /// The file that is being written.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file without a name cannot be made or written.
    #[error("cannot write a temporary file in `{directory}`")]
    Temporary {
        /// Where it should be.
        directory: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process downloads the same file to the same place.
    #[error("`{path}` is being downloaded by another process")]
    InUse {
        /// The file that is being written.
        path: Utf8PathBuf,
    },
    /// Two requests of a group want different files at one place.
    #[error("different files are wanted at `{destination}`")]
    Conflict {
        /// That place.
        destination: Utf8PathBuf,
    },
    /// The address is not one of HTTP or HTTPS.
    #[error("not a URL that can be fetched: {url}")]
    Url {
        /// The text.
        url: String,
    },
    /// The client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// In what way a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No connection came about.
    #[error("Could not connect to the server")]
    Unreachable,
    /// The connection ended before the file did.
    #[error("The connection was closed before the file was complete")]
    Lost,
    /// Too little arrived for too long.
    #[error("Operation too slow or timed out")]
    Stalled,
    /// The answer is not HTTP, or contradicts itself or the question.
    #[error("The server's answer makes no sense")]
    Garbled,
}

impl FetchError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Absent { .. } => Some("the server does not have this file; check its address"),
            Self::Status { status: 500.., .. } => Some("the server has a problem; try again later"),
            Self::Status { .. } => Some("the server refuses; ask its operator"),
            Self::Transfer { trouble, .. } => match trouble {
                Trouble::Unreachable => Some(
                    "check the network and the server's address; for https, that the package `ca-certificates` is installed and the clock is right",
                ),
                Trouble::Lost | Trouble::Stalled => {
                    Some("try again: what has been received is kept")
                }
                Trouble::Garbled => Some("check that no proxy or log-in page answers instead"),
            },
            Self::Size { .. } | Self::TooLong { .. } => {
                Some("the server has another file there, or a proxy or log-in page answers instead")
            }
            Self::Checksum { .. } => Some("try again; if it stays, the server's copy is damaged"),
            Self::Full { .. } => Some("make room and try again: what has been received is kept"),
            Self::InUse { .. } => Some("wait until the other download has ended"),
            Self::Url { .. } => Some("it must start with http:// or https://"),
            Self::Redirects { .. } => Some("the server's redirects lead in a circle"),
            // Which setting names a temporary directory is the program's to know.
            Self::Temporary { .. } | Self::Disk { .. } | Self::Conflict { .. } | Self::Setup(_) => {
                None
            }
        }
    }
}

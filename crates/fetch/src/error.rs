//! Why a file was not fetched.
//!
//! The texts of transfer errors are the original's: `<reason>: <url>`, and for a digest
//! `HASH ERROR: <destination>` (client spec, 13.3), because programs show them.

use std::io;

use camino::Utf8PathBuf;

use crate::digest::Digest;
pub use crate::trouble::Trouble;

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
    /// More redirects than are followed.
    #[error("Maximum ({max}) redirects followed: {url}")]
    Redirects {
        /// What was asked for.
        url: String,
        /// How many are followed.
        max: usize,
    },
    /// A redirect to where the request has been already.
    #[error("The redirects lead in a circle: {url}")]
    Loop {
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
        want: Digest,
        /// The digest of what the server sent.
        got: Digest,
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
    /// There is a file of that name, which must not be replaced. What was received is kept.
    #[error("`{path}` exists")]
    Exists {
        /// The name.
        path: Utf8PathBuf,
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
    /// The text is no address.
    #[error("not a URL that can be fetched: {url}")]
    Url {
        /// The text.
        url: String,
    },
    /// The address is not one of HTTP or HTTPS.
    #[error("Protocol `{scheme}` is unknown: {url}")]
    Scheme {
        /// The address, or that where a redirect led.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// A header to send is none, or has a line break in it.
    #[error("`{name}` with its value is not a header that can be sent")]
    Header {
        /// Its name. Its value may be a secret.
        name: String,
    },
    /// The client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl FetchError {
    /// Whether it is about the source, so that another may have the file.
    pub(crate) fn is_the_sources(&self) -> bool {
        match self {
            Self::Absent { .. }
            | Self::Status { .. }
            | Self::Transfer { .. }
            | Self::Redirects { .. }
            | Self::Loop { .. }
            | Self::Scheme { .. }
            | Self::TooLong { .. }
            | Self::Size { .. }
            | Self::Checksum { .. } => true,
            Self::Full { .. }
            | Self::Disk { .. }
            | Self::InUse { .. }
            | Self::Exists { .. }
            | Self::Temporary { .. }
            | Self::Conflict { .. }
            | Self::Url { .. }
            | Self::Header { .. }
            | Self::Setup(_) => false,
        }
    }

    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Absent { .. } => Some("the server does not have this file; check its address"),
            Self::Status { status: 500.., .. } => Some("the server has a problem; try again later"),
            Self::Status { .. } => Some("the server refuses; ask its operator"),
            Self::Transfer { trouble, .. } => Some(trouble.hint()),
            Self::Size { .. } | Self::TooLong { .. } => {
                Some("the server has another file there, or a proxy or log-in page answers instead")
            }
            Self::Checksum { .. } => Some("try again; if it stays, the server's copy is damaged"),
            Self::Full { .. } => Some("make room and try again: what has been received is kept"),
            Self::InUse { .. } => Some("wait until the other download has ended"),
            Self::Exists { .. } => Some("remove it, or choose another name"),
            Self::Url { .. } | Self::Scheme { .. } => {
                Some("it must start with http:// or https://")
            }
            Self::Redirects { .. } | Self::Loop { .. } => {
                Some("the server leads nowhere; check the address, or ask its operator")
            }
            Self::Header { .. } => Some("a header is a word and one line of text"),
            // Which setting names a temporary directory is the program's to know.
            Self::Temporary { .. } | Self::Disk { .. } | Self::Conflict { .. } | Self::Setup(_) => {
                None
            }
        }
    }
}

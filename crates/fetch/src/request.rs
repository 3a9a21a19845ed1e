//! What to fetch, and what came of it.

use camino::Utf8PathBuf;
use system_image_formats::checksum::Sha256;

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its address, `http://…` or `https://…`.
    pub url: String,
    /// Where it goes; its directory exists. `.part` and `.part.info` are appended to this name
    /// while it is under way.
    pub destination: Utf8PathBuf,
    /// How long it is or may be.
    pub size: Size,
    /// Its digest, if that is known before.
    pub sha256: Option<Sha256>,
}

/// The size of a file, in bytes, as far as it is known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// This, and nothing else.
    Exactly(u64),
    /// Anything up to this.
    AtMost(u64),
}

impl Size {
    pub(crate) const fn limit(self) -> u64 {
        match self {
            Self::Exactly(size) | Self::AtMost(size) => size,
        }
    }

    pub(crate) const fn allows(self, len: u64) -> bool {
        match self {
            Self::Exactly(size) => len == size,
            Self::AtMost(max) => len <= max,
        }
    }

    pub(crate) const fn known(self) -> Option<u64> {
        match self {
            Self::Exactly(size) => Some(size),
            Self::AtMost(_) => None,
        }
    }
}

/// A file that is at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its place.
    pub path: Utf8PathBuf,
    /// Its size, in bytes.
    pub size: u64,
    /// Its digest, computed from what was written.
    pub sha256: Sha256,
    /// Bytes that came over the network for it, in this call: fewer than its size if it was
    /// resumed, none if it was there already, more if it had to be started over.
    pub transferred: u64,
}

/// How far a file, or a group of files, has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of it that are here, those of earlier attempts included. Falls back when a file has
    /// to be started over.
    pub received: u64,
    /// Bytes that there are; unknown until the server has said so.
    pub total: Option<u64>,
}

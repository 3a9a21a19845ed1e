//! What to fetch, and how it goes.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8PathBuf;

use crate::digest::{Algorithm, Digest};
use crate::throttle::Throttle;

/// A file to fetch.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its address, `http://…` or `https://…`.
    pub url: String,
    /// Where it goes; its directory exists. [`How::suffix`] is appended to this name while it is
    /// under way, and `.info` to that for its side file.
    pub destination: Utf8PathBuf,
    /// How long it is or may be.
    pub size: Size,
    /// Its digest, if that is known before. It is computed from what is written.
    pub digest: Option<Digest>,
    /// In what way to fetch it.
    pub how: How,
}

impl Request {
    /// What is computed from what is written.
    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        let known = self.digest.as_ref().map(Digest::algorithm);
        known.or(self.how.compute)
    }

    /// Whether both want the same file at the same place.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.url, &self.destination, self.size, &self.digest)
            == (&other.url, &other.destination, other.size, &other.digest)
    }
}

/// In what way a file is fetched.
#[derive(Clone, Debug)]
pub struct How {
    /// What is appended to a file's name while it is under way.
    pub suffix: &'static str,
    /// Headers to send, added to the usual ones or in their place. What says which bytes and in
    /// which form (`Range`, `Accept-Encoding`) or concerns one connection is left out silently.
    pub headers: Vec<(String, String)>,
    /// Further addresses of the same file, tried in turn when one fails for good. What one of them
    /// has brought is gone on with by another only where the digest is known.
    pub mirrors: Vec<String>,
    /// Connections at a time, up to [`MAX_CONNECTIONS`](Self::MAX_CONNECTIONS). More than one fetch
    /// ranges side by side, where the server can do that and the file can be put together safely.
    pub connections: u8,
    /// Whether the server may compress what it sends; it is stored decompressed, and begun anew in
    /// each attempt. The size is that of what is stored.
    pub decompress: bool,
    /// Whether an answer without content (204 and 304) is an empty file rather than nonsense.
    pub empty_answers: bool,
    /// What to compute where no digest is known before.
    pub compute: Option<Algorithm>,
    /// Limits of speed, all of which hold.
    pub limits: Vec<Arc<Throttle>>,
    /// Dropped when nothing touches the file under its temporary name any more: a future that is
    /// dropped may still be writing its last bytes.
    pub guard: Option<Arc<dyn Any + Send + Sync>>,
}

impl How {
    /// Most connections for one file: each holds a piece in memory, and a server has other guests.
    pub const MAX_CONNECTIONS: u8 = 8;
}

impl Default for How {
    /// One connection to one server, no limit, no compression, no digest that nobody asked for.
    fn default() -> Self {
        Self {
            suffix: ".part",
            headers: Vec::new(),
            mirrors: Vec::new(),
            connections: 1,
            decompress: false,
            empty_answers: false,
            compute: None,
            limits: Vec::new(),
            guard: None,
        }
    }
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
    /// Its digest, if one was known or asked for, computed from what was written.
    pub digest: Option<Digest>,
    /// Bytes that came over the network for it, in this call: fewer than its size if it was
    /// resumed, none if it was there already, more if it had to be started over.
    pub transferred: u64,
}

/// What happens to the file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It stays, and the new one is not placed.
    New,
    /// It is replaced.
    Replace,
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

/// What happens while a file is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// More of it is here, or less, because it was started over.
    Progress(Progress),
    /// An attempt has failed and another will be made.
    Retrying {
        /// After this.
        wait: Duration,
        /// What failed.
        why: String,
    },
}

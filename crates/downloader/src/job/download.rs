//! A download: one file, or several that arrive all or not at all.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use system_image_bus::download::Family;

use super::admission::Held;
use super::failure::Failure;
use super::ids;
use super::machine::{Kind, Machine};
use super::metadata::{Metadata, key};

/// A download that is not over, or the last that is known of one that is.
#[derive(Debug)]
pub struct Download {
    /// Its number in the order of creation.
    pub number: u64,
    /// The last element of its paths.
    pub id: String,
    /// The family that it was made through: it has a say in where files go.
    pub family: Family,
    /// Whose it is; empty for whoever gave no name.
    pub owner: String,
    /// The application that made it, if that is confined.
    pub confined: Option<String>,
    /// What its caller says of it.
    pub metadata: Metadata,
    /// Headers of its requests.
    pub headers: BTreeMap<String, String>,
    /// Bytes per second; 0 for no limit.
    pub throttle: u64,
    /// Whether it may use mobile data.
    pub mobile_data: bool,
    /// What it wants and does.
    pub machine: Machine,
    /// Whether it was ever its turn.
    pub ran: bool,
    /// Its kind.
    pub shape: Shape,
    /// Its files: one, but for a group.
    pub files: Vec<File>,
    /// What it waits for, if it waits.
    pub held: Option<Held>,
    /// Of which address it has failed, and why, if it has.
    pub failure: Option<(String, Failure)>,
}

/// What kind of download it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One file.
    Single,
    /// One message, which waits for nobody.
    Message,
    /// Several files.
    Group,
}

impl Shape {
    /// What its machine is.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Single | Self::Message => Kind::Single,
            Self::Group => Kind::Group,
        }
    }
}

/// A file of a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where from.
    pub url: String,
    /// Where to, as known now: a server may suggest another name in the end.
    pub destination: Utf8PathBuf,
    /// The name that [`SUFFIX`](super::names::SUFFIX) is appended to while it is under way. Mostly the
    /// destination.
    pub stage: Utf8PathBuf,
    /// Whether the caller has said where to.
    pub exact: bool,
    /// The digest that it must have, as given; empty for none.
    pub hash: String,
    /// Its algorithm, as given.
    pub algorithm: String,
    /// Bytes of it that are here.
    pub received: u64,
    /// Its size, when that is known.
    pub total: Option<u64>,
    /// The file itself, from when all of it is there: whatever it is called then, it is this one.
    pub identity: Option<Identity>,
    /// Whether it is in its place.
    pub done: bool,
}

/// What makes a file the same after it was renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its size, in bytes.
    pub size: u64,
}

impl File {
    /// A file that nothing is known of yet.
    pub fn new(url: String, destination: Utf8PathBuf, hash: String, algorithm: String) -> Self {
        Self {
            url,
            stage: destination.clone(),
            destination,
            exact: false,
            hash,
            algorithm,
            received: 0,
            total: None,
            identity: None,
            done: false,
        }
    }
}

impl Download {
    /// What both families' paths of it end with.
    pub fn tail(&self) -> String {
        ids::tail(self.confined.as_deref(), &self.id)
    }

    /// Bytes that are here, of all files.
    pub fn received(&self) -> u64 {
        self.files.iter().map(|file| file.received).sum()
    }

    /// Bytes in the end, as far as that is known; 0 while nothing is.
    pub fn total(&self) -> u64 {
        self.files.iter().filter_map(|file| file.total).sum()
    }

    /// Whether the size of every file is known.
    pub fn is_measured(&self) -> bool {
        self.files.iter().all(|file| file.total.is_some())
    }

    /// Whether something is done with its file after the transfer.
    pub fn has_command(&self) -> bool {
        self.metadata.map().contains_key(key::POST_DOWNLOAD_COMMAND)
    }
}

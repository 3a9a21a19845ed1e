//! Brings one file and puts it in its place: what the core starts, and what it hears of it.

pub mod bring;
pub mod command;
pub mod finish;
pub mod local;
pub mod unpack;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use camino::Utf8PathBuf;
use system_image_fetch::Received;

use crate::job::failure::Failure;

/// Which file of which download, and in which of its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    /// The download's number.
    pub number: u64,
    /// The file's place in it.
    pub place: usize,
    /// What an earlier run still says is nobody's business any more.
    pub run: u64,
}

/// What became of a file.
#[derive(Debug)]
pub enum News {
    /// All bytes are here and right, under a temporary name.
    Received(Box<Received>),
    /// It is in its place. Of an archive that was unpacked, its directory.
    Done(Utf8PathBuf),
    /// It failed for good.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether the server could not be reached, which may be because there is no network.
        unreachable: bool,
    },
    /// Nothing touches it under its temporary name any more.
    Released,
}

/// How far a file has come; written by its transfer, read by the core when it is time to tell.
#[derive(Debug, Default)]
pub struct Counter {
    received: AtomicU64,
    total: AtomicU64,
    measured: AtomicBool,
}

impl Counter {
    /// Starts with what is known.
    pub fn new(received: u64, total: Option<u64>) -> Self {
        let counter = Self::default();
        counter.set(received, total);
        counter
    }

    /// So many bytes are here, of so many.
    pub fn set(&self, received: u64, total: Option<u64>) {
        self.received.store(received, Ordering::Relaxed);
        if let Some(total) = total {
            self.total.store(total, Ordering::Relaxed);
            self.measured.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes that are here, and all there are.
    pub fn get(&self) -> (u64, Option<u64>) {
        let total = self.total.load(Ordering::Relaxed);
        let measured = self.measured.load(Ordering::Relaxed);
        let received = self.received.load(Ordering::Relaxed);
        (received, measured.then_some(total))
    }
}

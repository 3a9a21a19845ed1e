//! Documents compressed once, for clients that ask for it: our own and the original ones do not,
//! since they verify bytes; browsers, monitors and mirrors do.
//!
//! Kept in memory by the identity of the file, so a document that was replaced is never found.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use tokio::sync::OnceCell;

use super::files::{Identity, Published};

/// Longest document that is compressed, in bytes: an index of ten thousand images has half.
const MAX_DOCUMENT: u64 = 16 << 20;

/// Shortest one: less fits into one packet anyway.
const MIN_DOCUMENT: u64 = 1024;

/// Compressed bytes that are kept. A real tree of 1000 indexes needs a tenth.
const MAX_KEPT: usize = 64 << 20;

/// Each document is compressed once and sent often.
const LEVEL: Compression = Compression::best();

/// Compressed documents.
#[derive(Debug, Default)]
pub(super) struct Compressed(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Identity, Entry>,
    /// Total of `Entry::len`.
    bytes: usize,
    /// Grows with each use.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    /// Requests that come while it is compressed wait for the first one.
    content: Arc<OnceCell<Bytes>>,
    len: usize,
    used: u64,
}

impl Compressed {
    /// The document's content as gzip; `None` if it is not worth it.
    pub(super) async fn gzip(&self, document: Published) -> io::Result<Option<Bytes>> {
        let identity = document.identity;
        if !(MIN_DOCUMENT..=MAX_DOCUMENT).contains(&identity.len) {
            return Ok(None);
        }
        let cell = self.lock().cell(identity);
        let made = cell
            .get_or_try_init(async || {
                let bytes = tokio::task::spawn_blocking(move || gzip(document)).await??;
                self.lock().filled(identity, bytes.len());
                io::Result::Ok(bytes)
            })
            .await?;
        Ok(Some(made.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn cell(&mut self, identity: Identity) -> Arc<OnceCell<Bytes>> {
        self.clock += 1;
        let entry = self.entries.entry(identity).or_insert_with(|| Entry {
            content: Arc::default(),
            len: 0,
            used: 0,
        });
        entry.used = self.clock;
        Arc::clone(&entry.content)
    }

    /// Counts what was made, and forgets what was not used for longest until all fits.
    fn filled(&mut self, identity: Identity, len: usize) {
        if let Some(entry) = self.entries.get_mut(&identity) {
            self.bytes += len - entry.len;
            entry.len = len;
        }
        while self.bytes > MAX_KEPT {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(identity, _)| *identity) else {
                return;
            };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= entry.len;
            }
        }
    }
}

fn gzip(mut document: Published) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), LEVEL);
    let read = io::copy(&mut document.file, &mut encoder)?;
    if read != document.identity.len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(encoder.finish()?.into())
}

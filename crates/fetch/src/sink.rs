//! A file on its way to its place: written beside it, hashed, bounded, and renamed when it is good.
//!
//! `NAME.part` holds what has been received, and its length says how much; `NAME.part.info` says of
//! which version of which address it is, so that a later process can go on. Both are ours alone
//! while the part is locked. Synchronous: the caller runs it where blocking is allowed.

use std::any::Any;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use system_image_durable::{remove, sync_parent};

use crate::batch::Batch;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{FetchError, Trouble};
use crate::inflate::{Coding, Inflate};
use crate::lock::open_locked;
use crate::range::Validator;
use crate::request::{Place, Request, Size};
use crate::room::reserve;
use crate::side::{Known, Side, boot};

/// Read from a file at a time, in bytes.
const BUFFER: usize = 256 << 10;

/// Without a digest, so many bytes may be lost to a power cut: seconds of a fast network.
const SYNC_EVERY: u64 = 128 << 20;

#[derive(Debug)]
pub(crate) struct Sink {
    destination: Utf8PathBuf,
    part: Utf8PathBuf,
    side: Side,
    size: Size,
    want: Option<Digest>,
    algorithm: Option<Algorithm>,
    file: File,
    hasher: Option<Hasher>,
    /// What is received is compressed.
    inflate: Option<Inflate>,
    len: u64,
    known: Known,
    /// Whether these bytes came in more than one answer, or from an earlier process: then they may
    /// be of two versions, or damaged by a power cut.
    joined: bool,
    /// How often they were begun anew.
    version: u64,
    syncing: bool,
    /// Whoever waits until this is over.
    _guard: Option<Arc<dyn Any + Send + Sync>>,
}

/// Where a download stands.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    /// Bytes that are there.
    pub(crate) len: u64,
    /// What is known of them.
    pub(crate) known: Known,
    /// Whether that is all.
    pub(crate) complete: bool,
}

/// How a file that was received whole turned out.
#[derive(Debug)]
pub(crate) enum Finished {
    /// Its digest is right, as far as one is known.
    Good { size: u64, digest: Option<Digest> },
    /// Its digest is wrong. It has been emptied. If it was put together from several pieces,
    /// fetching it whole may help.
    Wrong { error: FetchError, joined: bool },
}

impl Sink {
    /// Opens the part of a request's file, or goes on with the one that is there, if it came from
    /// one of `sources`. What is there may be long: `stop` ends reading it, with an error.
    pub(crate) fn open(
        request: &Request,
        sources: &[String],
        stop: &AtomicBool,
    ) -> Result<Self, FetchError> {
        let part = part_of(&request.destination, request.how.suffix);
        let file = open_locked(&part)?;
        let mut sink = Self {
            destination: request.destination.clone(),
            side: Side::of(&part),
            part,
            size: request.size,
            want: request.digest.clone(),
            algorithm: request.algorithm(),
            file,
            hasher: request.algorithm().map(Hasher::new),
            inflate: None,
            len: 0,
            known: Known::default(),
            joined: false,
            version: 0,
            syncing: false,
            _guard: request.how.guard.clone(),
        };
        let on_disk = sink.file.metadata().map_err(|e| sink.disk(e))?.len();
        if on_disk == 0 {
            return Ok(sink);
        }
        let known = sink.side.read();
        let known = known.filter(|known| sources.contains(&known.url));
        let good = match &known {
            // What is decoded is not what a range of the server's file would go on from.
            _ if request.how.decompress => 0,
            // The digest decides in the end.
            _ if sink.want.is_some() => on_disk,
            // Without one, only a strong validator can say that two halves belong together.
            Some(known) if known.validator.as_ref().is_some_and(Validator::is_strong) => {
                known.trusted(on_disk, boot().as_deref())
            }
            _ => 0,
        };
        if good == 0 || good > request.size.limit() {
            sink.restart()?;
        } else {
            sink.known = known.unwrap_or_default();
            sink.go_on(on_disk, good, stop)?;
        }
        Ok(sink)
    }

    pub(crate) fn position(&self) -> Position {
        let whole = self.size.known().or(self.known.total);
        Position {
            len: self.len,
            known: self.known.clone(),
            complete: whole == Some(self.len),
        }
    }

    /// Bytes received so far, over all attempts.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Goes on with the next answer where the last one ended. Makes sure of the room for the rest.
    pub(crate) fn join(&mut self, total: Option<u64>) -> Result<(), FetchError> {
        self.joined = true;
        self.reserve(total)
    }

    /// Forgets what was received.
    ///
    /// The side file goes first and comes last, so that it never describes other bytes.
    pub(crate) fn restart(&mut self) -> Result<(), FetchError> {
        self.side.remove().map_err(|e| self.disk(e))?;
        self.file.set_len(0).map_err(|e| self.disk(e))?;
        self.file.rewind().map_err(|e| self.disk(e))?;
        self.hasher = self.algorithm.map(Hasher::new);
        self.inflate = None;
        self.len = 0;
        self.known = Known::default();
        self.joined = false;
        self.version += 1;
        Ok(())
    }

    /// Forgets what was received; what comes now is the file that `known` describes. Makes sure of
    /// the room for it.
    pub(crate) fn begin(&mut self, known: Known) -> Result<(), FetchError> {
        self.restart()?;
        self.reserve(known.total)?;
        self.known = Known {
            boot: boot(),
            ..known
        };
        self.side.write(&self.known).map_err(|e| self.disk(e))
    }

    /// Appends what was received.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), FetchError> {
        let Some(mut inflate) = self.inflate.take() else {
            return batch.pieces().try_for_each(|piece| self.append(piece));
        };
        for piece in batch.pieces() {
            let fed = inflate.feed(piece, &mut |bytes| self.append_inflated(bytes));
            fed.map_err(|error| self.told(error))?;
        }
        self.inflate = Some(inflate);
        Ok(())
    }

    /// Undoes the compression of what comes now.
    pub(crate) fn inflate(&mut self, coding: Coding) {
        self.inflate = Some(Inflate::new(coding));
    }

    /// Makes sure that what was compressed is whole, if anything was. Returns the file's size.
    pub(crate) fn inflated(&mut self) -> Result<u64, FetchError> {
        if let Some(inflate) = self.inflate.take() {
            let finished = inflate.finish(&mut |bytes| self.append_inflated(bytes));
            finished.map_err(|error| self.told(error))?;
        }
        Ok(self.len)
    }

    /// Appends what little may have become much.
    fn append_inflated(&mut self, bytes: &[u8]) -> Result<(), Inflating> {
        let max = self.size.limit();
        if self.len.saturating_add(bytes.len() as u64) > max {
            let url = self.known.url.clone();
            return Err(Inflating::Failed(FetchError::TooLong { url, max }));
        }
        self.append(bytes).map_err(Inflating::Failed)
    }

    fn told(&self, error: Inflating) -> FetchError {
        match error {
            Inflating::Failed(error) => error,
            Inflating::Nonsense => FetchError::Transfer {
                url: self.known.url.clone(),
                trouble: Trouble::Garbled,
                source: None,
            },
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        if let Err(error) = self.file.write_all(bytes) {
            // A part of it may have been written: back to what the digest has seen.
            let back = self.file.set_len(self.len);
            let _ = back.and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
            return Err(self.disk(error));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// What is to be made durable now, if anything is: a digest makes that needless.
    pub(crate) fn due(&mut self) -> Option<Due> {
        if self.want.is_some() || self.syncing || self.len < self.known.synced + SYNC_EVERY {
            return None;
        }
        self.syncing = true;
        Some(Due {
            part: self.part.clone(),
            identity: identity(&self.file.metadata().ok()?),
            len: self.len,
            version: self.version,
        })
    }

    /// Takes note that something has been made durable.
    pub(crate) fn synced(&mut self, due: &Due, done: bool) -> Result<(), FetchError> {
        self.syncing = false;
        if !done || due.version != self.version {
            return Ok(());
        }
        self.known.synced = due.len;
        self.side.replace(&self.known).map_err(|e| self.disk(e))
    }

    /// Checks the digest of a file that was received whole.
    pub(crate) fn check(&mut self) -> Result<Finished, FetchError> {
        let digest = self.hasher.clone().map(Hasher::finish);
        if let (Some(want), Some(got)) = (&self.want, &digest)
            && want != got
        {
            let (want, got) = (want.clone(), got.clone());
            let destination = self.destination.clone();
            let error = FetchError::Checksum {
                destination,
                want,
                got,
            };
            let joined = self.joined;
            self.restart()?;
            return Ok(Finished::Wrong { error, joined });
        }
        Ok(Finished::Good {
            size: self.len,
            digest,
        })
    }

    /// Makes the file durable and puts it at `place`.
    pub(crate) fn place(&mut self, place: &Utf8Path, how: Place) -> Result<(), FetchError> {
        self.file.sync_all().map_err(|e| self.disk(e))?;
        let moved = match how {
            Place::Replace => fs::rename(&self.part, place),
            Place::New => rename_new(&self.part, place),
        };
        match moved {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = place.to_owned();
                return Err(FetchError::Exists { path });
            }
            moved => moved.map_err(|e| disk_error(place, e))?,
        }
        // What is being synced now has no side file any more.
        self.version += 1;
        self.side.remove().map_err(|e| self.disk(e))?;
        sync_parent(place).map_err(|e| disk_error(place, e))
    }

    /// Removes the part, of which nothing is good.
    pub(crate) fn remove(&mut self) -> Result<(), FetchError> {
        self.restart()?;
        remove(&self.part).map_err(|e| self.disk(e))
    }

    /// Takes the first `good` bytes that are there.
    fn go_on(&mut self, on_disk: u64, good: u64, stop: &AtomicBool) -> Result<(), FetchError> {
        if good < on_disk {
            self.file.set_len(good).map_err(|e| self.disk(e))?;
        }
        if self.hasher.is_some() {
            self.rehash(stop)?;
        } else {
            let end = self.file.seek(SeekFrom::End(0));
            self.len = end.map_err(|e| self.disk(e))?;
        }
        self.joined = true;
        Ok(())
    }

    /// Takes the bytes that are there into the digest.
    fn rehash(&mut self, stop: &AtomicBool) -> Result<(), FetchError> {
        let mut buffer = vec![0; BUFFER];
        while !stop.load(Ordering::Relaxed) {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    if let Some(hasher) = &mut self.hasher {
                        hasher.update(&buffer[..len]);
                    }
                    self.len += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.disk(error)),
            }
        }
        Err(self.disk(io::ErrorKind::Interrupted.into()))
    }

    fn reserve(&self, total: Option<u64>) -> Result<(), FetchError> {
        let Some(total) = self.size.known().or(total) else {
            return Ok(());
        };
        reserve(&self.file, self.len, total).map_err(|e| self.disk(e))
    }

    fn disk(&self, source: io::Error) -> FetchError {
        disk_error(&self.part, source)
    }
}

/// Why compressed bytes did not become a file.
enum Inflating {
    /// They are not what they say that they are.
    Nonsense,
    Failed(FetchError),
}

impl From<io::Error> for Inflating {
    fn from(_: io::Error) -> Self {
        Self::Nonsense
    }
}

/// Bytes that are to survive a power cut. They are synced through a descriptor of its own, so that
/// a download that is dropped meanwhile does not stay locked.
#[derive(Debug)]
pub(crate) struct Due {
    part: Utf8PathBuf,
    identity: (u64, u64),
    len: u64,
    version: u64,
}

impl Due {
    pub(crate) fn sync(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(self.part.as_std_path(), flags, Mode::empty())?;
        let file = File::from(file);
        if identity(&file.metadata()?) != self.identity {
            return Err(io::ErrorKind::NotFound.into());
        }
        file.sync_data()
    }
}

/// Which file it is, whatever it is called.
pub(crate) fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The digest of a whole file that is at its place already, if it is the wanted one.
pub(crate) fn existing(request: &Request) -> Option<(u64, Digest)> {
    let want = request.digest.clone()?;
    let mut file = File::open(&request.destination).ok()?;
    let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
    if !request.size.allows(metadata.len()) {
        return None;
    }
    let mut hasher = Hasher::new(want.algorithm());
    let size = io::copy(&mut file, &mut hasher).ok()?;
    (hasher.finish() == want).then_some((size, want))
}

/// Removes what a download to `destination` left under its temporary name, its side file too. What
/// is missing is fine.
///
/// A download that is under way there does not notice, and fails when it is to be put in its place:
/// drop it first.
pub fn discard(destination: &Utf8Path, suffix: &str) -> io::Result<()> {
    let part = part_of(destination, suffix);
    Side::of(&part).remove()?;
    remove(&part)
}

pub(crate) fn part_of(destination: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    format!("{destination}{suffix}").into()
}

pub(crate) fn disk_error(path: &Utf8Path, source: io::Error) -> FetchError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            FetchError::Full { path, source }
        }
        _ => FetchError::Disk { path, source },
    }
}

/// Renames to a name that nothing has.
fn rename_new(from: &Utf8Path, to: &Utf8Path) -> io::Result<()> {
    let (from, to) = (from.as_std_path(), to.as_std_path());
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // An old kernel, or a file system that does not know it.
        Err(Errno::NOSYS | Errno::INVAL) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

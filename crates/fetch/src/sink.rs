//! A file on its way to its place: written beside it, hashed, bounded, and renamed when it is good.
//!
//! `NAME.part` holds what has been received; `NAME.part.info` says of which version of which
//! address it is, so that a later process can go on. Both are ours alone while the part is locked.
//! A name without `.part` always holds a whole file whose digest was checked. Synchronous: the
//! caller runs it where blocking is allowed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, Mode, OFlags};
use sha2::Digest as _;
use system_image_durable::{remove, sync_parent};
use system_image_formats::checksum::Sha256;

use crate::error::FetchError;
use crate::range::Validator;
use crate::request::{Request, Size};

/// A download that was cancelled in this process may still be writing its last buffer; another
/// process holds its lock for longer.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// Read from a file at a time, in bytes.
const BUFFER: usize = 256 << 10;

/// Longest side file that is read, in bytes.
const MAX_INFO: u64 = 16 << 10;

#[derive(Debug)]
pub(crate) struct Sink {
    request: Request,
    part: Utf8PathBuf,
    info: Utf8PathBuf,
    file: File,
    hasher: sha2::Sha256,
    len: u64,
    validator: Option<Validator>,
    /// Whether these bytes came in more than one answer, or from an earlier process: then they may
    /// be of two versions, or damaged by a power cut.
    joined: bool,
}

/// How a file that was received whole turned out.
#[derive(Debug)]
pub(crate) enum Finished {
    /// It is at its place.
    Good { size: u64, sha256: Sha256 },
    /// Its digest is wrong, but it was put together from several pieces. It has been emptied, and
    /// fetching it whole may help.
    Damaged(FetchError),
}

impl Sink {
    /// Opens the part of a request's file, or goes on with the one that is there.
    pub(crate) fn open(request: &Request) -> Result<Self, FetchError> {
        let part = with_suffix(&request.destination, ".part");
        let info = with_suffix(&request.destination, ".part.info");
        let file = open_locked(&part)?;
        let mut sink = Self {
            request: request.clone(),
            part,
            info,
            file,
            hasher: sha2::Sha256::new(),
            len: 0,
            validator: None,
            joined: false,
        };
        sink.validator = sink.read_info();
        // Without a digest only a strong tag can say that two halves belong together.
        let resumable =
            request.sha256.is_some() || matches!(sink.validator, Some(Validator::Etag(_)));
        let on_disk = sink.file.metadata().map_err(|e| sink.disk(e))?.len();
        if on_disk > 0 {
            if resumable && on_disk <= request.size.limit() {
                sink.rehash()?;
            } else {
                sink.restart(None)?;
            }
        }
        Ok(sink)
    }

    /// Bytes received so far, over all attempts.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// What identifies the version that these bytes are of.
    pub(crate) fn validator(&self) -> Option<&Validator> {
        self.validator.as_ref()
    }

    /// Whether all bytes of a file of known size are there.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.request.size, Size::Exactly(size) if size == self.len)
    }

    /// Goes on with the next answer where the last one ended.
    pub(crate) fn join(&mut self) {
        self.joined = true;
    }

    /// Forgets what was received; what comes now is of the version that `validator` names.
    ///
    /// The side file goes first and comes last, so that it never describes other bytes.
    pub(crate) fn restart(&mut self, validator: Option<Validator>) -> Result<(), FetchError> {
        remove(&self.info).map_err(|e| self.disk(e))?;
        self.file.set_len(0).map_err(|e| self.disk(e))?;
        self.file.rewind().map_err(|e| self.disk(e))?;
        self.hasher = sha2::Sha256::new();
        self.len = 0;
        self.joined = false;
        if let Some(validator) = &validator {
            let text = format!("{}\n{}\n", self.request.url, validator.to_line());
            fs::write(&self.info, text).map_err(|e| self.disk(e))?;
        }
        self.validator = validator;
        Ok(())
    }

    /// Appends what was received.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        if let Err(error) = self.file.write_all(bytes) {
            // A part of it may have been written: back to what the digest has seen.
            let back = self.file.set_len(self.len);
            let _ = back.and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
            return Err(self.disk(error));
        }
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Checks the digest, makes the file durable and puts it in its place.
    ///
    /// # Errors
    /// [`FetchError::Checksum`], after which the part is gone.
    pub(crate) fn finish(&mut self) -> Result<Finished, FetchError> {
        let digest: [u8; 32] = self.hasher.clone().finalize().into();
        let got = Sha256::from(digest);
        if let Some(want) = self.request.sha256.filter(|want| *want != got) {
            let destination = self.request.destination.clone();
            let error = FetchError::Checksum {
                destination,
                want,
                got,
            };
            if self.joined {
                self.restart(None)?;
                return Ok(Finished::Damaged(error));
            }
            remove(&self.info).map_err(|e| self.disk(e))?;
            remove(&self.part).map_err(|e| self.disk(e))?;
            return Err(error);
        }
        let target = &self.request.destination;
        self.file.sync_all().map_err(|e| self.disk(e))?;
        fs::rename(&self.part, target).map_err(|e| self.disk(e))?;
        remove(&self.info).map_err(|e| self.disk(e))?;
        sync_parent(target).map_err(|e| self.disk(e))?;
        Ok(Finished::Good {
            size: self.len,
            sha256: got,
        })
    }

    /// Takes the bytes that are there into the digest.
    fn rehash(&mut self) -> Result<(), FetchError> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    self.hasher.update(&buffer[..len]);
                    self.len += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.disk(error)),
            }
        }
        self.joined = true;
        Ok(())
    }

    /// The validator of the side file, if that is about the same address.
    fn read_info(&self) -> Option<Validator> {
        let mut text = String::new();
        File::open(&self.info)
            .ok()?
            .take(MAX_INFO)
            .read_to_string(&mut text)
            .ok()?;
        let mut lines = text.lines();
        let same = lines.next()? == self.request.url;
        let validator = Validator::from_line(lines.next()?)?;
        same.then_some(validator)
    }

    fn disk(&self, source: io::Error) -> FetchError {
        disk_error(&self.part, source)
    }
}

/// The digest of a whole file that is at its place already, if it is the wanted one.
pub(crate) fn existing(request: &Request) -> Option<(u64, Sha256)> {
    let want = request.sha256?;
    let mut file = File::open(&request.destination).ok()?;
    let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
    if !request.size.allows(metadata.len()) {
        return None;
    }
    let mut hasher = sha2::Sha256::new();
    let size = io::copy(&mut file, &mut hasher).ok()?;
    let digest: [u8; 32] = hasher.finalize().into();
    (Sha256::from(digest) == want).then_some((size, want))
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

/// Opens and locks a file that still has that name when the lock is ours: whoever had it before
/// may have renamed it meanwhile.
fn open_locked(path: &Utf8Path) -> Result<File, FetchError> {
    let disk = |source| disk_error(path, source);
    let begin = Instant::now();
    loop {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let file = rustix::fs::open(path.as_std_path(), flags, mode).map_err(|e| disk(e.into()))?;
        let file = File::from(file);
        let ours = file.metadata().map_err(disk)?;
        if !ours.is_file() {
            return Err(disk(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a plain file",
            )));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let named = fs::symlink_metadata(path);
                if named.is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino())) {
                    return Ok(file);
                }
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(disk(error.into())),
        }
        if begin.elapsed() > LOCK_PATIENCE {
            return Err(FetchError::InUse {
                path: path.to_owned(),
            });
        }
        thread::sleep(LOCK_POLL);
    }
}

fn with_suffix(path: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}{suffix}"))
}

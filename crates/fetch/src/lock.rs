//! Opens a part for one download alone.

use std::fs::{self, File};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::FetchError;
use crate::sink::{disk_error, identity};

/// A download that was cancelled in this process may still be writing its last buffer; another
/// process holds its lock for longer.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);

/// Opens and locks a file that still has that name when the lock is ours: whoever had it before
/// may have renamed it meanwhile.
pub(crate) fn open_locked(path: &Utf8Path) -> Result<File, FetchError> {
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
                if named.is_ok_and(|named| identity(&named) == identity(&ours)) {
                    return Ok(file);
                }
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(disk(error.into())),
        }
        if begin.elapsed() > PATIENCE {
            return Err(FetchError::InUse {
                path: path.to_owned(),
            });
        }
        thread::sleep(POLL);
    }
}

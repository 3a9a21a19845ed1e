//! One writer at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};

use camino::Utf8Path;
use rustix::fs::{FlockOperation, flock};

/// Held while a command changes the server's files; the kernel releases it with the process.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "holding it open is its purpose")] File);

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another command holds it.
    #[error("another command is changing this server's files ({holder})")]
    Busy {
        /// Who, as it wrote itself down.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error("cannot lock the server's files")]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes `<state>/global.lock`, the name that the original uses too.
    pub fn take(state: &Utf8Path) -> Result<Self, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(state.join("global.lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.take(200).read_to_string(&mut holder)?;
                let holder = holder.trim();
                let holder = if holder.is_empty() { "unknown" } else { holder }.to_owned();
                return Err(LockError::Busy { holder });
            }
            Err(error) => return Err(io::Error::from(error).into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "process {}", std::process::id())?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let state = Utf8Path::from_path(dir.path()).unwrap();
        let first = Lock::take(state).unwrap();
        let second = Lock::take(state).unwrap_err();
        let me = format!("process {}", std::process::id());
        assert!(matches!(second, LockError::Busy { holder } if holder == me));
        drop(first);
        Lock::take(state).unwrap();
    }
}

//! One writer at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use rustix::fs::{FlockOperation, flock};

/// How long a command waits for another one. Writers that end make room at once.
pub type Patience = Duration;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

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
    pub fn take(state: &Utf8Path, patience: Patience) -> Result<Self, LockError> {
        let until = Instant::now() + patience;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(state.join("global.lock"))?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(LockError::Busy {
                        holder: holder(file)?,
                    });
                }
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        file.set_len(0)?;
        file.rewind()?;
        let command: Vec<_> = std::env::args_os()
            .skip(1)
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect();
        writeln!(
            file,
            "process {}: {}",
            std::process::id(),
            command.join(" ")
        )?;
        Ok(Self(file))
    }
}

/// Who holds the lock, as far as he said.
fn holder(mut file: File) -> io::Result<String> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(200).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    Ok(if text.is_empty() { "unknown" } else { text }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let state = Utf8Path::from_path(dir.path()).unwrap();
        let first = Lock::take(state, Duration::ZERO).unwrap();
        let second = Lock::take(state, Duration::from_millis(60)).unwrap_err();
        let me = format!("process {}:", std::process::id());
        assert!(matches!(second, LockError::Busy { holder } if holder.starts_with(&me)));
        drop(first);
        Lock::take(state, Duration::ZERO).unwrap();
    }
}

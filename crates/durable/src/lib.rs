//! Files that survive a crash whole: written beside their place, synced, renamed, their directory
//! synced. After a crash at any point the old file is there or the new one.
//!
//! A staged file is called `<name>.new`. One that a crash left is overwritten by the next writer of the
//! same file, or gone on with by one that finds out what of it is right, so writers of one file must exclude
//! each other. Nothing else reads that name.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Replaces a small file, or makes it. `mode` holds the permission bits of the new one.
pub fn replace(path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> io::Result<()> {
    let path = path.as_ref();
    let mut staged = Staged::create(path, mode)?;
    staged.write_all(bytes)?;
    staged.commit()
}

/// A file that is being written under its temporary name.
///
/// Dropped before [`commit`](Self::commit), it leaves its place as it was.
#[derive(Debug)]
pub struct Staged {
    file: File,
    temporary: PathBuf,
    place: PathBuf,
    /// Whether its temporary name is gone or is to stay.
    is_settled: bool,
}

impl Staged {
    /// Begins a file for `place`, with these permission bits.
    pub fn create(place: impl Into<PathBuf>, mode: u32) -> io::Result<Self> {
        let place = place.into();
        let temporary = staged_name(&place)?;
        // Made anew, so that it has this mode and is nobody's link.
        remove(&temporary)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        Ok(Self {
            file,
            temporary,
            place,
            is_settled: false,
        })
    }

    /// Goes on with what an earlier writer left for `place`, whole or not; begins anew if there is nothing.
    /// Its permission bits become these; what is no regular file, or is somebody's link, is replaced.
    pub fn resume(place: impl Into<PathBuf>, mode: u32) -> io::Result<Self> {
        let place = place.into();
        let temporary = staged_name(&place)?;
        let is_ours = present(fs::symlink_metadata(&temporary))?
            .is_some_and(|meta| meta.is_file() && meta.nlink() == 1);
        if !is_ours {
            return Self::create(place, mode);
        }
        let file = OpenOptions::new().read(true).write(true).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(Self {
            file,
            temporary,
            place,
            is_settled: false,
        })
    }

    /// Leaves it for a later writer to [resume](Self::resume), its place as it was.
    pub fn leave(mut self) {
        self.is_settled = true;
    }

    /// The file itself, for those who write at more than its end.
    pub const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes it durable and gives it its name.
    pub fn commit(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        rename(&self.temporary, &self.place)?;
        self.is_settled = true;
        Ok(())
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_settled {
            // Nothing reads that name; the next writer of the same file overwrites it.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The name under which a file is written before it gets its own.
pub fn staged_name(place: &Path) -> io::Result<PathBuf> {
    let name = place.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut staged = OsString::from(name);
    staged.push(".new");
    Ok(place.with_file_name(staged))
}

/// Renames, and makes the new name durable.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: impl AsRef<Path>) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes the name of a file durable, or its absence.
pub fn sync_parent(path: impl AsRef<Path>) -> io::Result<()> {
    match path.as_ref().parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_directory("."),
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Reads a small file whole; `None` when it is not there.
///
/// # Errors
/// Also when it has more than `max` bytes.
pub fn read(path: impl AsRef<Path>, max: usize) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = present(File::open(path))? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take((max as u64).saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() > max {
        let text = format!("it has more than {max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(Some(bytes))
}

/// Removes a file that may be missing.
pub fn remove(path: impl AsRef<Path>) -> io::Result<()> {
    present(fs::remove_file(path)).map(drop)
}

/// What is missing is `None`, not an error.
pub fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_whatever_a_crash_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(read(&path, 9).unwrap(), None);
        replace(&path, b"old", 0o600).unwrap();
        fs::write(staged_name(&path).unwrap(), b"half").unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(read(&path, 3).unwrap().unwrap(), b"new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(read(&path, 2).is_err(), "a limit holds");
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_not_committed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut staged = Staged::create(&path, 0o644).unwrap();
        staged.write_all(b"half").unwrap();
        drop(staged);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Staged::create("/", 0o644).is_err());
    }
}

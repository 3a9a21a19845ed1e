//! Files that matter are written beside their place, synced, then renamed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};

/// Mode of every directory that the client makes (client spec, section 16).
const DIRECTORY_MODE: u32 = 0o2700;

/// What the name of a file ends with while it is being written.
pub const STAGED: &str = ".new";

/// Makes a directory and those above it, for the client's own eyes.
pub fn make_directory(path: &Utf8Path) -> anyhow::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
    missing
        .into_iter()
        .rev()
        .try_for_each(|path| {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            // The call that makes a directory drops the set-group-id bit.
            fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
        })
        .with_context(|| format!("cannot make the directory `{path}`"))
}

/// Writes a small file so that a crash leaves the old one or the new one.
pub fn replace(path: &Utf8Path, bytes: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("cannot write `{path}`");
    let directory = path.parent().with_context(failed)?;
    make_directory(directory)?;
    let staged = Utf8PathBuf::from(format!("{path}{STAGED}"));
    (|| {
        remove(&staged)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        sync(directory)
    })()
    .with_context(failed)
}

/// Reads a small file; `None` when it is not there.
///
/// # Errors
/// Also when it has more than `max` bytes.
pub fn read(path: &Utf8Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take((max as u64).saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {max} bytes"),
        ));
    }
    Ok(Some(bytes))
}

/// Removes a file that may be missing.
pub fn remove(path: &Utf8Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes renames and removals in a directory durable.
pub fn sync(directory: &Utf8Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Bytes that can still be written to the file system of a directory.
pub fn available(directory: &Utf8Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(directory.as_std_path())?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_whole_and_its_directories_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap().join("a/b/file");
        assert_eq!(read(&path, 9).unwrap(), None);
        replace(&path, b"old").unwrap();
        // A crash before the rename leaves this behind.
        fs::write(format!("{path}.new"), b"half").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(read(&path, 3).unwrap().unwrap(), b"new");
        assert!(read(&path, 2).is_err());
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}

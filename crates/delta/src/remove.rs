//! Removes a name and everything below it, following no link and entering no other file system.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A directory on the way down, and the directories in it that are still to be removed.
struct Level {
    name: CString,
    left: Vec<CString>,
}

/// Removes `name` in `parent`. False if it was not there.
///
/// Two descriptors are open however deep the tree is; what is remembered are the names of the
/// directories beside the way down.
pub(crate) fn tree(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) => return Ok(true),
        Err(Errno::NOENT) => return Ok(false),
        // Linux says the first for a directory, POSIX the second, as for what is immutable.
        Err(Errno::ISDIR | Errno::PERM) if is_directory(parent, name)? => {}
        Err(error) => return Err(error.into()),
    }
    let name = CString::new(name)?;
    let mut current = open_child(parent, &name)?;
    let left = empty(&current)?;
    let mut levels = vec![Level { name, left }];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            current = open_child(current.as_fd(), &name)?;
            let left = empty(&current)?;
            levels.push(Level { name, left });
            continue;
        }
        let done = levels.pop().map(|level| level.name).unwrap_or_default();
        if levels.is_empty() {
            fs::unlinkat(parent, &done, AtFlags::REMOVEDIR)?;
        } else {
            // Nobody else moves directories here, so this is where the way down came from.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            current = fs::openat(&current, c"..", flags, Mode::empty())?;
            fs::unlinkat(&current, &done, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(true)
}

/// The names in a directory.
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes what is no directory from `directory` and returns the directories.
fn empty(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    for name in names(directory.as_fd())? {
        match fs::unlinkat(directory, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM)
                if is_directory(directory.as_fd(), name.to_bytes())? =>
            {
                directories.push(name);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(directories)
}

fn is_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory)
}

fn open_child(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(fs::openat2(parent, name, flags, Mode::empty(), resolve)?)
}

//! Removes a name and everything below it, following no link and entering no other file system.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, IFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::resolve;
use crate::root::Root;

/// A directory on the way down, and the directories in it that are still to be removed.
struct Level {
    name: CString,
    left: Vec<CString>,
}

/// Removes `name` in `parent`. False if it was not there.
///
/// Two descriptors are open however deep the tree is; what is remembered are the names of the
/// directories beside the way down.
pub fn tree(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let name = CString::new(name)?;
    match unlink(parent, &name)? {
        Was::Nothing => return Ok(false),
        Was::File => return Ok(true),
        Was::Directory => {}
    }
    let mut current = resolve::child(parent, &name)?;
    let left = empty(&current)?;
    let mut levels = vec![Level { name, left }];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            current = resolve::child(current.as_fd(), &name)?;
            let left = empty(&current)?;
            levels.push(Level { name, left });
            continue;
        }
        let done = levels.pop().map(|level| level.name).unwrap_or_default();
        if levels.is_empty() {
            remove_empty(parent, &done)?;
        } else {
            // Nobody else moves directories here, so this is where the way down came from.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            current = fs::openat(&current, c"..", flags, Mode::empty())?;
            remove_empty(current.as_fd(), &done)?;
        }
    }
    Ok(true)
}

/// Removes everything in `root` but the paths `kept` and the directories that lead to them, which keep
/// their attributes.
///
/// Paths are below the root, without a leading or trailing slash; one that is not there is fine.
pub fn all_but(root: &Root, kept: &[Vec<u8>]) -> io::Result<()> {
    fn level(directory: BorrowedFd<'_>, path: &[u8], kept: &[Vec<u8>]) -> io::Result<()> {
        for name in names(directory)? {
            let mut below = path.to_vec();
            below.extend_from_slice(name.to_bytes());
            if kept.contains(&below) {
                continue;
            }
            below.push(b'/');
            if kept.iter().any(|kept| kept.starts_with(&below))
                && is_directory(directory, name.to_bytes())?
            {
                let child = resolve::child(directory, &name)?;
                level(child.as_fd(), &below, kept)?;
            } else {
                tree(directory, name.to_bytes())?;
            }
        }
        Ok(())
    }
    level(root.as_fd(), b"", kept)
}

/// The names in a directory.
pub fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
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
        if unlink(directory.as_fd(), &name)? == Was::Directory {
            directories.push(name);
        }
    }
    Ok(directories)
}

/// What was found at a name.
#[derive(PartialEq, Eq)]
enum Was {
    Nothing,
    /// Gone now.
    File,
    /// Still there.
    Directory,
}

fn unlink(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Was> {
    let mut again = false;
    loop {
        match fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) => return Ok(Was::File),
            Err(Errno::NOENT) => return Ok(Was::Nothing),
            // Linux says the first for a directory, POSIX the second, as for what is immutable.
            Err(Errno::ISDIR | Errno::PERM) if is_directory(parent, name.to_bytes())? => {
                return Ok(Was::Directory);
            }
            Err(Errno::PERM) if !again => release(parent, name),
            Err(error) => return Err(error.into()),
        }
        again = true;
    }
}

fn remove_empty(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::PERM) => {
            release(parent, name);
            Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
        }
        other => Ok(other?),
    }
}

/// Takes from a file or directory, and from the directory that it is in, what `chattr +i` and `+a`
/// gave them: a file that cannot be removed once ended a reset half way. Whether that helped is
/// seen when it is removed again.
fn release(parent: BorrowedFd<'_>, name: &CStr) {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let itself = fs::openat(parent, name, flags, Mode::empty());
    // The parent may have been opened as a handle, which takes no attributes.
    let around = fs::openat(
        parent,
        c".",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    for file in [itself, around].into_iter().flatten() {
        if let Ok(has) = fs::ioctl_getflags(&file) {
            let _ = fs::ioctl_setflags(&file, has - (IFlags::IMMUTABLE | IFlags::APPEND));
        }
    }
}

fn is_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
    let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory)
}

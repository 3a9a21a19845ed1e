//! A second tree beside the first whose files are the same inodes.
//!
//! Only directories are made anew. Whoever replaces a file in one of the trees, by a new file that is
//! renamed over the old, leaves the other tree as it is; nothing may be written through.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::attributes::give_all;
use crate::remove::names;
use crate::resolve;
use crate::root::{Root, is_absent};
use crate::{PART_NAME, is_apart};

/// Makes `to`, an empty directory, a second tree of what is in `from`, both on one file system.
///
/// What is no part of a tree at the top of a file system is left out. The tree may be as deep as the
/// limit of open files allows, two for each level.
pub fn link(from: &Root, to: &Root) -> io::Result<()> {
    level(from.as_fd(), to.as_fd(), is_apart)
}

fn level(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    is_left_out: fn(&[u8]) -> bool,
) -> io::Result<()> {
    for name in names(from)? {
        if is_left_out(name.to_bytes()) {
            continue;
        }
        let stat = fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            fs::mkdirat(to, &name, Mode::RWXU)?;
            let (from, to) = (resolve::child(from, &name)?, resolve::child(to, &name)?);
            level(from.as_fd(), to.as_fd(), |_| false)?;
        } else {
            fs::linkat(from, &name, to, &name, AtFlags::empty())?;
        }
    }
    give_all(from, to)
}

/// Gives a file an inode of its own, so that it may be written to; one that is not there, or is no
/// regular file, is left as it is.
pub fn unshare(root: &Root, path: &str) -> io::Result<()> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = match root.directory(parent.as_bytes()) {
        Err(error) if is_absent(&error) => return Ok(()),
        other => other?,
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut old = match fs::openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(()),
        other => File::from(other?),
    };
    if !old.metadata()?.is_file() {
        return Ok(());
    }
    match fs::unlinkat(&parent, PART_NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut new = File::from(fs::openat(
        &parent,
        PART_NAME,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?);
    io::copy(&mut old, &mut new)?;
    give_all(old.as_fd(), new.as_fd())?;
    Ok(fs::renameat(&parent, PART_NAME, &parent, name)?)
}

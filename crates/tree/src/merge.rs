//! Moves what was prepared in one directory into another one, on the same file system.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType};
use rustix::io::Errno;

use crate::attributes::give_all;
use crate::remove::{self, names};
use crate::resolve;
use crate::root::Root;

/// Moves the entries of `from` into `to`, until `from` is empty.
///
/// A directory that is there already keeps what is in it and gets the attributes of the new one; the
/// top is left as it is. Anything else that is there is replaced, a whole directory too where a file
/// comes.
pub fn merge(from: &Root, to: &Root) -> io::Result<()> {
    level(from.as_fd(), to.as_fd())
}

fn level(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for name in names(from)? {
        let is_directory = |parent| kind(parent, &name).map(|k| k == Some(FileType::Directory));
        match (is_directory(from)?, is_directory(to)?) {
            (true, true) => {
                let (old, new) = (resolve::child(to, &name)?, resolve::child(from, &name)?);
                level(new.as_fd(), old.as_fd())?;
                give_all(new.as_fd(), old.as_fd())?;
                fs::unlinkat(from, &name, AtFlags::REMOVEDIR)?;
                continue;
            }
            (false, true) => {
                remove::tree(to, name.to_bytes())?;
            }
            (true, false) if kind(to, &name)?.is_some() => {
                fs::unlinkat(to, &name, AtFlags::empty())?;
            }
            _ => {}
        }
        fs::renameat(from, &name, to, &name)?;
        // Two names of one file: renaming one over the other did nothing.
        if kind(from, &name)?.is_some() {
            fs::unlinkat(from, &name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn kind(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<FileType>> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

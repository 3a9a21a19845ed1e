//! A second tree beside the first whose files are the same inodes.
//!
//! Only directories are made anew. Whoever replaces a file in one of the trees, by a new file that is
//! renamed over the old, leaves the other tree as it is; nothing may be written through.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Mode};

use crate::attributes::give_all;
use crate::is_apart;
use crate::remove::names;
use crate::resolve;
use crate::root::Root;

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

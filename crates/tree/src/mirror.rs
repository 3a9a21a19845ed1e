//! Makes a tree equal to another one by copying what differs.
//!
//! What is equal is found by its content, never by its time: the other tree may be what an
//! interrupted copy left, or an image of long ago.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Uid};
use rustix::io::Errno;

use crate::attributes::{give_all, mtime, permissions, times};
use crate::remove::{self, names};
use crate::resolve;
use crate::root::Root;
use crate::{PART_NAME, is_apart};

/// Read at a time while two files are compared or one is copied, in bytes.
const BUFFER: usize = 128 << 10;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// Bytes of content that were copied.
    pub copied: u64,
    /// Bytes of content that were there already.
    pub kept: u64,
}

/// Makes `to` equal to `from`: names, kinds, content, hard links, holes, owners, modes, times and
/// extended attributes of what can be opened.
///
/// What is no part of a tree at the top of a file system is left alone. Memory grows with the number
/// of files that have several names, with nothing else.
pub fn mirror(from: &Root, to: &Root) -> io::Result<Mirrored> {
    let mut mirror = Mirror {
        to,
        first: HashMap::new(),
        taken: HashMap::new(),
        done: Mirrored::default(),
    };
    mirror.level(from.as_fd(), to.as_fd(), &mut Vec::new())?;
    Ok(mirror.done)
}

struct Mirror<'a> {
    to: &'a Root,
    /// Of files with several names, by their inode: the path of the first one in the new tree.
    first: HashMap<u64, Vec<u8>>,
    /// Which inodes of the new tree stand for which of the old, where either has several names.
    taken: HashMap<u64, u64>,
    done: Mirrored,
}

impl Mirror<'_> {
    fn level(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &mut Vec<u8>,
    ) -> io::Result<()> {
        let is_top = path.is_empty();
        let is_left_out = |name: &CStr| is_top && is_apart(name.to_bytes());
        let wanted = names(from)?;
        let mut surplus: Vec<CString> = names(to)?;
        surplus.sort_unstable();
        for name in wanted.iter().filter(|name| !is_left_out(name)) {
            if let Ok(at) = surplus.binary_search(name) {
                surplus.remove(at);
            }
            let length = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            self.entry(from, to, name, path)?;
            path.truncate(length);
        }
        for name in surplus.iter().filter(|name| !is_left_out(name)) {
            remove::tree(to, name.to_bytes())?;
        }
        give_all(from, to)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        path: &mut Vec<u8>,
    ) -> io::Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut there = stat_of(to, name)?;
        // Only two directories, or two things that are none, can take each other's place.
        if there
            .is_some_and(|there| is(&there, FileType::Directory) != is(&stat, FileType::Directory))
        {
            remove::tree(to, name.to_bytes())?;
            there = None;
        }
        if is(&stat, FileType::Directory) {
            if there.is_none() {
                fs::mkdirat(to, name, Mode::RWXU)?;
            }
            let (from, to) = (resolve::child(from, name)?, resolve::child(to, name)?);
            return self.level(from.as_fd(), to.as_fd(), path);
        }
        if stat.st_nlink > 1
            && let Some(first) = self.first.get(&stat.st_ino)
        {
            return self.second_name(to, name, first, there);
        }
        if is(&stat, FileType::RegularFile) {
            self.file(from, to, name, &stat, there)?;
        } else if !is_same_link(from, to, name, &stat, there)? {
            node(from, to, name, &stat)?;
        }
        if stat.st_nlink > 1 {
            self.first.insert(stat.st_ino, path.clone());
        }
        Ok(())
    }

    fn second_name(
        &self,
        to: BorrowedFd<'_>,
        name: &CStr,
        first: &[u8],
        there: Option<Stat>,
    ) -> io::Result<()> {
        let (parent, first) = match first.iter().rposition(|&b| b == b'/') {
            Some(at) => (&first[..at], &first[at + 1..]),
            None => (&first[..0], first),
        };
        let parent = self.to.handle(parent)?;
        let wanted = fs::statat(&parent, first, AtFlags::SYMLINK_NOFOLLOW)?;
        if there.is_some_and(|there| there.st_ino == wanted.st_ino) {
            return Ok(());
        }
        fresh(to)?;
        fs::linkat(&parent, first, to, PART_NAME, AtFlags::empty())?;
        Ok(fs::renameat(to, PART_NAME, to, name)?)
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        there: Option<Stat>,
    ) -> io::Result<()> {
        let old = File::from(open(from, name)?);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if let Some(there) = there
            && is(&there, FileType::RegularFile)
            && there.st_size == stat.st_size
            && there.st_nlink == stat.st_nlink
            && (there.st_nlink == 1
                || *self.taken.entry(there.st_ino).or_insert(stat.st_ino) == stat.st_ino)
        {
            let new = File::from(open(to, name)?);
            if is_equal(&old, &new)? {
                self.done.kept += size;
                return give_all(old.as_fd(), new.as_fd());
            }
        }
        fresh(to)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let new = File::from(fs::openat(
            to,
            PART_NAME,
            flags,
            Mode::from_raw_mode(0o600),
        )?);
        copy(&old, &new, size)?;
        self.done.copied += size;
        give_all(old.as_fd(), new.as_fd())?;
        if stat.st_nlink > 1 {
            self.taken.insert(fs::fstat(&new)?.st_ino, stat.st_ino);
        }
        Ok(fs::renameat(to, PART_NAME, to, name)?)
    }
}

/// Whether a symbolic link is there as it should be.
fn is_same_link(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    there: Option<Stat>,
) -> io::Result<bool> {
    let facts = |stat: &Stat| (stat.st_uid, stat.st_gid, mtime(stat), stat.st_nlink);
    let is_alike = there.is_some_and(|there| {
        is(&there, FileType::Symlink) && stat.st_nlink == 1 && facts(&there) == facts(stat)
    });
    let target = |parent| fs::readlinkat(parent, name, Vec::new());
    Ok(is_alike && is(stat, FileType::Symlink) && target(from)? == target(to)?)
}

/// A link that differs, a pipe, a socket or a device: these are made anew each time, they are few.
fn node(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    fresh(to)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind == FileType::Symlink {
        let target = fs::readlinkat(from, name, Vec::new())?;
        fs::symlinkat(target, to, PART_NAME)?;
    } else {
        let mode = Mode::from_raw_mode(0o600);
        fs::mknodat(to, PART_NAME, kind, mode, stat.st_rdev)?;
    }
    let new = fs::statat(to, PART_NAME, AtFlags::SYMLINK_NOFOLLOW)?;
    if (new.st_uid, new.st_gid) != (stat.st_uid, stat.st_gid) {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fs::chownat(
            to,
            PART_NAME,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    if kind != FileType::Symlink {
        // The name is new and no link, so this follows nothing.
        let mode = Mode::from_raw_mode(permissions(stat));
        fs::chmodat(to, PART_NAME, mode, AtFlags::empty())?;
    }
    let times = times(mtime(stat));
    fs::utimensat(to, PART_NAME, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(fs::renameat(to, PART_NAME, to, name)?)
}

/// Copies content, as a reference where the file system can, else without its holes.
fn copy(from: &File, to: &File, size: u64) -> io::Result<()> {
    if fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    to.set_len(size)?;
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < size {
        let data = match fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // A file system that does not tell.
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let hole = fs::seek(from, SeekFrom::Hole(data)).unwrap_or(size);
        at = data;
        while at < hole {
            let wanted = usize::try_from(hole - at).unwrap_or(BUFFER).min(BUFFER);
            let got = from.read_at(&mut buffer[..wanted], at)?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all_at(&buffer[..got], at)?;
            at += got as u64;
        }
    }
    Ok(())
}

/// Whether two files of one size have the same content.
fn is_equal(one: &File, other: &File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; BUFFER], vec![0; BUFFER]);
    let mut at = 0;
    loop {
        let got = one.read_at(&mut left, at)?;
        if got == 0 {
            return Ok(true);
        }
        match other.read_exact_at(&mut right[..got], at) {
            Ok(()) if left[..got] == right[..got] => at += got as u64,
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Removes what an interrupted run left under the temporary name.
fn fresh(parent: BorrowedFd<'_>) -> io::Result<()> {
    match fs::unlinkat(parent, PART_NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(parent, name, flags, Mode::empty())?)
}

fn stat_of(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Stat>> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

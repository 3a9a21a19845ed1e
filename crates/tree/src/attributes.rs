//! What a file or directory has besides its content: owner, mode, time, extended attributes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};

use crate::xattr;

/// Attributes of something that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    owner: (u32, u32),
    mode: u32,
    mtime: (i64, i64),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Attributes {
    /// Those of a file or directory that was opened for reading.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        let file = file.as_fd();
        let stat = fs::fstat(file)?;
        let mut names = xattr::names(file)?;
        names.sort();
        let with_value = |name: Vec<u8>| xattr::value(file, &name).map(|value| (name, value));
        Ok(Self {
            owner: (stat.st_uid, stat.st_gid),
            mode: permissions(&stat),
            mtime: mtime(&stat),
            xattrs: names
                .into_iter()
                .map(with_value)
                .collect::<io::Result<_>>()?,
        })
    }

    /// Gives them to another file or directory that was opened; what is equal is not touched.
    pub fn give(&self, file: impl AsFd) -> io::Result<()> {
        let file = file.as_fd();
        let has = Self::of(file)?;
        if has.owner != self.owner {
            let (uid, gid) = self.owner;
            fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        // A change of the owner takes set-uid and capabilities away.
        if has.owner != self.owner || has.mode != self.mode {
            fs::fchmod(file, Mode::from_raw_mode(self.mode))?;
        }
        let is_wanted = |name: &[u8]| self.xattrs.iter().any(|(wanted, _)| wanted == name);
        for (name, _) in has.xattrs.iter().filter(|(name, _)| !is_wanted(name)) {
            fs::fremovexattr(file, &**name)?;
        }
        for wanted in &self.xattrs {
            if has.owner != self.owner || !has.xattrs.contains(wanted) {
                let (name, value) = wanted;
                fs::fsetxattr(file, &**name, value, XattrFlags::empty())?;
            }
        }
        // Setting the others changes no modification time, but this is what was asked for last.
        if has.mtime != self.mtime {
            fs::futimens(file, &self.times())?;
        }
        Ok(())
    }

    /// The extended attributes, sorted by name.
    pub fn xattrs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.xattrs
    }

    fn times(&self) -> Timestamps {
        times(self.mtime)
    }
}

/// Permission bits, set-uid, set-gid and sticky included.
pub(crate) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// Seconds and nanoseconds of the last modification.
pub(crate) fn mtime(stat: &Stat) -> (i64, i64) {
    let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
    (stat.st_mtime, nanos)
}

/// The access time is set to the same: it is of no use and would differ from run to run.
pub(crate) fn times((tv_sec, tv_nsec): (i64, i64)) -> Timestamps {
    let time = Timespec { tv_sec, tv_nsec };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The time of a directory is set last: whatever is made in it changes it.
pub(crate) fn give_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    Attributes::of(from)?.give(to)
}

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

    /// As text, for [`parse`](Self::parse): it outlasts the file that they are of.
    pub fn to_text(&self) -> String {
        let Self {
            owner: (uid, gid),
            mode,
            mtime: (seconds, nanos),
            ..
        } = self;
        let mut text = format!("{uid} {gid} {mode:o} {seconds} {nanos}\n");
        for (name, value) in &self.xattrs {
            text.push_str(&format!("{} {}\n", hex(name), hex(value)));
        }
        text
    }

    /// Reads what [`to_text`](Self::to_text) wrote; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.lines();
        let mut fields = lines.next()?.split(' ');
        let mut field = || fields.next();
        let (uid, gid) = (field()?.parse().ok()?, field()?.parse().ok()?);
        let mode = u32::from_str_radix(field()?, 8).ok()?;
        let mtime = (field()?.parse().ok()?, field()?.parse().ok()?);
        let xattr = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((unhex(name)?, unhex(value)?))
        };
        Some(Self {
            owner: (uid, gid),
            mode,
            mtime,
            xattrs: lines.map(xattr).collect::<Option<_>>()?,
        })
    }

    /// The extended attributes, sorted by name.
    pub fn xattrs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        &self.xattrs
    }

    fn times(&self) -> Timestamps {
        times(self.mtime)
    }
}

/// Two digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    bytes.collect()
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
pub(crate) fn times((seconds, nanos): (i64, i64)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// The time of a directory is set last: whatever is made in it changes it.
pub(crate) fn give_all(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    Attributes::of(from)?.give(to)
}

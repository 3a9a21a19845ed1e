//! What an archive says about one member, and how 512 bytes say it.

use super::number;

/// One member's metadata. Names are as the archive holds them, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The member's name, e.g. `./system/etc/`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-uid, set-gid and sticky: `0o7777` at most.
    pub mode: u32,
    /// Numeric owner. Names of owners are not read: they mean nothing on another machine.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Extended attributes, sorted by name, each name once.
    pub xattrs: Vec<Xattr>,
    /// The archive has an ACL for this member in a form that is not carried on.
    pub acl: bool,
}

impl Header {
    /// A member that belongs to root and has no extended attributes, changed at `seconds`.
    pub fn of_root(path: impl Into<Vec<u8>>, kind: Kind, mode: u32, seconds: i64) -> Self {
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Mtime { seconds, nanos: 0 },
            xattrs: Vec::new(),
            acl: false,
        }
    }
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of `size` bytes, holes included.
    File {
        /// Length of its content in bytes.
        size: u64,
    },
    /// Another name of a file that came earlier.
    HardLink {
        /// Path of that file in the archive.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// Its text.
        target: Vec<u8>,
    },
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
}

/// A device's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Driver.
    pub major: u32,
    /// Unit.
    pub minor: u32,
}

/// A point in time: seconds since 1970 and nanoseconds after that, below 10⁹.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after the whole second.
    pub nanos: u32,
}

/// An extended attribute, e.g. `security.capability`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// Full name with its class.
    pub name: Vec<u8>,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// A header block that has been told apart but not yet put together with the blocks before it.
pub(super) struct Raw {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) flag: u8,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: i64,
    pub(super) device: Device,
}

impl Raw {
    /// Reads a header block whose checksum has been verified.
    pub(super) fn parse(block: &[u8; super::BLOCK]) -> Result<Self, &'static str> {
        let num = |from: usize, len: usize| number::parse(&block[from..from + len]);
        let mut path = text(&block[0..100]).to_vec();
        // Only POSIX archives keep a prefix there; GNU has times and its sparse map in its place.
        if &block[257..263] == b"ustar\0" && block[345] != 0 {
            let mut whole = text(&block[345..500]).to_vec();
            whole.push(b'/');
            whole.append(&mut path);
            path = whole;
        }
        let flag = block[156];
        let device = |from, bits: u32| u32::try_from(num(from, 8)?).ok().filter(|n| n >> bits == 0);
        let device = match flag {
            // As wide as the kernel has them; it would cut off what is wider.
            b'3' | b'4' => Device {
                major: device(329, 12).ok_or("device number")?,
                minor: device(337, 20).ok_or("device number")?,
            },
            _ => Device { major: 0, minor: 0 },
        };
        let mode = num(100, 8).ok_or("mode")?;
        Ok(Self {
            path,
            link: text(&block[157..257]).to_vec(),
            flag,
            // File type bits above the permissions are repeated there by some writers.
            mode: u32::try_from(mode & 0o7777).map_err(|_| "mode")?,
            uid: num(108, 8).ok_or("owner")?,
            gid: num(116, 8).ok_or("group")?,
            size: num(124, 12).ok_or("size")?,
            mtime: num(136, 12).ok_or("modification time")?,
            device,
        })
    }
}

/// A field up to its first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// Whether the block's checksum is right. Old writers summed signed bytes.
pub(super) fn checksum_fits(block: &[u8; super::BLOCK]) -> bool {
    let Some(want) = number::parse(&block[148..156]) else {
        return false;
    };
    let with_blanks = |index: usize, byte: u8| {
        if (148..156).contains(&index) {
            b' '
        } else {
            byte
        }
    };
    let bytes = || block.iter().enumerate().map(|(i, &b)| with_blanks(i, b));
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    want == unsigned || want == signed
}

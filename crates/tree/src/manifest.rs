//! A list of a tree, one line for each entry in a fixed order, content by its digest.
//!
//! Written when a tree is known to be good, it tells later whether the tree still is: whether the disk
//! gives back what was written to it, and whether a base is what a delta was made for.

use std::ffi::CStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, Advice, AtFlags, FileType, Mode, OFlags, Stat};
use sha2::{Digest, Sha256};

use crate::attributes::{Attributes, hex, mtime, permissions};
use crate::is_apart;
use crate::remove::names;
use crate::resolve;
use crate::root::Root;

/// The first line; another one is another format.
const HEAD: &str = "system-image manifest 1";

/// Longest line that is read, in bytes: a path of 4,096 bytes, each escaped.
const MAX_LINE: u64 = 64 << 10;

/// Why a tree is not what a manifest says.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The tree or the manifest cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The manifest is of another version, or is none.
    #[error("it is no manifest of a known version")]
    Form,
    /// The first entry that differs.
    #[error("`{path}` is not as it was")]
    Differs {
        /// The path below the root, as a manifest writes it; where one of the two ends early, the other's.
        path: String,
    },
}

/// Writes the manifest of the tree at `root` to `out`.
///
/// What is no part of a tree at the top of a file system is left out. Memory grows with the number of
/// names in one directory.
pub fn write(root: &Root, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{HEAD}")?;
    walk(root, &mut |line| {
        writeln!(out, "{line}").map_err(ManifestError::Io)
    })
    .map_err(|error| match error {
        ManifestError::Io(error) => error,
        other => io::Error::other(other),
    })
}

/// Compares the tree at `root` with its manifest, reading it from the disk where the kernel lets go
/// of what it remembers of a file.
pub fn verify(root: &Root, manifest: &mut dyn BufRead) -> Result<(), ManifestError> {
    let mut next = || -> Result<Option<String>, ManifestError> {
        let mut line = Vec::new();
        manifest.take(MAX_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        // A line that was cut says nothing.
        let line = line.strip_suffix(b"\n").ok_or(ManifestError::Form)?;
        let line = String::from_utf8(line.to_vec()).map_err(|_| ManifestError::Form)?;
        Ok(Some(line))
    };
    if next()?.as_deref() != Some(HEAD) {
        return Err(ManifestError::Form);
    }
    walk(root, &mut |line| match next()? {
        Some(wanted) if wanted == line => Ok(()),
        _ => Err(differs(line)),
    })?;
    match next()? {
        None => Ok(()),
        Some(missing) => Err(differs(&missing)),
    }
}

fn differs(line: &str) -> ManifestError {
    let path = line.rsplit(' ').next().unwrap_or_default().to_owned();
    ManifestError::Differs { path }
}

type Take<'a> = &'a mut dyn FnMut(&str) -> Result<(), ManifestError>;

fn walk(root: &Root, take: Take<'_>) -> Result<(), ManifestError> {
    let mut buffer = vec![0; 128 << 10];
    take(&directory_line(root.as_fd(), "")?)?;
    level(root.as_fd(), &mut String::new(), take, &mut buffer)
}

fn level(
    directory: BorrowedFd<'_>,
    path: &mut String,
    take: Take<'_>,
    buffer: &mut [u8],
) -> Result<(), ManifestError> {
    let is_top = path.is_empty();
    let mut entries = names(directory)?;
    entries.retain(|name| !(is_top && is_apart(name.to_bytes())));
    entries.sort_unstable();
    for name in entries {
        let length = path.len();
        if !is_top {
            path.push('/');
        }
        escape(name.to_bytes(), path);
        let stat =
            fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let child = resolve::child(directory, &name).map_err(io::Error::from)?;
                take(&directory_line(child.as_fd(), path)?)?;
                level(child.as_fd(), path, take, buffer)?;
            }
            FileType::RegularFile => take(&file_line(directory, &name, path, buffer)?)?,
            kind => take(&node_line(directory, &name, path, kind, &stat)?)?,
        }
        path.truncate(length);
    }
    Ok(())
}

fn directory_line(directory: BorrowedFd<'_>, path: &str) -> io::Result<String> {
    let stat = fs::fstat(directory)?;
    let attributes = attributes(directory)?;
    Ok(line('d', &stat, &attributes, "-", path))
}

fn file_line(
    parent: BorrowedFd<'_>,
    name: &CStr,
    path: &str,
    buffer: &mut [u8],
) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(fs::openat(parent, name, flags, Mode::empty())?);
    let stat = fs::fstat(&file)?;
    // Read from the disk, not from memory. What is still to be written is kept.
    let _ = fs::fadvise(&file, 0, None, Advice::DontNeed);
    let mut hasher = Sha256::new();
    loop {
        match file.read(buffer)? {
            0 => break,
            got => hasher.update(&buffer[..got]),
        }
    }
    let content = format!("{}:{}", stat.st_size, hex(&hasher.finalize()));
    Ok(line('f', &stat, &attributes(file.as_fd())?, &content, path))
}

fn node_line(
    parent: BorrowedFd<'_>,
    name: &CStr,
    path: &str,
    kind: FileType,
    stat: &Stat,
) -> io::Result<String> {
    let number = || format!("{}:{}", fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
    let (letter, content) = match kind {
        FileType::Symlink => {
            let target = fs::readlinkat(parent, name, Vec::new())?;
            let mut escaped = String::new();
            escape(target.to_bytes(), &mut escaped);
            ('l', escaped)
        }
        FileType::CharacterDevice => ('c', number()),
        FileType::BlockDevice => ('b', number()),
        FileType::Fifo => ('p', "-".to_owned()),
        _ => ('s', "-".to_owned()),
    };
    Ok(line(letter, stat, "-", &content, path))
}

/// Kind, mode, names of the file, owner, group, time, extended attributes, content, path.
fn line(kind: char, stat: &Stat, xattrs: &str, content: &str, path: &str) -> String {
    let mode = permissions(stat);
    let (seconds, nanos) = mtime(stat);
    // How many entries a directory holds is seen from the entries.
    let links = if kind == 'd' { 1 } else { stat.st_nlink };
    let (uid, gid) = (stat.st_uid, stat.st_gid);
    format!("{kind} {mode:o} {links} {uid} {gid} {seconds}.{nanos:09} {xattrs} {content} /{path}")
}

/// A digest of all extended attributes; `-` for none.
fn attributes(file: BorrowedFd<'_>) -> io::Result<String> {
    let attributes = Attributes::of(file)?;
    if attributes.xattrs().is_empty() {
        return Ok("-".to_owned());
    }
    let mut hasher = Sha256::new();
    for (name, value) in attributes.xattrs() {
        for part in [name, value] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// Bytes outside of visible ASCII, and the backslash, as `\xNN`.
fn escape(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'\\' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

//! A directory that no operation below it can leave.
//!
//! In: relative paths, from archives that may be hostile. Out: descriptors of directories that
//! the kernel resolved inside the root: an absolute symbolic link starts at the root, `..` stops
//! there, other file systems mounted below are not entered. Nothing here is atomic across calls:
//! the tree must have no other writer meanwhile.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::{is_apart, remove, resolve};

/// A directory opened once.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// Opens the directory at `path`, which may itself be a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            directory: fs::open(path, flags, Mode::empty())?,
        })
    }

    /// Uses a directory that is already open.
    pub fn from_fd(directory: OwnedFd) -> Self {
        Self { directory }
    }

    /// Opens a directory in it by its name, following no link.
    pub fn child(&self, name: &str) -> io::Result<Self> {
        let directory = resolve::child(self.as_fd(), &CString::new(name)?)?;
        Ok(Self { directory })
    }

    /// The same; `None` if there is nothing of that name.
    pub fn child_if_there(&self, name: &str) -> io::Result<Option<Self>> {
        match self.child(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Makes a directory in it that only its owner may enter; one that is there is as good.
    pub fn make_child(&self, name: &str) -> io::Result<Self> {
        match fs::mkdirat(self, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.child(name),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a name in it and all that is below. False if it was not there.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        remove::tree(self.as_fd(), name.as_bytes())
    }

    /// Gives a name in it, or in another directory of the same file system, another place.
    pub fn rename(&self, from: &str, to: &Self, name: &str) -> io::Result<()> {
        Ok(fs::renameat(self, from, to, name)?)
    }

    /// Whether there is anything of that name.
    pub fn has(&self, name: &str) -> io::Result<bool> {
        match fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Another descriptor of the same directory.
    pub fn again(&self) -> io::Result<Self> {
        let directory = self.directory.try_clone()?;
        Ok(Self { directory })
    }

    /// Removes everything in it, on its own file system only. The directory itself stays, and so
    /// does what is no part of the tree at the top of a file system.
    pub fn clear(&self) -> io::Result<()> {
        self.clear_but(is_apart)
    }

    /// The same, sparing the names that `spared` says.
    pub fn clear_but(&self, spared: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        for name in remove::names(self.as_fd())? {
            if !spared(name.to_bytes()) {
                remove::tree(self.as_fd(), name.to_bytes())?;
            }
        }
        Ok(())
    }

    /// Writes everything of its file system to the disk.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.directory)?)
    }

    /// Bytes that can still be written to its file system by root.
    pub fn free(&self) -> io::Result<u64> {
        let found = fs::fstatvfs(&self.directory)?;
        Ok(found.f_bfree.saturating_mul(found.f_frsize))
    }

    /// Opens the directory at `path`; the empty path is the root. Links are followed inside the
    /// root.
    pub fn directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        Ok(resolve::directory(self.as_fd(), path, OFlags::RDONLY)?)
    }

    /// The same, only to be used as the start of other paths. Needs no permission to read it.
    pub fn handle(&self, path: &[u8]) -> io::Result<OwnedFd> {
        Ok(resolve::directory(self.as_fd(), path, OFlags::PATH)?)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Nothing can be at that path: it is not there, something on the way is no directory, or no
/// directory can hold the name.
pub fn is_absent(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG)
    )
}

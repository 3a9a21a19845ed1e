//! A directory that no operation below it can leave.
//!
//! In: relative paths, from archives that may be hostile. Out: descriptors of directories that
//! the kernel resolved inside the root: an absolute symbolic link starts at the root, `..` stops
//! there, other file systems mounted below are not entered. Nothing here is atomic across calls:
//! the tree must have no other writer meanwhile.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::path::MemberPath;

/// How often an interrupted resolution is tried again. The kernel asks for it when something
/// was renamed anywhere on the system at that moment.
const MAX_RETRIES: usize = 128;

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

    /// Removes everything in it, on its own file system only. The directory itself stays.
    pub fn clear(&self) -> io::Result<()> {
        let names = crate::remove::names(self.as_fd())?;
        names
            .iter()
            .try_for_each(|name| crate::remove::tree(self.as_fd(), name.to_bytes()).map(|_| ()))
    }

    /// Writes everything of its file system to the disk.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.directory)?)
    }

    /// Opens the directory at `path`; the empty path is the root. Links are followed inside the
    /// root.
    pub(crate) fn directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.open_below(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// The same, only to be used as the start of other paths. Needs no permission to read it.
    fn handle(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.open_below(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn open_below(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..MAX_RETRIES {
            match fs::openat2(&self.directory, path, flags, Mode::empty(), inside) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Finds the directories that members live in, remembering the last one: archives list a
/// directory's members together.
#[derive(Debug)]
pub(crate) struct Parents<'a> {
    root: &'a Root,
    last: Option<(MemberPath, Rc<OwnedFd>)>,
}

impl<'a> Parents<'a> {
    pub(crate) fn new(root: &'a Root) -> Self {
        Self { root, last: None }
    }

    /// To be called when a link or a directory is replaced or removed: any path may lead
    /// elsewhere then. New names change no path that led somewhere before.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// The directory at `path`, if there is one.
    pub(crate) fn find(&mut self, path: &MemberPath) -> io::Result<Option<Rc<OwnedFd>>> {
        if let Some((last, directory)) = &self.last
            && last == path
        {
            return Ok(Some(Rc::clone(directory)));
        }
        match self.root.handle(path.as_bytes()) {
            Ok(directory) => {
                let directory = Rc::new(directory);
                self.last = Some((path.clone(), Rc::clone(&directory)));
                Ok(Some(directory))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The directory at `path`, made with mode 0755 if it is not there, parents included:
    /// archives without entries for their directories are legal.
    pub(crate) fn find_or_make(&mut self, path: &MemberPath) -> io::Result<Rc<OwnedFd>> {
        if let Some(directory) = self.find(path)? {
            return Ok(directory);
        }
        let mut missing = vec![path.clone()];
        let mut directory = None;
        while directory.is_none() {
            let (parent, _) = missing
                .last()
                .and_then(MemberPath::split_last)
                .ok_or(Errno::NOENT)?;
            directory = self.find(&parent)?;
            if directory.is_none() {
                missing.push(parent);
            }
        }
        for path in missing.iter().rev() {
            let (Some(parent), Some((_, name))) = (directory, path.split_last()) else {
                return Err(Errno::NOENT.into());
            };
            // A dangling link or a file in the way makes this fail, as it should.
            fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
            // The mode again, because the caller's umask took bits away.
            fs::chmodat(
                &parent,
                name,
                Mode::from_raw_mode(0o755),
                fs::AtFlags::empty(),
            )?;
            directory = self.find(path)?;
        }
        directory.ok_or_else(|| Errno::NOENT.into())
    }
}

/// Nothing can be at that path: it is not there, something on the way is no directory, or no
/// directory can hold the name.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG)
    )
}

//! The directories that members live in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use system_image_tree::root::is_absent;
use system_image_tree::{Root, STAGING_NAME, is_own};

use crate::archive::RESERVED;
use crate::path::MemberPath;

/// Finds the directories that members live in, remembering the last one: archives list a
/// directory's members together.
///
/// A path may lead through links. None of them leads to where an upgrader prepares things at the top of
/// the root: paths that name it were refused before.
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
                self.keep_out(&directory)?;
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
            self.keep_off(&parent, name)?;
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

    /// Refuses the staging directory, and all that is below it.
    pub(crate) fn keep_out(&self, directory: &OwnedFd) -> io::Result<()> {
        let staging = match fs::statat(self.root, STAGING_NAME, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => (stat.st_dev, stat.st_ino),
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let top = identity(self.root)?;
        let mut at = identity(directory)?;
        let mut above = None;
        while at != top {
            if at == staging {
                return Err(io::Error::other(RESERVED));
            }
            let here = above.as_ref().unwrap_or(directory);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let next = fs::openat(here, c"..", flags, Mode::empty())?;
            at = identity(&next)?;
            above = Some(next);
        }
        Ok(())
    }

    /// Refuses an upgrader's own names, where a link has led to the top.
    pub(crate) fn keep_off(&self, directory: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if is_own(name) && identity(directory)? == identity(self.root)? {
            return Err(io::Error::other(RESERVED));
        }
        Ok(())
    }
}

/// Device and inode of a file.
pub(crate) type Identity = (u64, u64);

/// Which file this is.
pub(crate) fn identity(file: impl AsFd) -> rustix::io::Result<Identity> {
    let stat = fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

//! The directories that members live in.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{self, Mode};
use rustix::io::Errno;
use system_image_tree::Root;
use system_image_tree::root::is_absent;

use crate::path::MemberPath;

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

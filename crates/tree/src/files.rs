//! Small files below a root whose directories may belong to somebody else: no link on the way leads
//! out of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::PART_NAME;
use crate::root::{Root, is_absent};

/// Who a new file belongs to, and who may do what with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Owner and group; `None` leaves them to be those of this process.
    pub owner: Option<(u32, u32)>,
}

impl Root {
    /// Opens a regular file for reading; `None` if there is none.
    pub fn open_file(&self, path: &[u8]) -> io::Result<Option<File>> {
        let (parent, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        let opened = self.handle(parent).and_then(|parent| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            Ok(fs::openat(parent, name, flags, Mode::empty())?)
        });
        let file = match opened {
            Ok(file) => File::from(file),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(file.metadata()?.is_file().then_some(file))
    }

    /// The content of a regular file of at most `longest` bytes; `None` if there is none.
    pub fn read_file(&self, path: &str, longest: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(path.as_bytes())? else {
            return Ok(None);
        };
        let mut content = Vec::new();
        file.take(longest + 1).read_to_end(&mut content)?;
        if content.len() as u64 > longest {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(content))
    }

    /// Writes a small file in place of what is there, on the disk. Directories that are missing are
    /// made for its owner, with mode `directories`.
    pub fn write_file(
        &self,
        path: &str,
        content: &[u8],
        access: Access,
        directories: u32,
    ) -> io::Result<()> {
        let (parent, name) = split(path);
        let parent = self.make_directories(parent, directories, access.owner)?;
        match fs::unlinkat(&parent, PART_NAME, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(
            &parent,
            PART_NAME,
            flags,
            Mode::RUSR | Mode::WUSR,
        )?);
        file.write_all(content)?;
        if let Some((uid, gid)) = access.owner {
            fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        fs::fchmod(&file, Mode::from_raw_mode(access.mode))?;
        file.sync_all()?;
        fs::renameat(&parent, PART_NAME, &parent, name)?;
        Ok(fs::fsync(&parent)?)
    }

    /// Removes a file; it is fine if it is not there.
    pub fn remove_file(&self, path: &str) -> io::Result<()> {
        let (parent, name) = split(path);
        let removed = self.directory(parent.as_bytes()).and_then(|parent| {
            fs::unlinkat(&parent, name, AtFlags::empty())?;
            Ok(fs::fsync(&parent)?)
        });
        match removed {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn make_directories(
        &self,
        path: &str,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> io::Result<OwnedFd> {
        let directory_at = |at: &str| match self.directory(at.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (parent, name) = split(at);
                let parent = self.handle(parent.as_bytes())?;
                fs::mkdirat(&parent, name, Mode::RWXU)?;
                let directory = self.directory(at.as_bytes())?;
                if let Some((uid, gid)) = owner {
                    fs::fchown(
                        &directory,
                        Some(Uid::from_raw(uid)),
                        Some(Gid::from_raw(gid)),
                    )?;
                }
                fs::fchmod(&directory, Mode::from_raw_mode(mode))?;
                Ok(directory)
            }
            other => other,
        };
        let mut directory = directory_at("")?;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            directory = directory_at(&path[..end])?;
        }
        Ok(directory)
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

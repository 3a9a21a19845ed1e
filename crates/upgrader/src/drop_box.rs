//! The drop box: the directory where the client leaves files, and anybody may leave others.
//!
//! Files are opened by plain name, without following links, and only regular ones. What was
//! opened and verified is what is applied: nothing is opened twice.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use system_image_formats::name::FileName;

/// The open directory.
#[derive(Debug)]
pub struct DropBox {
    directory: OwnedFd,
}

/// Why the drop box or a file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DropBoxError {
    /// The directory cannot be opened.
    #[error("cannot open the drop box `{path}`")]
    Open {
        /// The directory.
        path: Utf8PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another upgrader works on it.
    #[error("another upgrader is working on the drop box `{path}`")]
    Busy {
        /// The directory.
        path: Utf8PathBuf,
    },
    /// A file that a command names cannot be read.
    #[error("cannot read `{name}` in the drop box")]
    Read {
        /// The file.
        name: FileName,
        /// Why not.
        source: io::Error,
    },
    /// A link, directory or device where a file should be.
    #[error("`{name}` in the drop box is not a regular file")]
    NotAFile {
        /// The name.
        name: FileName,
    },
    /// More bytes than any file of its kind has.
    #[error("`{name}` in the drop box is longer than any file of its kind")]
    TooLong {
        /// The file.
        name: FileName,
    },
    /// A file cannot be removed.
    #[error("cannot remove `{name}` from the drop box")]
    Remove {
        /// The file.
        name: FileName,
        /// Why not.
        source: io::Error,
    },
}

impl DropBox {
    /// Opens the directory and keeps every other upgrader out until this one ends, even by a
    /// signal.
    pub fn open(path: &Utf8Path) -> Result<Self, DropBoxError> {
        let path = path.to_owned();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = fs::open(path.as_std_path(), flags, Mode::empty()).and_then(|directory| {
            fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).map(|()| directory)
        });
        match opened {
            Ok(directory) => Ok(Self { directory }),
            Err(Errno::WOULDBLOCK) => Err(DropBoxError::Busy { path }),
            Err(error) => Err(DropBoxError::Open {
                path,
                source: error.into(),
            }),
        }
    }

    /// Opens a file.
    pub fn file(&self, name: &FileName) -> Result<File, DropBoxError> {
        let read = |error: Errno| DropBoxError::Read {
            name: name.clone(),
            source: error.into(),
        };
        // Opening a pipe that somebody left there would wait for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match fs::openat(&self.directory, name.as_str(), flags, Mode::empty()) {
            Err(Errno::LOOP | Errno::NXIO) => {
                return Err(DropBoxError::NotAFile { name: name.clone() });
            }
            other => other.map_err(read)?,
        };
        let stat = fs::fstat(&file).map_err(read)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(DropBoxError::NotAFile { name: name.clone() });
        }
        Ok(file.into())
    }

    /// The content of a small file.
    pub fn read(&self, name: &FileName, longest: u64) -> Result<Vec<u8>, DropBoxError> {
        let mut content = Vec::new();
        let mut file = self.file(name)?.take(longest + 1);
        file.read_to_end(&mut content)
            .map_err(|source| DropBoxError::Read {
                name: name.clone(),
                source,
            })?;
        if content.len() as u64 > longest {
            return Err(DropBoxError::TooLong { name: name.clone() });
        }
        Ok(content)
    }

    /// The same; `None` if there is no such file.
    pub fn read_if_there(
        &self,
        name: &FileName,
        longest: u64,
    ) -> Result<Option<Vec<u8>>, DropBoxError> {
        match self.read(name, longest) {
            Err(DropBoxError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Removes a file; it is fine if it is not there.
    pub fn remove(&self, name: &FileName) -> Result<(), DropBoxError> {
        match fs::unlinkat(&self.directory, name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(DropBoxError::Remove {
                name: name.clone(),
                source: error.into(),
            }),
        }
    }
}

//! A system in a directory: for trials, and where something else mounts it.

use std::io;

use camino::Utf8PathBuf;
use rustix::fs::{FsWord, fstatfs};
use system_image_delta::Root;

use super::{Storage, SystemError, failed};

/// File systems that need a byte for each byte, by their magic numbers (`statfs(2)`): ext2 to
/// ext4, XFS, tmpfs. Others compress or share blocks, and nobody knows what fits.
const PLAIN: [FsWord; 3] = [0xef53, 0x5846_5342, 0x0102_1994];

/// The directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: Utf8PathBuf,
}

impl Directory {
    pub(super) fn new(path: Utf8PathBuf) -> Self {
        Self { path }
    }

    fn open(&self) -> Result<Root, SystemError> {
        Root::open(self.path.as_std_path()).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::NotFound => SystemError::Kind {
                path: self.path.clone(),
                wanted: "directory",
            },
            _ => failed("open", &self.path, error),
        })
    }
}

impl Storage for Directory {
    fn check(&self) -> Result<(), SystemError> {
        self.open().map(|_| ())
    }

    fn capacity(&self) -> Result<Option<u64>, SystemError> {
        let found = fstatfs(self.open()?);
        let found =
            found.map_err(|error| failed("ask for the size of", &self.path, error.into()))?;
        let block = u64::try_from(found.f_bsize).unwrap_or(0);
        let bytes = found.f_blocks.saturating_mul(block);
        // A tmpfs without a limit says 0.
        Ok((PLAIN.contains(&found.f_type) && bytes > 0).then_some(bytes))
    }

    fn format(&self) -> Result<(), SystemError> {
        self.open()?
            .clear()
            .map_err(|error| failed("empty", &self.path, error))
    }

    fn mount(&self) -> Result<Root, SystemError> {
        self.open()
    }

    fn look(&self) -> Result<Root, SystemError> {
        self.open()
    }

    fn unmount(&self, root: Root) -> Result<(), SystemError> {
        root.sync()
            .map_err(|error| failed("sync", &self.path, error))
    }
}

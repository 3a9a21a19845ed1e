//! A system in a directory: for trials, and where something else mounts it.

use std::io;

use camino::Utf8PathBuf;
use system_image_delta::Root;

use super::{Deployment, SystemError};

/// The directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: Utf8PathBuf,
}

impl Directory {
    pub(super) fn new(path: Utf8PathBuf) -> Self {
        Self { path }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> SystemError {
        SystemError::Io {
            action,
            path: self.path.clone(),
            source,
        }
    }

    fn open(&self) -> Result<Root, SystemError> {
        Root::open(self.path.as_std_path()).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory | io::ErrorKind::NotFound => SystemError::Kind {
                path: self.path.clone(),
                wanted: "directory",
            },
            _ => self.failed("open", error),
        })
    }
}

impl Deployment for Directory {
    fn check(&self) -> Result<(), SystemError> {
        self.open().map(|_| ())
    }

    fn format(&self) -> Result<(), SystemError> {
        self.open()?
            .clear()
            .map_err(|error| self.failed("empty", error))
    }

    fn mount(&self) -> Result<Root, SystemError> {
        self.open()
    }

    fn unmount(&self, root: Root) -> Result<(), SystemError> {
        root.sync().map_err(|error| self.failed("sync", error))
    }
}

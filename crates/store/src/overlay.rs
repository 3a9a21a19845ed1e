//! A tree as it would become: changes are kept aside, and the tree below stays as it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Seek, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::name::TreePath;

use crate::{ReadSeek, Store, StoreError, Writer};

/// A store that reads from another one and writes into nameless scratch files.
pub struct Overlay {
    below: Arc<dyn Store>,
    scratch: Utf8PathBuf,
    above: Arc<Mutex<Above>>,
}

/// What was written, or removed, by relative path.
type Above = BTreeMap<String, Option<File>>;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It would be written, with so many bytes.
    Written {
        /// Its size in bytes.
        size: u64,
    },
    /// It would be removed.
    Removed,
}

impl Overlay {
    /// Over `below`, with room for scratch files in the directory `scratch`.
    pub fn new(below: Arc<dyn Store>, scratch: impl Into<Utf8PathBuf>) -> Self {
        Self {
            below,
            scratch: scratch.into(),
            above: Arc::default(),
        }
    }

    /// What would change, by relative path.
    pub fn changes(&self) -> Vec<(String, Change)> {
        let change = |file: &Option<File>| match file {
            None => Change::Removed,
            Some(file) => Change::Written {
                size: file.metadata().map_or(0, |metadata| metadata.len()),
            },
        };
        let above = self.above();
        let changes = above
            .iter()
            .map(|(path, file)| (path.clone(), change(file)));
        changes.collect()
    }

    fn above(&self) -> MutexGuard<'_, Above> {
        self.above.lock().expect("no holder of the lock panics")
    }

    fn put(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = scratch(&self.scratch)?;
        file.write_all(bytes)?;
        self.above().insert(path.to_owned(), Some(file));
        Ok(())
    }
}

fn scratch(directory: &Utf8Path) -> io::Result<File> {
    tempfile::tempfile_in(directory)
}

/// The file from its beginning, with a position of its own.
fn reopened(file: &File) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

impl Store for Overlay {
    fn open(&self, path: &TreePath) -> Result<Option<Box<dyn ReadSeek>>, StoreError> {
        match self.above().get(path.relative()) {
            None => {}
            Some(None) => return Ok(None),
            Some(Some(file)) => {
                let file =
                    reopened(file).map_err(|source| StoreError::new("read", path, source))?;
                return Ok(Some(Box::new(BufReader::new(file))));
            }
        }
        self.below.open(path)
    }

    fn size(&self, path: &TreePath) -> Result<Option<u64>, StoreError> {
        match self.above().get(path.relative()) {
            None => {}
            Some(None) => return Ok(None),
            Some(Some(file)) => {
                let metadata = file.metadata();
                let metadata = metadata.map_err(|source| StoreError::new("read", path, source))?;
                return Ok(Some(metadata.len()));
            }
        }
        self.below.size(path)
    }

    fn create(&self, path: &TreePath) -> Result<Box<dyn Writer>, StoreError> {
        let file = scratch(&self.scratch);
        let file = file.map_err(|source| StoreError::new("write", path, source))?;
        Ok(Box::new(Staging {
            above: Arc::clone(&self.above),
            path: path.clone(),
            file,
        }))
    }

    fn replace(&self, path: &TreePath, content: &[u8], signature: &[u8]) -> Result<(), StoreError> {
        self.put(path.relative(), content)
            .and_then(|()| self.put(&format!("{}.asc", path.relative()), signature))
            .map_err(|source| StoreError::new("replace", path, source))
    }

    fn remove(&self, path: &TreePath) -> Result<(), StoreError> {
        if self.size(path)?.is_some() {
            self.above().insert(path.relative().to_owned(), None);
        }
        Ok(())
    }

    fn remove_document(&self, path: &TreePath) -> Result<(), StoreError> {
        let mut above = self.above();
        above.insert(path.relative().to_owned(), None);
        above.insert(format!("{}.asc", path.relative()), None);
        Ok(())
    }

    fn copy(&self, from: &TreePath, to: &TreePath) -> Result<(), StoreError> {
        let failed = |source| StoreError::new("copy to", to, source);
        let mut data = self
            .open(from)?
            .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let mut file = scratch(&self.scratch).map_err(failed)?;
        io::copy(&mut data, &mut file).map_err(failed)?;
        self.above().insert(to.relative().to_owned(), Some(file));
        Ok(())
    }

    fn each(&self, visit: &mut dyn FnMut(&str)) -> Result<(), StoreError> {
        let above = self.above();
        self.below.each(&mut |path| {
            if !above.contains_key(path) {
                visit(path);
            }
        })?;
        let written = above.iter().filter(|(_, file)| file.is_some());
        written.for_each(|(path, _)| visit(path));
        Ok(())
    }
}

/// A file being written.
struct Staging {
    above: Arc<Mutex<Above>>,
    path: TreePath,
    file: File,
}

impl Write for Staging {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Writer for Staging {
    fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        let rewound = self.file.rewind();
        rewound.map_err(|source| StoreError::new("write", &self.path, source))?;
        let mut above = self.above.lock().expect("no holder of the lock panics");
        above.insert(self.path.relative().to_owned(), Some(self.file));
        Ok(())
    }
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay")
            .field("changes", &self.changes())
            .finish_non_exhaustive()
    }
}

//! A tree in memory: for tests, and for what is thrown away again.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use system_image_formats::name::TreePath;

use crate::{ReadSeek, Store, StoreError, Writer};

/// A tree in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: Arc<Mutex<Files>>,
}

type Files = BTreeMap<String, Arc<[u8]>>;

impl Memory {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("no holder of the lock panics")
    }

    /// The relative paths of all files.
    pub fn paths(&self) -> Vec<String> {
        self.files().keys().cloned().collect()
    }
}

impl Store for Memory {
    fn open(&self, path: &TreePath) -> Result<Option<Box<dyn ReadSeek>>, StoreError> {
        let file = self.files().get(path.relative()).cloned();
        Ok(file.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn ReadSeek>))
    }

    fn size(&self, path: &TreePath) -> Result<Option<u64>, StoreError> {
        Ok(self
            .files()
            .get(path.relative())
            .map(|bytes| bytes.len() as u64))
    }

    fn create(&self, path: &TreePath) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(InMemory {
            store: self.clone(),
            path: path.clone(),
            bytes: Vec::new(),
        }))
    }

    fn replace(&self, path: &TreePath, content: &[u8], signature: &[u8]) -> Result<(), StoreError> {
        let mut files = self.files();
        files.insert(path.relative().to_owned(), content.into());
        files.insert(format!("{}.asc", path.relative()), signature.into());
        Ok(())
    }

    fn remove(&self, path: &TreePath) -> Result<(), StoreError> {
        self.files().remove(path.relative());
        Ok(())
    }

    fn remove_document(&self, path: &TreePath) -> Result<(), StoreError> {
        let mut files = self.files();
        files.remove(path.relative());
        files.remove(&format!("{}.asc", path.relative()));
        Ok(())
    }

    fn copy(&self, from: &TreePath, to: &TreePath) -> Result<(), StoreError> {
        let mut files = self.files();
        let missing = || StoreError::new("copy", from, io::ErrorKind::NotFound.into());
        let bytes = files.get(from.relative()).cloned().ok_or_else(missing)?;
        files.insert(to.relative().to_owned(), bytes);
        Ok(())
    }

    fn each(&self, visit: &mut dyn FnMut(&str)) -> Result<(), StoreError> {
        self.files().keys().for_each(|path| visit(path));
        Ok(())
    }
}

struct InMemory {
    store: Memory,
    path: TreePath,
    bytes: Vec<u8>,
}

impl Write for InMemory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Writer for InMemory {
    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.store
            .files()
            .insert(self.path.relative().to_owned(), self.bytes.into());
        Ok(())
    }
}

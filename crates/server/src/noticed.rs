//! A store that notices whether readers see something new: a document was replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use system_image_formats::name::TreePath;
use system_image_store::{ReadSeek, Store, StoreError, Writer};

/// Does what the store behind it does, and notices.
pub struct Noticed {
    store: Arc<dyn Store>,
    replaced: Arc<AtomicBool>,
}

impl Noticed {
    /// In front of `store`; `replaced` becomes true with the first document.
    pub fn new(store: Arc<dyn Store>, replaced: Arc<AtomicBool>) -> Self {
        Self { store, replaced }
    }
}

impl std::fmt::Debug for Noticed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Noticed")
            .field("replaced", &self.replaced)
            .finish_non_exhaustive()
    }
}

impl Store for Noticed {
    fn open(&self, path: &TreePath) -> Result<Option<Box<dyn ReadSeek>>, StoreError> {
        self.store.open(path)
    }

    fn size(&self, path: &TreePath) -> Result<Option<u64>, StoreError> {
        self.store.size(path)
    }

    fn create(&self, path: &TreePath) -> Result<Box<dyn Writer>, StoreError> {
        self.store.create(path)
    }

    fn replace(&self, path: &TreePath, content: &[u8], signature: &[u8]) -> Result<(), StoreError> {
        self.store.replace(path, content, signature)?;
        self.replaced.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self, path: &TreePath) -> Result<(), StoreError> {
        self.store.remove(path)
    }

    fn remove_document(&self, path: &TreePath) -> Result<(), StoreError> {
        self.store.remove_document(path)
    }

    fn copy(&self, from: &TreePath, to: &TreePath) -> Result<(), StoreError> {
        self.store.copy(from, to)
    }

    fn each(&self, visit: &mut dyn FnMut(&str)) -> Result<(), StoreError> {
        self.store.each(visit)
    }
}

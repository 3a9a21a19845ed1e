//! Where a published tree lives: a directory, memory, later an object store.
//!
//! A store holds immutable files, written once under their final name, and a few documents
//! (`channels.json` and each `index.json`, always with their signatures) that are replaced. What
//! is replaced together becomes visible together; what [`Writer::commit`] returned from is
//! durable. So publishing writes the files first and the index last (design, invariant 2).

mod directory;
mod memory;
mod overlay;

use std::io::{self, Read, Seek, Write};

use system_image_formats::name::TreePath;

pub use self::directory::Directory;
pub use self::memory::Memory;
pub use self::overlay::{Change, Overlay};

/// Why a store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{path}` in the published tree")]
pub struct StoreError {
    action: &'static str,
    path: String,
    source: io::Error,
}

impl StoreError {
    fn new(action: &'static str, path: &(impl ToString + ?Sized), source: io::Error) -> Self {
        Self {
            action,
            path: path.to_string(),
            source,
        }
    }

    /// One line for the person at the keyboard.
    pub fn hint(&self) -> Option<&'static str> {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("free some space and run the same command again; nothing was made visible")
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Some("run this as the user that owns the published tree")
            }
            _ => None,
        }
    }
}

/// A file that can be read from any position.
pub trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// Takes the bytes of one new file.
///
/// Dropped before [`Writer::commit`], it leaves nothing that a reader sees.
pub trait Writer: Write + Send {
    /// Makes the file durable and visible. A file that is there already is replaced.
    fn commit(self: Box<Self>) -> Result<(), StoreError>;
}

/// A place that holds a published tree.
pub trait Store: Send + Sync {
    /// Opens a file; `None` when there is none of that name.
    fn open(&self, path: &TreePath) -> Result<Option<Box<dyn ReadSeek>>, StoreError>;

    /// The file's size in bytes; `None` when there is none of that name.
    fn size(&self, path: &TreePath) -> Result<Option<u64>, StoreError>;

    /// Begins a new file.
    fn create(&self, path: &TreePath) -> Result<Box<dyn Writer>, StoreError>;

    /// Replaces a document and its signature in one step: a crash leaves both old or both new.
    fn replace(&self, path: &TreePath, content: &[u8], signature: &[u8]) -> Result<(), StoreError>;

    /// Takes a file away, and the directories that this leaves empty; it may be missing.
    fn remove(&self, path: &TreePath) -> Result<(), StoreError>;

    /// Takes a document away that was [replaced](Self::replace), with its signature.
    fn remove_document(&self, path: &TreePath) -> Result<(), StoreError>;

    /// Gives a file a second name, under which nothing may be yet.
    fn copy(&self, from: &TreePath, to: &TreePath) -> Result<(), StoreError>;

    /// Visits the paths of everything that the tree holds, relative to its root, in no certain
    /// order. Names that are not UTF-8 come with replacement characters, and so are no
    /// [`TreePath`]. Nothing is asked of the files: a large tree has hundreds of thousands.
    fn each(&self, visit: &mut dyn FnMut(&str)) -> Result<(), StoreError>;

    /// Reads a small file whole; `None` when there is none.
    ///
    /// # Errors
    /// Also when it has more than `max` bytes.
    fn read(&self, path: &TreePath, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.open(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| StoreError::new("read", path, source))?;
        at_most(max, path, bytes).map(Some)
    }

    /// Writes a small file whole.
    fn write(&self, path: &TreePath, content: &[u8]) -> Result<(), StoreError> {
        let mut writer = self.create(path)?;
        writer
            .write_all(content)
            .map_err(|source| StoreError::new("write", path, source))?;
        writer.commit()
    }
}

/// What was read of a file, unless it is too long.
fn at_most(max: u64, path: &TreePath, bytes: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    if bytes.len() as u64 > max {
        let text = format!("it has more than {max} bytes");
        let source = io::Error::new(io::ErrorKind::FileTooLarge, text);
        return Err(StoreError::new("read", path, source));
    }
    Ok(bytes)
}

#[cfg(test)]
mod conformance {
    //! What every store must do, whatever it stands on.

    use std::sync::Arc;

    use super::*;

    fn path(text: &str) -> TreePath {
        text.parse().unwrap()
    }

    fn check(store: &dyn Store) {
        let (file, index) = (path("/pool/a-1.tar.xz"), path("/24.04/stable/d/index.json"));
        assert!(store.open(&file).unwrap().is_none());
        assert_eq!(store.size(&file).unwrap(), None);
        assert_eq!(store.read(&file, 10).unwrap(), None);

        // A writer that is not committed leaves nothing.
        let mut writer = store.create(&file).unwrap();
        writer.write_all(b"half").unwrap();
        drop(writer);
        assert!(store.open(&file).unwrap().is_none());

        store.write(&file, b"0123456789").unwrap();
        assert_eq!(store.size(&file).unwrap(), Some(10));
        assert_eq!(store.read(&file, 10).unwrap().unwrap(), b"0123456789");
        assert!(store.read(&file, 9).is_err(), "a limit holds");
        let mut opened = store.open(&file).unwrap().unwrap();
        opened.seek(io::SeekFrom::Start(4)).unwrap();
        let mut rest = String::new();
        opened.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "456789");

        // A reader that has a file open keeps what it opened.
        let mut before = store.open(&file).unwrap().unwrap();
        store.write(&file, b"new").unwrap();
        let mut old = String::new();
        before.read_to_string(&mut old).unwrap();
        assert_eq!(old, "0123456789");

        for round in 0..4 {
            let content = format!("index {round}");
            let signature = format!("signature {round}");
            store
                .replace(&index, content.as_bytes(), signature.as_bytes())
                .unwrap();
            assert_eq!(
                store.read(&index, 100).unwrap().unwrap(),
                content.as_bytes()
            );
            let found = store
                .read(&path("/24.04/stable/d/index.json.asc"), 100)
                .unwrap();
            assert_eq!(found.unwrap(), signature.as_bytes());
        }
        // What an older server wrote as plain files is taken over.
        let taken = path("/channels.json");
        store.write(&taken, b"old").unwrap();
        store
            .write(&path("/channels.json.asc"), b"old signature")
            .unwrap();
        store.replace(&taken, b"new", b"new signature").unwrap();
        assert_eq!(store.read(&taken, 100).unwrap().unwrap(), b"new");
        let found = store.read(&path("/channels.json.asc"), 100).unwrap();
        assert_eq!(found.unwrap(), b"new signature");

        let copied = path("/pool/b/a-1.tar.xz");
        store.copy(&file, &copied).unwrap();
        assert_eq!(store.read(&copied, 10).unwrap().unwrap(), b"new");
        store.write(&file, b"newer").unwrap();
        assert_eq!(store.read(&copied, 10).unwrap().unwrap(), b"new");
        assert!(store.copy(&path("/pool/none"), &path("/pool/c")).is_err());

        let mut names = Vec::new();
        store
            .each(&mut |found| names.push(found.to_owned()))
            .unwrap();
        names.sort();
        let want = [
            "24.04/stable/d/index.json",
            "24.04/stable/d/index.json.asc",
            "channels.json",
            "channels.json.asc",
            "pool/a-1.tar.xz",
            "pool/b/a-1.tar.xz",
        ];
        assert_eq!(names, want);
        assert_eq!(store.size(&index).unwrap(), Some(7));

        for _ in 0..2 {
            store.remove_document(&index).unwrap();
            assert!(store.open(&index).unwrap().is_none());
            let signature = path("/24.04/stable/d/index.json.asc");
            assert!(store.open(&signature).unwrap().is_none());
        }
        store.remove(&file).unwrap();
        store.remove(&file).unwrap();
        assert!(store.open(&file).unwrap().is_none());
        // A directory is no file.
        assert!(
            store.open(&path("/pool")).is_err() || store.open(&path("/pool")).unwrap().is_none()
        );
    }

    #[test]
    fn memory_does_what_a_store_must() {
        check(&Memory::default());
    }

    #[test]
    fn a_directory_does_what_a_store_must() {
        let dir = tempfile::tempdir().unwrap();
        let root = camino::Utf8Path::from_path(dir.path()).unwrap();
        check(&Directory::open(root.join("www")).unwrap());
        // What was emptied is gone.
        let left: Vec<_> = std::fs::read_dir(root.join("www"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("24"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn an_overlay_does_what_a_store_must() {
        let dir = tempfile::tempdir().unwrap();
        let root = camino::Utf8Path::from_path(dir.path()).unwrap();
        check(&Overlay::new(Arc::new(Memory::default()), root));
        let base = Memory::default();
        base.write(&path("/x/y"), b"kept").unwrap();
        let over = Overlay::new(Arc::new(base.clone()), root);
        over.remove(&path("/x/y")).unwrap();
        over.write(&path("/x/z"), b"new").unwrap();
        assert!(over.open(&path("/x/y")).unwrap().is_none());
        assert_eq!(base.paths(), ["x/y"]);
        assert_eq!(
            over.changes(),
            [
                ("x/y".to_owned(), Change::Removed),
                ("x/z".to_owned(), Change::Written { size: 3 }),
            ]
        );
        assert!(std::fs::read_dir(root).unwrap().next().is_none());
    }
}

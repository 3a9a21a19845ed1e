//! A tree in a local directory, as any web server serves it.
//!
//! A file is written as `<name>.new`, synced, renamed, and its directory synced. Two names cannot
//! be renamed at once, so a document and its signature are links into a directory of their own
//! whose `now` link is renamed instead:
//!
//! ```text
//! index.json      -> .index.json/now/index.json
//! index.json.asc  -> .index.json/now/index.json.asc
//! .index.json/now -> 2               the one step
//! .index.json/1/…  .index.json/2/…   the one before, for readers in between, and this one
//! ```

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{PermissionsExt, symlink};

use camino::{Utf8Path, Utf8PathBuf};
use system_image_durable::{
    Staged, present, remove, rename, replace, staged_name, sync_directory, sync_parent,
};
use system_image_formats::name::TreePath;

use crate::{ReadSeek, Store, StoreError, Writer, at_most};

/// Permission bits of published files: a web server of another user reads them.
const FILE_MODE: u32 = 0o644;

/// A tree in a local directory.
///
/// Writers must hold a lock of their own: two at once would write the same `.new` file.
#[derive(Clone, Debug)]
pub struct Directory {
    root: Utf8PathBuf,
}

impl Directory {
    /// The tree at `root`, which is made when missing.
    pub fn open(root: impl Into<Utf8PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|source| StoreError::new("make", &root, source))?;
        Ok(Self { root })
    }

    /// The tree's directory.
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// Moves a file into the tree that is whole, durable and on the same file system. What was at
    /// its place is replaced.
    pub fn take(&self, from: &Utf8Path, path: &TreePath) -> Result<(), StoreError> {
        let place = self.at(path);
        make_parents(&self.root, &place)
            .and_then(|()| fs::set_permissions(from, Permissions::from_mode(FILE_MODE)))
            .and_then(|()| rename(from.as_std_path(), place.as_std_path()))
            .map_err(|source| StoreError::new("write", path, source))
    }

    fn at(&self, path: &TreePath) -> Utf8PathBuf {
        self.root.join(path.relative())
    }
}

impl Store for Directory {
    fn open(&self, path: &TreePath) -> Result<Option<Box<dyn ReadSeek>>, StoreError> {
        let opened = File::open(self.at(path)).and_then(|file| {
            if file.metadata()?.is_file() {
                Ok(file)
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        });
        match present(opened) {
            Ok(file) => Ok(file.map(|file| Box::new(file) as Box<dyn ReadSeek>)),
            Err(source) => Err(StoreError::new("read", path, source)),
        }
    }

    fn size(&self, path: &TreePath) -> Result<Option<u64>, StoreError> {
        match present(fs::metadata(self.at(path))) {
            Ok(found) => Ok(found
                .filter(fs::Metadata::is_file)
                .map(|metadata| metadata.len())),
            Err(source) => Err(StoreError::new("read", path, source)),
        }
    }

    fn create(&self, path: &TreePath) -> Result<Box<dyn Writer>, StoreError> {
        let place = self.at(path);
        make_parents(&self.root, &place)
            .and_then(|()| Staged::create(place, FILE_MODE))
            .map(|staged| {
                Box::new(InDirectory {
                    staged,
                    path: path.clone(),
                }) as Box<dyn Writer>
            })
            .map_err(|source| StoreError::new("write", path, source))
    }

    fn replace(&self, path: &TreePath, content: &[u8], signature: &[u8]) -> Result<(), StoreError> {
        let place = self.at(path);
        (|| {
            make_parents(&self.root, &place)?;
            let pair = Pair::of(&place)?;
            pair.take_over_plain_files()?;
            pair.switch_to(content, signature)
        })()
        .map_err(|source| StoreError::new("replace", path, source))
    }

    fn remove(&self, path: &TreePath) -> Result<(), StoreError> {
        let place = self.at(path);
        remove(&place)
            .and_then(|()| prune(&self.root, &place))
            .map_err(|source| StoreError::new("remove", path, source))
    }

    fn remove_document(&self, path: &TreePath) -> Result<(), StoreError> {
        let place = self.at(path);
        (|| {
            let pair = Pair::at(&place)?;
            for name in pair.members() {
                remove(pair.directory.join(name))?;
            }
            present(sync_directory(&pair.directory))?;
            present(fs::remove_dir_all(&pair.versions))?;
            prune(&self.root, &place)
        })()
        .map_err(|source| StoreError::new("remove", path, source))
    }

    fn copy(&self, from: &TreePath, to: &TreePath) -> Result<(), StoreError> {
        let (from, place) = (self.at(from), self.at(to));
        (|| {
            make_parents(&self.root, &place)?;
            // Files are never changed in place, so two names may share one.
            fs::hard_link(fs::canonicalize(from)?, &place)?;
            sync_parent(&place)
        })()
        .map_err(|source| StoreError::new("copy to", to, source))
    }

    fn each(&self, visit: &mut dyn FnMut(&str)) -> Result<(), StoreError> {
        walk(&self.root, &mut String::new(), visit)
            .map_err(|source| StoreError::new("list", &self.root, source))
    }

    fn read(&self, path: &TreePath, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || {
            let file = File::open(self.at(path))?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            let len = usize::try_from(metadata.len().min(max)).unwrap_or(0);
            // One byte more tells the end, and a file that grew.
            let mut bytes = Vec::with_capacity(len + 1);
            file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = present(read()).map_err(|source| StoreError::new("read", path, source))?;
        bytes.map(|bytes| at_most(max, path, bytes)).transpose()
    }
}

/// A file being written.
struct InDirectory {
    staged: Staged,
    path: TreePath,
}

impl Write for InDirectory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.staged.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.staged.flush()
    }
}

impl Writer for InDirectory {
    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        let Self { staged, path } = *self;
        staged
            .commit()
            .map_err(|source| StoreError::new("write", &path, source))
    }
}

/// A document and its signature, which change together.
struct Pair {
    directory: Utf8PathBuf,
    name: String,
    /// `.<name>`, which holds the versions.
    versions: Utf8PathBuf,
}

impl Pair {
    /// The pair of a document, made when missing.
    fn of(place: &Utf8Path) -> io::Result<Self> {
        let pair = Self::at(place)?;
        fs::create_dir_all(&pair.versions)?;
        Ok(pair)
    }

    fn at(place: &Utf8Path) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (place.parent(), place.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        Ok(Self {
            directory: directory.to_owned(),
            name: name.to_owned(),
            versions: directory.join(format!(".{name}")),
        })
    }

    fn members(&self) -> [String; 2] {
        [self.name.clone(), format!("{}.asc", self.name)]
    }

    /// The version that `now` points to, 0 when there is none.
    fn current(&self) -> io::Result<u64> {
        let target = present(fs::read_link(self.versions.join("now")))?;
        Ok(target.and_then(|t| t.to_str()?.parse().ok()).unwrap_or(0))
    }

    /// Plain files of another server become the first version, so that the links that replace
    /// them lead to the same content until the one step is made.
    fn take_over_plain_files(&self) -> io::Result<()> {
        let plain = |name: &String| {
            let found = present(fs::symlink_metadata(self.directory.join(name)));
            found.map(|found| found.is_some_and(|metadata| metadata.is_file()))
        };
        let [document, signature] = self.members();
        if plain(&document)? && plain(&signature)? && self.current()? == 0 {
            let content = fs::read(self.directory.join(document))?;
            let signature = fs::read(self.directory.join(signature))?;
            self.write_version(1, &content, &signature)?;
            self.point_to(1)?;
            self.link_members()?;
        }
        Ok(())
    }

    fn switch_to(&self, content: &[u8], signature: &[u8]) -> io::Result<()> {
        let previous = self.current()?;
        self.write_version(previous + 1, content, signature)?;
        self.link_members()?;
        self.point_to(previous + 1)?;
        // The one before stays for a reader that has just followed `now`.
        for entry in fs::read_dir(&self.versions)? {
            let entry = entry?;
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u64>().ok());
            if number.is_some_and(|number| number < previous) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    fn write_version(&self, number: u64, content: &[u8], signature: &[u8]) -> io::Result<()> {
        let version = self.versions.join(number.to_string());
        // Left over by a crash before the switch.
        present(fs::remove_dir_all(&version))?;
        fs::create_dir(&version)?;
        for (name, bytes) in self.members().iter().zip([content, signature]) {
            replace(version.join(name), bytes, FILE_MODE)?;
        }
        sync_directory(&version)?;
        sync_directory(&self.versions)
    }

    fn link_members(&self) -> io::Result<()> {
        for name in self.members() {
            link(
                &self.directory,
                &name,
                &format!(".{}/now/{name}", self.name),
            )?;
        }
        sync_directory(&self.directory)
    }

    /// The one step.
    fn point_to(&self, number: u64) -> io::Result<()> {
        link(&self.versions, "now", &number.to_string())?;
        sync_directory(&self.versions)
    }
}

/// Makes `directory/name` a symbolic link to `target`, in one step if there is something else.
fn link(directory: &Utf8Path, name: &str, target: &str) -> io::Result<()> {
    let place = directory.join(name);
    if present(fs::read_link(&place))
        .is_ok_and(|found| found.is_some_and(|at| at.as_os_str() == target))
    {
        return Ok(());
    }
    let staged = staged_name(place.as_std_path())?;
    remove(&staged)?;
    symlink(target, &staged)?;
    rename(&staged, place.as_std_path())
}

/// Makes the directories above `place`, up to `root`, durable.
fn make_parents(root: &Utf8Path, place: &Utf8Path) -> io::Result<()> {
    let parents: Vec<_> = place
        .ancestors()
        .skip(1)
        .take_while(|parent| *parent != root)
        .collect();
    for parent in parents.into_iter().rev() {
        match fs::create_dir(parent) {
            Ok(()) => sync_parent(parent)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the directories above `place` that are empty, up to `root`.
fn prune(root: &Utf8Path, place: &Utf8Path) -> io::Result<()> {
    for parent in place.ancestors().skip(1).take_while(|at| *at != root) {
        match fs::remove_dir(parent) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                return sync_directory(parent);
            }
            Err(error) => return Err(error),
        }
    }
    sync_directory(root)
}

/// Visits the files below `directory`, whose path in the tree is `prefix`. The versions of a
/// document are no files of the tree; those of a document that is half removed stand for it.
fn walk(directory: &Utf8Path, prefix: &mut String, visit: &mut dyn FnMut(&str)) -> io::Result<()> {
    let len = prefix.len();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !entry.file_type()?.is_dir() {
            prefix.push_str(&name);
            visit(prefix);
            prefix.truncate(len);
            continue;
        }
        let place = directory.join(&*name);
        match name.strip_prefix('.') {
            Some(document) if has_versions(&place) => {
                if !directory.join(document).exists() {
                    prefix.push_str(document);
                    visit(prefix);
                }
            }
            _ => {
                prefix.push_str(&name);
                prefix.push('/');
                walk(&place, prefix, visit)?;
            }
        }
        prefix.truncate(len);
    }
    Ok(())
}

/// Whether a directory holds the versions of a document, also one that is half removed.
fn has_versions(directory: &Utf8Path) -> bool {
    directory.join("now").is_symlink() || matches!(directory.extension(), Some("json" | "xz"))
}

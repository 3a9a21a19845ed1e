//! System trees: described in a test, packed as an archive, compared after they were applied.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::{fmt, fs};

use system_image_delta::{Device, Header, Kind, Xattr};
use system_image_delta_build::Writer;

/// The time that members have unless a test sets another.
pub const TIME: i64 = 1_700_000_000;

/// A tree below `system/`, from which archives are packed.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    members: BTreeMap<Vec<u8>, (Header, Vec<u8>)>,
}

impl Tree {
    /// A tree with its root directory and nothing else.
    pub fn new() -> Self {
        Self::default().dir("")
    }

    /// Adds a directory, mode 0755.
    #[must_use]
    pub fn dir(self, path: impl AsRef<[u8]>) -> Self {
        self.member(path, Kind::Directory, 0o755, Vec::new())
    }

    /// Adds a regular file, mode 0644.
    #[must_use]
    pub fn file(self, path: impl AsRef<[u8]>, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        self.member(
            path,
            Kind::File {
                size: content.len() as u64,
            },
            0o644,
            content,
        )
    }

    /// Adds an image for a partition beside the system, which needs a name here, too.
    #[must_use]
    pub fn image(self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        let member = format!("{name}.img");
        let path = format!("partitions/{member}").into_bytes();
        self.file(&member, content)
            .with(&member, |header| header.path = path)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let target = target.as_ref().to_vec();
        self.member(path, Kind::Symlink { target }, 0o777, Vec::new())
    }

    /// Adds a hard link to the file `target` of this tree.
    #[must_use]
    pub fn hard_link(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let target = on_wire(target.as_ref());
        self.member(path, Kind::HardLink { target }, 0o644, Vec::new())
    }

    /// Adds a named pipe.
    #[must_use]
    pub fn fifo(self, path: impl AsRef<[u8]>) -> Self {
        self.member(path, Kind::Fifo, 0o644, Vec::new())
    }

    /// Adds a character device.
    #[must_use]
    pub fn device(self, path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        self.member(
            path,
            Kind::CharDevice(Device { major, minor }),
            0o600,
            Vec::new(),
        )
    }

    /// Adds or replaces a member.
    #[must_use]
    pub fn member(
        mut self,
        path: impl AsRef<[u8]>,
        kind: Kind,
        mode: u32,
        content: Vec<u8>,
    ) -> Self {
        let header = Header::of_root(on_wire(path.as_ref()), kind, mode, TIME);
        self.members
            .insert(path.as_ref().to_vec(), (header, content));
        self
    }

    /// Changes a member.
    ///
    /// # Panics
    /// If there is none at `path`.
    #[must_use]
    pub fn with(mut self, path: impl AsRef<[u8]>, change: impl FnOnce(&mut Header)) -> Self {
        change(&mut self.members.get_mut(path.as_ref()).unwrap().0);
        self
    }

    /// Gives a member an extended attribute.
    #[must_use]
    pub fn xattr(self, path: impl AsRef<[u8]>, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.with(path, |header| {
            header.xattrs.push(Xattr {
                name: name.into(),
                value: value.into(),
            });
            header.xattrs.sort();
        })
    }

    /// Removes a member and what is below it.
    #[must_use]
    pub fn without(mut self, path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref();
        let below = [path, b"/"].concat();
        self.members
            .retain(|name, _| name != path && !name.starts_with(&below));
        self
    }

    /// What is at `path`.
    pub fn kind(&self, path: &[u8]) -> Option<&Kind> {
        self.members.get(path).map(|(header, _)| &header.kind)
    }

    /// Every path, sorted by its bytes.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.members.keys().map(Vec::as_slice)
    }

    /// The canonical archive of the tree: directories before what is in them, files before
    /// hard links to them.
    ///
    /// # Panics
    /// If a file's size was changed to something else than its content has.
    pub fn tar(&self) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        let is_link = |header: &Header| matches!(header.kind, Kind::HardLink { .. });
        let (links, others): (Vec<_>, Vec<_>) = self
            .members
            .values()
            .partition(|(header, _)| is_link(header));
        for (header, content) in others.into_iter().chain(links) {
            writer.member(header, &mut &content[..]).unwrap();
        }
        writer.finish().unwrap().0
    }
}

fn on_wire(path: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        b"system".to_vec()
    } else {
        [b"system/", path].concat()
    }
}

/// What is at a path of a real tree, as far as an image determines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is, with its content, target or number.
    pub what: What,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time in seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// The first of its names in the tree.
    pub first_name: Bytes,
    /// Extended attributes.
    pub xattrs: BTreeMap<Bytes, Bytes>,
}

/// A kind of file and what makes it this one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum What {
    Directory,
    File(Bytes),
    Symlink(Bytes),
    Fifo,
    Device { block: bool, number: u64 },
    Other,
}

/// Bytes that are shown short, with what is printable in them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub Vec<u8>);

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.len().min(60);
        write!(f, "`{}`", self.0[..shown].escape_ascii())?;
        if shown < self.0.len() {
            write!(f, "… {} bytes", self.0.len())?;
        }
        Ok(())
    }
}

/// Reads a real tree, its root under the empty path. `lost+found` at the top is left out.
///
/// # Panics
/// If something cannot be read.
pub fn snapshot(root: &Path) -> Snapshot {
    let mut seen = BTreeMap::new();
    let mut first = HashMap::new();
    look(root, root, &mut first, &mut seen);
    seen
}

fn look(root: &Path, path: &Path, first: &mut HashMap<(u64, u64), Vec<u8>>, seen: &mut Snapshot) {
    let meta = fs::symlink_metadata(path).unwrap();
    let name = path
        .strip_prefix(root)
        .unwrap()
        .as_os_str()
        .as_bytes()
        .to_vec();
    let kind = meta.file_type();
    let what = if kind.is_dir() {
        What::Directory
    } else if kind.is_file() {
        What::File(fs::read(path).unwrap().into())
    } else if kind.is_symlink() {
        What::Symlink(
            fs::read_link(path)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec()
                .into(),
        )
    } else if kind.is_fifo() {
        What::Fifo
    } else if kind.is_char_device() || kind.is_block_device() {
        What::Device {
            block: kind.is_block_device(),
            number: meta.rdev(),
        }
    } else {
        What::Other
    };
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        for child in names {
            if !(name.is_empty() && child == OsStr::new("lost+found")) {
                look(root, &path.join(child), first, seen);
            }
        }
    }
    let first_name = first
        .entry((meta.dev(), meta.ino()))
        .or_insert_with(|| name.clone())
        .clone();
    let entry = Seen {
        what,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        first_name: first_name.into(),
        xattrs: xattrs(path),
    };
    seen.insert(name, entry);
}

fn xattrs(path: &Path) -> BTreeMap<Bytes, Bytes> {
    let mut names = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    names[..len]
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty() && *name != b"security.selinux")
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec().into(), value[..len].to_vec().into())
        })
        .collect()
}

/// What [`snapshot`] returns.
pub type Snapshot = BTreeMap<Vec<u8>, Seen>;

/// Panics with the first few differences between two trees.
///
/// # Panics
/// If there is one.
pub fn assert_same(got: &Path, want: &Path, context: &str) {
    assert_equal(&snapshot(got), &snapshot(want), context);
}

/// The same for trees that were read before.
///
/// # Panics
/// If there is a difference.
pub fn assert_equal(got: &Snapshot, want: &Snapshot, context: &str) {
    if let Some(differences) = differences(got, want) {
        panic!("{context}: {differences}");
    }
}

/// How many differences there are between two trees, and the first few of them; none if there
/// is none.
pub fn differences(got: &Snapshot, want: &Snapshot) -> Option<String> {
    let names = want
        .keys()
        .chain(got.keys().filter(|name| !want.contains_key(*name)));
    let differences: Vec<_> = names
        .filter(|name| got.get(*name) != want.get(*name))
        .map(|name| {
            let shown = Bytes(name.clone());
            format!(
                "{shown:?}\n  got  {:?}\n  want {:?}",
                got.get(name),
                want.get(name)
            )
        })
        .collect();
    let (count, first) = (differences.len(), differences.iter().take(5).cloned());
    let first = first.collect::<Vec<_>>().join("\n");
    (count > 0).then(|| format!("{count} differences\n{first}"))
}

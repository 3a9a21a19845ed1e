//! Compares an installed system with the archive that it should be, entry by entry.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use camino::Utf8Path;
use system_image_delta::{Kind, Limits, MemberPath, Reader};
use system_image_formats::hash::Hasher;

/// What is compared of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    /// Link target, device number, or digest of the content.
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Which files share an inode, named by the first of them.
    linked_to: Option<PathBuf>,
}

/// What may differ.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Owners, devices and attributes could not be set: the device belongs to a normal user.
    pub unprivileged: bool,
}

/// The number of entries compared, and every difference.
pub fn compare(
    archive: &Utf8Path,
    system: &Utf8Path,
    allowed: Allowed,
) -> anyhow::Result<(usize, Vec<String>)> {
    let mut want = read_archive(archive)?;
    let mut got = BTreeMap::new();
    walk(
        system.as_std_path(),
        Path::new(""),
        &mut got,
        &mut BTreeMap::new(),
    )
    .with_context(|| format!("cannot read `{system}`"))?;
    // What the version file adds, and the file system's own.
    let extra: BTreeSet<&Path> = ["etc/ubuntu-build", "lost+found"].map(Path::new).into();
    let below = Path::new("etc/system-image");
    got.retain(|path, _| !extra.contains(path.as_path()) && !path.starts_with(below));
    want.retain(|path, _| !path.starts_with(below));
    if allowed.unprivileged {
        want.retain(|_, entry| entry.kind != "device");
        for entry in want.values_mut().chain(got.values_mut()) {
            entry.owner = (0, 0);
            entry.xattrs.clear();
        }
    }
    let names: BTreeSet<_> = want.keys().chain(got.keys()).collect();
    let mut differences = Vec::new();
    for name in &names {
        match (want.get(*name), got.get(*name)) {
            (Some(want), Some(got)) if want == got => {}
            (want, got) => differences.push(format!(
                "/{}: archive {}, device {}",
                name.display(),
                shown(want),
                shown(got)
            )),
        }
    }
    Ok((names.len(), differences))
}

fn shown(entry: Option<&Entry>) -> String {
    match entry {
        None => "nothing".into(),
        Some(entry) => format!(
            "{} {:o} {}:{} @{} {} xattrs{} {}",
            entry.kind,
            entry.mode,
            entry.owner.0,
            entry.owner.1,
            entry.mtime,
            entry.xattrs.len(),
            entry
                .linked_to
                .as_ref()
                .map_or(String::new(), |to| format!(" ={}", to.display())),
            String::from_utf8_lossy(&entry.content)
                .chars()
                .take(60)
                .collect::<String>(),
        ),
    }
}

fn read_archive(archive: &Utf8Path) -> anyhow::Result<BTreeMap<PathBuf, Entry>> {
    let file = File::open(archive).with_context(|| format!("cannot read `{archive}`"))?;
    let mut reader = Reader::new(BufReader::with_capacity(1 << 20, file), Limits::default());
    let mut entries: BTreeMap<PathBuf, Entry> = BTreeMap::new();
    let path_of = |bytes: &[u8]| -> anyhow::Result<PathBuf> {
        let path = MemberPath::parse_rooted(bytes)?;
        Ok(PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes())))
    };
    let mut links: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    while let Some(header) = reader.next_header()? {
        let path = path_of(&header.path)?;
        if path.as_os_str().is_empty() {
            continue;
        }
        let device = |number: &system_image_delta::Device| {
            format!("{}:{}", number.major, number.minor).into_bytes()
        };
        let (kind, content) = match &header.kind {
            Kind::File { .. } => ("file", digest(&mut reader)?),
            Kind::HardLink { target } => {
                links.entry(path_of(target)?).or_default().push(path);
                continue;
            }
            Kind::Symlink { target } => ("symlink", target.clone()),
            Kind::Directory => ("directory", Vec::new()),
            Kind::Fifo => ("fifo", Vec::new()),
            Kind::CharDevice(number) => ("device", [b"c".to_vec(), device(number)].concat()),
            Kind::BlockDevice(number) => ("device", [b"b".to_vec(), device(number)].concat()),
        };
        let xattrs = header
            .xattrs
            .into_iter()
            .map(|xattr| (xattr.name, xattr.value))
            .collect();
        let entry = Entry {
            kind,
            mode: header.mode,
            owner: (header.uid, header.gid),
            mtime: header.mtime.seconds,
            content,
            xattrs,
            linked_to: None,
        };
        entries.insert(path, entry);
    }
    for (target, names) in links {
        let mut file = entries
            .get(&target)
            .context("a hard link to nothing")?
            .clone();
        let first = names
            .iter()
            .chain([&target])
            .min()
            .expect("there is one")
            .clone();
        file.linked_to = Some(first);
        for name in names.into_iter().chain([target]) {
            entries.insert(name, file.clone());
        }
    }
    Ok(entries)
}

fn walk(
    root: &Path,
    below: &Path,
    entries: &mut BTreeMap<PathBuf, Entry>,
    inodes: &mut BTreeMap<u64, PathBuf>,
) -> anyhow::Result<()> {
    let mut names: Vec<_> = fs::read_dir(root.join(below))?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<_>>()?;
    names.sort();
    for name in names {
        let path = below.join(name);
        let place = root.join(&path);
        let metadata = fs::symlink_metadata(&place)?;
        let kind = metadata.file_type();
        let number = || {
            let (major, minor) = (
                rustix::fs::major(metadata.rdev()),
                rustix::fs::minor(metadata.rdev()),
            );
            format!(
                "{}{major}:{minor}",
                if kind.is_char_device() { 'c' } else { 'b' }
            )
            .into_bytes()
        };
        let (kind, content) = if kind.is_dir() {
            ("directory", Vec::new())
        } else if kind.is_symlink() {
            (
                "symlink",
                fs::read_link(&place)?.as_os_str().as_bytes().to_vec(),
            )
        } else if kind.is_file() {
            ("file", digest(&mut File::open(&place)?)?)
        } else if kind.is_fifo() {
            ("fifo", Vec::new())
        } else {
            ("device", number())
        };
        let entry = Entry {
            kind,
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            mtime: metadata.mtime(),
            content,
            xattrs: xattrs(&place)?,
            linked_to: None,
        };
        entries.insert(path.clone(), entry);
        if kind == "file" && metadata.nlink() > 1 {
            // Names come sorted within a directory only, so the smallest is found at the end.
            link(entries, inodes, metadata.ino(), &path);
        }
        if kind == "directory" {
            walk(root, &path, entries, inodes)?;
        }
    }
    Ok(())
}

fn link(
    entries: &mut BTreeMap<PathBuf, Entry>,
    inodes: &mut BTreeMap<u64, PathBuf>,
    inode: u64,
    path: &Path,
) {
    let known = inodes.get(&inode).cloned();
    let first = match &known {
        Some(known) if known.as_path() <= path => known.clone(),
        _ => path.to_owned(),
    };
    inodes.insert(inode, first.clone());
    for entry in entries.values_mut() {
        if known.is_some() && entry.linked_to == known {
            entry.linked_to = Some(first.clone());
        }
    }
    if let Some(entry) = entries.get_mut(path) {
        entry.linked_to = Some(first);
    }
}

fn xattrs(place: &Path) -> anyhow::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 64 << 10];
    let Ok(len) = rustix::fs::llistxattr(place, &mut names[..]) else {
        return Ok(BTreeMap::new());
    };
    let mut found = BTreeMap::new();
    for name in names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(place, name, &mut value[..])?;
        value.truncate(len);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

fn digest(content: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut hasher = Hasher::default();
    io::copy(content, &mut hasher)?;
    Ok(hasher.finish().to_string().into_bytes())
}

//! A part of an image: a file of the pool, and its uncompressed content where that is needed.

use std::cell::OnceCell;
use std::fs::File;

use system_image_formats::index::{FileEntry, Image};
use system_image_formats::name::TreePath;

use crate::pool;
use crate::published::Published;

/// A file of an image, the version file left out.
#[derive(Debug)]
pub struct Part {
    /// What the index says of it; its order is given by the image.
    pub entry: FileEntry,
    tar: OnceCell<File>,
}

impl Part {
    /// A file of the pool.
    pub fn stored(entry: FileEntry) -> Self {
        Self {
            entry,
            tar: OnceCell::new(),
        }
    }

    /// A file of the pool that was just made of this uncompressed archive.
    pub fn made(entry: FileEntry, tar: File) -> Self {
        let part = Self::stored(entry);
        let _ = part.tar.set(tar);
        part
    }

    /// The parts of a published image, in the order in which a device applies them.
    pub fn of_image(image: &Image) -> Vec<Self> {
        let mut files: Vec<_> = image
            .files
            .iter()
            .filter(|file| !is_version_file(file))
            .collect();
        files.sort_by_key(|file| file.order);
        files.into_iter().cloned().map(Self::stored).collect()
    }

    /// Its uncompressed archive, unpacked once and checked against the index.
    pub fn tar(&self, tree: &Published) -> anyhow::Result<&File> {
        if self.tar.get().is_none() {
            let tar = pool::unpack(tree, &self.entry)?;
            let _ = self.tar.set(tar);
        }
        Ok(self.tar.get().expect("it was just set"))
    }

    /// What pairs it with its predecessor.
    pub fn prefix(&self) -> &str {
        prefix_of(&self.entry.path)
    }
}

/// A file's name up to the last `-` (server spec, section 7).
pub fn prefix_of(path: &TreePath) -> &str {
    let name = path.relative().rsplit('/').next().unwrap_or_default();
    name.rsplit_once('-').map_or(name, |(prefix, _)| prefix)
}

/// Whether a file is the one that tells a device its version.
pub fn is_version_file(file: &FileEntry) -> bool {
    prefix_of(&file.path) == "version"
}

/// Whether two images have the same content: the same files, their version files aside.
pub fn same_content(one: &Image, other: &Image) -> bool {
    let files = |image: &Image| {
        let mut files: Vec<_> = image
            .files
            .iter()
            .filter(|file| !is_version_file(file))
            .map(|file| (file.order, file.checksum))
            .collect();
        files.sort_unstable();
        files
            .into_iter()
            .map(|(_, checksum)| checksum)
            .collect::<Vec<_>>()
    };
    files(one) == files(other)
}

/// Whether files of this prefix are never delta'd, and come with every delta image (server spec,
/// sections 7 and 14.2).
pub fn is_always_whole(prefix: &str) -> bool {
    matches!(prefix, "version" | "keyring" | "boot")
}

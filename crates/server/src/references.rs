//! What the visible documents name: the files that must stay.

use std::collections::{BTreeSet, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use system_image_formats::channels::DeviceEntry;
use system_image_formats::index::Image;
use system_image_formats::name::TreePath;

use crate::published::{Published, channels_path};
use system_image_delta_build::parallel::on_all_cores;

/// The files that the visible documents name.
#[derive(Debug, Default)]
pub struct References {
    /// Documents: removed and replaced with their signatures.
    documents: BTreeSet<Box<str>>,
    /// Payloads, version files and their signatures, as 64 bits each: a large tree has hundreds of
    /// thousands. Should two look like one, then a file stays that might go.
    files: HashSet<u64>,
    hasher: RandomState,
}

impl References {
    /// Of all documents of the tree.
    pub fn of(tree: &Published) -> anyhow::Result<Self> {
        let mut found = Self::default();
        found.document(&channels_path());
        let channels = tree.channels()?;
        let mut entries = Vec::new();
        for entry in channels
            .0
            .values()
            .flat_map(|channel| channel.devices.values())
        {
            if let Some(keyring) = &entry.keyring {
                found.document(&keyring.path);
                found.file(&keyring.signature);
            }
            // Of a redirect the images are seen already.
            if found.document(&entry.index) {
                entries.push(entry);
            }
        }
        for files in on_all_cores(&entries, |entry| found.files_of(tree, entry)) {
            found.files.extend(files?);
        }
        Ok(found)
    }

    /// Adds the files of images.
    pub fn images<'a>(&mut self, images: impl IntoIterator<Item = &'a Image>) {
        for file in images.into_iter().flat_map(Image::named) {
            self.file(&file.path);
            self.file(&file.signature);
        }
    }

    /// What an index names.
    fn files_of(&self, tree: &Published, entry: &DeviceEntry) -> anyhow::Result<Vec<u64>> {
        let mut files = Vec::new();
        tree.visit_images(entry, |image| {
            for file in image.named() {
                files.extend([&file.path, &file.signature].map(|path| self.key(path.relative())));
            }
        })?;
        files.sort_unstable();
        files.dedup();
        Ok(files)
    }

    /// Adds a document; false when it was there already.
    pub fn document(&mut self, path: &TreePath) -> bool {
        self.documents.insert(path.relative().into())
    }

    /// Adds a file.
    pub fn file(&mut self, path: &TreePath) {
        self.files.insert(self.key(path.relative()));
    }

    /// The same for a file, its side file, and the signatures of both.
    fn key(&self, relative: &str) -> u64 {
        let file = relative.strip_suffix(".asc").unwrap_or(relative);
        let stem = file
            .strip_suffix(".tar.xz")
            .or_else(|| file.strip_suffix(".json"));
        self.hasher.hash_one(stem.unwrap_or(file))
    }

    /// Whether something names this file, or it belongs to one that is named. Keyrings are found by
    /// their place, so all of `gpg/` is.
    pub fn has(&self, relative: &str) -> bool {
        let document = relative.strip_suffix(".asc").unwrap_or(relative);
        relative.starts_with("gpg/")
            || self.files.contains(&self.key(relative))
            || self.documents.contains(document)
    }
}

//! What the visible documents name: the files that must stay.

use std::collections::BTreeSet;

use system_image_formats::index::Image;
use system_image_formats::name::{NameError, TreePath};

use crate::published::{Published, channels_path, side_path};

/// The files that the visible documents name.
#[derive(Debug, Default)]
pub struct References {
    /// Documents: removed and replaced with their signatures.
    documents: BTreeSet<Box<str>>,
    /// Payloads, version files and their signatures.
    files: BTreeSet<Box<str>>,
}

impl References {
    /// Of all documents of the tree.
    pub fn of(tree: &Published) -> anyhow::Result<Self> {
        let mut found = Self::default();
        found.document(&channels_path());
        for channel in tree.channels()?.0.values() {
            for entry in channel.devices.values() {
                if let Some(keyring) = &entry.keyring {
                    found.document(&keyring.path);
                    found.file(&keyring.signature);
                }
                if !found.document(&entry.index) {
                    // A redirect: its images were seen.
                    continue;
                }
                let Some(index) = tree.index(entry)? else {
                    continue;
                };
                found.images(&index.images)?;
            }
        }
        Ok(found)
    }

    /// Adds the files of images.
    pub fn images<'a>(
        &mut self,
        images: impl IntoIterator<Item = &'a Image>,
    ) -> Result<(), NameError> {
        for file in images.into_iter().flat_map(|image| &image.files) {
            if self.file(&file.path) {
                self.file(&file.signature);
                if let Ok(side) = side_path(&file.path) {
                    self.file(&side.with_suffix(".asc")?);
                    self.file(&side);
                }
            }
        }
        Ok(())
    }

    /// Adds a document; false when it was there already.
    pub fn document(&mut self, path: &TreePath) -> bool {
        self.documents.insert(path.relative().into())
    }

    /// Adds a file; false when it was there already.
    pub fn file(&mut self, path: &TreePath) -> bool {
        !self.files.contains(path.relative()) && self.files.insert(path.relative().into())
    }

    /// Whether something names this file, or it belongs to one that is named. Keyrings are found by
    /// their place, so all of `gpg/` is.
    pub fn has(&self, relative: &str) -> bool {
        let document = relative.strip_suffix(".asc").unwrap_or(relative);
        relative.starts_with("gpg/")
            || self.documents.contains(document)
            || self.files.contains(relative)
    }
}

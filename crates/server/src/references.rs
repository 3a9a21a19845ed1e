//! What the visible documents name: the files that must stay.

use std::collections::BTreeSet;

use system_image_formats::name::TreePath;

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
                for file in index.images.iter().flat_map(|image| &image.files) {
                    if found.file(&file.path) {
                        found.file(&file.signature);
                        let side = side_path(&file.path);
                        if let Ok(side) = side {
                            found.file(&side.with_suffix(".asc")?);
                            found.file(&side);
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Adds a document; false when it was there already.
    fn document(&mut self, path: &TreePath) -> bool {
        self.documents.insert(path.relative().into())
    }

    fn file(&mut self, path: &TreePath) -> bool {
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

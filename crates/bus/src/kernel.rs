//! What the kernel tells in `/proc` and `/sys`, for where no service tells it better.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

/// Who told a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The system's service for it: `NetworkManager`, `UPower`.
    Service,
    /// The kernel, because there is no such service or it does not know.
    Kernel,
}

/// Where the kernel's files are.
#[derive(Clone, Debug)]
pub struct Kernel {
    root: Utf8PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self::below("/")
    }
}

impl Kernel {
    /// Those below a directory that has `proc` and `sys`.
    pub fn below(root: impl AsRef<Utf8Path>) -> Self {
        let root = root.as_ref().to_owned();
        Self { root }
    }

    /// A file's text without the white space around it; none if it cannot be read.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        let text = fs::read(self.root.join(path)).ok()?;
        Some(String::from_utf8_lossy(&text).trim().to_owned())
    }

    /// The names in a directory, sorted; none if there is no such directory.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        let Ok(entries) = self.root.join(path).read_dir_utf8() else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_owned()));
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

//! Where a dry run works: an overlay of the tree, and a copy of the keys and keyrings.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_durable::present;
use system_image_store::{Overlay, Store};
use tempfile::TempDir;

use crate::root::Root;

/// Where a dry run's changes go; gone with it.
#[derive(Debug)]
pub struct Aside {
    /// The tree as it would become.
    pub overlay: Arc<Overlay>,
    /// A copy of the keys and keyrings.
    pub secrets: Utf8PathBuf,
    _directory: TempDir,
}

impl Aside {
    /// Over the tree in `store`, with copies of the secrets of `root`.
    pub fn new(root: &Root, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let state = root.state();
        let directory = tempfile::tempdir_in(&state)
            .with_context(|| format!("cannot make a directory in `{state}`"))?;
        let Some(secrets) = Utf8Path::from_path(directory.path()).map(Utf8Path::to_owned) else {
            bail!("`{state}` is not a name in UTF-8");
        };
        copy_files(&root.keys(), &secrets.join("keys"))?;
        copy_files(&root.keyrings(), &secrets.join("keyrings"))?;
        Ok(Self {
            overlay: Arc::new(Overlay::new(store, state)),
            secrets,
            _directory: directory,
        })
    }
}

/// Copies the regular files below a directory, for their owner only.
fn copy_files(from: &Utf8Path, to: &Utf8Path) -> anyhow::Result<()> {
    let failed = || format!("cannot copy `{from}`");
    DirBuilder::new()
        .mode(0o700)
        .create(to)
        .with_context(failed)?;
    let Some(entries) = present(from.read_dir_utf8()).with_context(failed)? else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.with_context(failed)?;
        let kind = entry.file_type().with_context(failed)?;
        let place = to.join(entry.file_name());
        if kind.is_dir() {
            copy_files(entry.path(), &place)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), place).with_context(failed)?;
        }
    }
    Ok(())
}

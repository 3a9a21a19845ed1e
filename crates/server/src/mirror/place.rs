//! The directory that holds a copy: the tree itself, as any web server serves it, and beside it in
//! `.mirror` what no reader needs.
//!
//! ```text
//! .mirror/downloads/   files under way, named by digest and path
//! .mirror/global.lock  held by the command that changes the copy
//! .mirror/unnamed.json since when files have been named by no document
//! ```

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::TreePath;
use system_image_store::{Directory, Store as _};
use system_image_trust::Signers;

use crate::gc::Note;
use crate::lock::{Lock, Patience};
use crate::published::{MAX_SIGNATURE, channels_path};
use crate::remote::{Signed, keyring_path};

/// The name of the directory of what no reader needs. Web servers leave out names with a dot.
const OWN: &str = ".mirror";

/// Largest document that is compared, in bytes.
const MAX_DOCUMENT: u64 = 96 << 20;

/// A directory that holds a copy.
#[derive(Debug)]
pub struct Place {
    directory: Directory,
    _lock: Lock,
}

/// The directory holds something else.
#[derive(Debug, thiserror::Error)]
#[error("`{place}` holds another server's tree")]
pub struct OtherTree {
    place: Utf8PathBuf,
}

impl OtherTree {
    /// One line for the person at the keyboard.
    pub fn hint(&self) -> &'static str {
        "give another directory with `--into DIR`"
    }
}

impl Place {
    /// Opens the copy at `place`, which is made when missing, and locks it.
    ///
    /// # Errors
    /// [`OtherTree`] for a directory with a tree that the anchor has nothing to do with: its
    /// archive-master keyring is not signed by one of `masters`. Nothing is changed in it then.
    pub fn open(
        place: &Utf8Path,
        masters: &Signers<'_>,
        patience: Patience,
    ) -> anyhow::Result<Self> {
        let directory = Directory::open(place)?;
        if !is_of(&directory, masters)? {
            let place = place.to_owned();
            return Err(OtherTree { place }.into());
        }
        let own = place.join(OWN);
        std::fs::create_dir_all(own.join("downloads"))
            .with_context(|| format!("cannot make the directory `{own}`"))?;
        Ok(Self {
            _lock: Lock::take(&own, patience)?,
            directory,
        })
    }

    /// The tree.
    pub fn store(&self) -> &Directory {
        &self.directory
    }

    /// Where files are that are under way.
    pub fn downloads(&self) -> Utf8PathBuf {
        self.directory.root().join(OWN).join("downloads")
    }

    /// Removes what is under way and not needed any more.
    pub fn forget_downloads(&self) -> anyhow::Result<()> {
        let downloads = self.downloads();
        std::fs::remove_dir_all(&downloads)
            .and_then(|()| std::fs::create_dir(&downloads))
            .with_context(|| format!("cannot empty `{downloads}`"))
    }

    /// Where it is written down since when files have been unnamed.
    pub fn note(&self, dry_run: bool) -> Note {
        Note {
            place: self.directory.root().join(OWN).join("unnamed.json"),
            keeps: !dry_run,
        }
    }

    /// Whether a file of the directory is none of the tree.
    pub fn is_own(relative: &str) -> bool {
        relative.split('/').next() == Some(OWN)
    }

    /// A document of the copy and its signature, not verified; `None` without either.
    pub fn document(&self, path: &TreePath) -> anyhow::Result<Option<(Vec<u8>, Vec<u8>)>> {
        document(&self.directory, path)
    }

    /// Whether the copy has a document like this, its signature too.
    pub fn has(&self, signed: &Signed) -> anyhow::Result<bool> {
        let read = |path, max| self.directory.read(path, max);
        Ok(
            read(&signed.path, MAX_DOCUMENT)?.as_ref() == Some(&signed.bytes)
                && read(&signed.signature_path, MAX_SIGNATURE)?.as_ref() == Some(&signed.signature),
        )
    }

    /// Replaces a document and its signature in one step.
    pub fn replace(&self, signed: &Signed) -> anyhow::Result<()> {
        self.directory
            .replace(&signed.path, &signed.bytes, &signed.signature)?;
        if signed.signature_path != signed.path.with_suffix(".asc")? {
            self.directory
                .write(&signed.signature_path, &signed.signature)?;
        }
        Ok(())
    }
}

fn document(directory: &Directory, path: &TreePath) -> anyhow::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let bytes = directory.read(path, MAX_DOCUMENT)?;
    let signature = directory.read(&path.with_suffix(".asc")?, MAX_SIGNATURE)?;
    Ok(bytes.zip(signature))
}

/// Whether a directory has no tree, or one whose archive-master keyring one of `masters` signed.
fn is_of(directory: &Directory, masters: &Signers<'_>) -> anyhow::Result<bool> {
    match document(directory, &keyring_path(KeyringType::ArchiveMaster))? {
        Some((bytes, signature)) => Ok(masters.verify(bytes, &signature).is_ok()),
        None => Ok(directory.size(&channels_path())?.is_none()),
    }
}

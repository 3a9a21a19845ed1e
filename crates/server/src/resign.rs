//! Everything is signed anew after a change of keys (server spec, section 17.6): payloads first, then
//! indexes, then the channels, so that a run that was interrupted can be told by the last.

use std::collections::BTreeSet;

use anyhow::Context;
use system_image_formats::index::Image;
use system_image_formats::name::TreePath;
use system_image_trust::{DetachedSignature, Fingerprint};

use crate::history::Event;
use crate::published::{MAX_SIGNATURE, Published, channels_path, side_path};
use crate::tree::Tree;

/// What was signed anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resigned {
    /// Payloads, version files and side files.
    pub files: usize,
    /// Indexes, and the list of channels.
    pub documents: usize,
}

/// Signs what the present key has not signed yet, or everything with `all`. What a device's own key
/// has signed stays as it is.
pub fn resign(tree: &Tree, all: bool) -> anyhow::Result<Resigned> {
    let mut done = Resigned::default();
    let current = tree.signer().fingerprint();
    let due = |path: &TreePath| -> anyhow::Result<bool> {
        Ok(all || !is_signed(tree, path, current.as_ref())?)
    };
    let channels = tree.channels()?;
    let (mut files, mut indexes) = (BTreeSet::new(), Vec::new());
    for channel in channels.0.values() {
        for entry in channel.devices.values() {
            if !files.insert(entry.index.clone()) {
                continue;
            }
            let Some(index) = tree.index(entry)? else {
                continue;
            };
            if let Some(keyring) = &entry.keyring
                && files.insert(keyring.path.clone())
                && due(&keyring.path)?
            {
                let archive = tree.store().read(&keyring.path, 4 << 20)?;
                let archive = archive
                    .with_context(|| format!("`{}` is missing in the tree", keyring.path))?;
                let signature = tree.signer().sign(std::io::Cursor::new(&archive))?;
                tree.store()
                    .replace(&keyring.path, &archive, signature.as_bytes())?;
                done.documents += 1;
            }
            let own = entry.keyring.is_some();
            for file in index.images.iter().flat_map(Image::named) {
                if !files.insert(file.path.clone()) {
                    continue;
                }
                let side = side_path(&file.path)?;
                for path in [&file.path, &side] {
                    if tree.store().size(path)?.is_some()
                        && due(path)?
                        && !(own && theirs(tree, path)?)
                    {
                        sign_file(tree, path)?;
                        done.files += 1;
                    }
                }
            }
            if due(&entry.index)? {
                indexes.push((entry.clone(), index));
            }
        }
    }
    for (entry, index) in indexes {
        tree.resign_index(&entry, &index)?;
        done.documents += 1;
    }
    if due(&channels_path())? {
        tree.replace_channels(&channels)?;
        done.documents += 1;
    }
    if done != Resigned::default() {
        let event = Event::new("resign").with("files", done.files);
        tree.record(&event.with("documents", done.documents));
    }
    Ok(done)
}

/// Whether everything is signed by this key, told by the document that is signed last.
pub fn is_signed_by(tree: &Published, key: &Fingerprint) -> anyhow::Result<bool> {
    is_signed(tree, &channels_path(), Some(key))
}

/// Whether a file's signature names this key. One that cannot be read names nobody.
fn is_signed(tree: &Published, path: &TreePath, key: Option<&Fingerprint>) -> anyhow::Result<bool> {
    let text = tree
        .store()
        .read(&path.with_suffix(".asc")?, MAX_SIGNATURE)?;
    let signature = text.and_then(|text| DetachedSignature::parse(&text).ok());
    let (Some(signature), Some(key)) = (signature, key) else {
        return Ok(false);
    };
    Ok(signature.issuers().iter().any(|issuer| issuer.is(key)))
}

/// Whether a file of a device with a keyring of its own is signed by a key that is not ours.
fn theirs(tree: &Published, path: &TreePath) -> anyhow::Result<bool> {
    let text = tree
        .store()
        .read(&path.with_suffix(".asc")?, MAX_SIGNATURE)?;
    let Some(text) = text else {
        return Ok(false);
    };
    Ok(tree.signers().verifier(&text).is_err())
}

fn sign_file(tree: &Tree, path: &TreePath) -> anyhow::Result<()> {
    let data = tree.store().open(path)?;
    let data = data.with_context(|| format!("`{path}` is missing in the tree"))?;
    let signature = tree.signer().sign(data)?;
    tree.store()
        .write(&path.with_suffix(".asc")?, signature.as_bytes())?;
    Ok(())
}

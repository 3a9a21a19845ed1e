//! One file that an index names: whether the copy has it, and how it gets there.
//!
//! The file comes last, after its signature and its side file: where it is, all of it is.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use camino::Utf8PathBuf;
use system_image_fetch::{How, Request, Size};
use system_image_formats::checksum::Sha256;
use system_image_formats::hash::Hasher;
use system_image_formats::index::FileEntry;
use system_image_formats::name::TreePath;
use system_image_store::{Directory, Store as _};
use system_image_trust::{Chain, Signers};

use super::place::Place;
use crate::published::MAX_SIGNATURE;
use crate::remote::{Remote, Signed};

/// What the copy has of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Have {
    /// All.
    All,
    /// The file, but no signature that is good now: the other server has signed it again.
    Unsigned,
    /// Another file of that name.
    Other,
    /// Nothing.
    Nothing,
}

/// Says what the copy has of a file.
///
/// `known` are digests that a verified index of the copy gives: what it names was checked when it
/// was written. Other files are read; with `deep`, all are.
pub fn have(
    store: &Directory,
    file: &FileEntry,
    known: &BTreeMap<TreePath, Sha256>,
    deep: bool,
    signers: &Signers<'_>,
) -> anyhow::Result<Have> {
    match store.size(&file.path)? {
        None => return Ok(Have::Nothing),
        Some(size) if size != file.size => return Ok(Have::Other),
        Some(_) => {}
    }
    let is_known = !deep && known.get(&file.path) == Some(&file.checksum);
    if !is_known && digest(store, &file.path)? != Some(file.checksum) {
        return Ok(Have::Other);
    }
    let signature = store.read(&file.signature, MAX_SIGNATURE)?;
    // Tells a key that is unknown, expired or refused without reading the file again.
    let good = signature.is_some_and(|text| signers.verifier(&text).is_ok());
    Ok(if good { Have::All } else { Have::Unsigned })
}

fn digest(store: &Directory, path: &TreePath) -> anyhow::Result<Option<Sha256>> {
    let Some(mut data) = store.open(path)? else {
        return Ok(None);
    };
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match data.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finish())),
            Ok(len) => hasher.update(&buffer[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read `{path}`")),
        }
    }
}

/// A file that was fetched and verified, and is not yet at its place.
#[derive(Debug)]
#[must_use]
pub struct Fetched {
    /// Where it is now; `None` when the copy has it, and only its signature is new.
    from: Option<Utf8PathBuf>,
    file: FileEntry,
    signature: Vec<u8>,
    side: Option<Signed>,
    /// Bytes that came over the network for the file itself.
    pub transferred: u64,
}

/// Fetches a file, its signature and its side file, all verified.
pub fn fetch(
    remote: &Remote,
    place: &Place,
    file: &FileEntry,
    have: Have,
    chain: &Chain,
    on_progress: &mut (dyn FnMut(u64) + Send),
) -> anyhow::Result<Fetched> {
    let url = remote.url_of(&file.path);
    let signers = chain.index_signers()?;
    let signature = remote.signature(&file.signature)?;
    let untrusted = || format!("`{url}` cannot be trusted");
    // Before anything is fetched in vain.
    signers
        .verifier(&signature)
        .map(drop)
        .with_context(untrusted)?;
    let side = remote.side(&file.path, &signers)?;
    let mut transferred = 0;
    let (from, digest) = if have == Have::Unsigned {
        let data = place.store().open(&file.path)?;
        let data = data.with_context(|| format!("`{}` went away", file.path))?;
        (None, signers.verify_reader(data, &signature))
    } else {
        let at = place.downloads().join(under_way(file));
        let request = Request {
            url: url.clone(),
            destination: at.clone(),
            size: Size::Exactly(file.size),
            digest: Some(file.checksum.into()),
            how: How::default(),
        };
        let fetched = remote
            .web()
            .fetch(&request, &mut |now| on_progress(now.received))?;
        transferred = fetched.transferred;
        let data = std::fs::File::open(&at).with_context(|| format!("cannot read `{at}`"))?;
        (Some(at), signers.verify_reader(data, &signature))
    };
    let digest = digest.with_context(untrusted)?;
    ensure!(
        *digest == file.checksum,
        "`{url}` reads back differently from what was fetched: check the disk"
    );
    Ok(Fetched {
        from,
        file: file.clone(),
        signature,
        side,
        transferred,
    })
}

/// The name of a file while it is fetched. Files of one content may have several names, and are then
/// fetched at the same time.
fn under_way(file: &FileEntry) -> String {
    let mut hasher = Hasher::default();
    hasher.update(format!("{} {}", file.checksum, file.path).as_bytes());
    hasher.finish().to_string()
}

impl Fetched {
    /// Puts all of it at its place.
    pub fn publish(self, store: &Directory) -> anyhow::Result<()> {
        if let Some(side) = &self.side {
            store.write(&side.signature_path, &side.signature)?;
            store.write(&side.path, &side.bytes)?;
        }
        store.write(&self.file.signature, &self.signature)?;
        if let Some(from) = &self.from {
            store.take(from, &self.file.path)?;
        }
        Ok(())
    }
}

//! Generators: the routines that make, or find, one file of a new image (server spec, section 13).
//!
//! In: a [`Source`] of the configuration and the device. Out: a file of the pool, signed, with what
//! it adds to the version detail; or the reason why there is none yet. A failure is an error, never
//! silence.

mod archive;
mod bootstrap;
mod cdimage;
mod http;
mod keyring;
mod local;
mod oci;
mod remote;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::anyhow;
use serde_json::Value;
use system_image_formats::checksum::Sha256;
use system_image_formats::detail::VersionDetail;
use system_image_formats::hash::Hasher;
use system_image_formats::index::FileEntry;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::side::SideFile;

use crate::config::Source;
use crate::diff::PACKAGES;
use crate::packages::packages;
use crate::part::Part;
use crate::pool;
use crate::published::Published;
use crate::tree::Tree;

/// What a generator works with.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The tree that the file goes into.
    pub tree: &'a Tree,
    /// The channel that the image is for.
    pub channel: &'a ChannelName,
    /// The device that it is for.
    pub device: &'a DeviceName,
    /// What this run has learnt of other servers.
    pub run: &'a Run,
}

/// What one run of the importer remembers, so that devices that share a source see the same of it,
/// and it is read once.
#[derive(Debug, Default)]
pub struct Run {
    versions: Mutex<BTreeMap<String, String>>,
    sources: Mutex<Vec<(Source, Arc<OnceLock<Seen>>)>>,
}

/// What a source had in this run.
#[derive(Clone, Debug)]
enum Seen {
    File(FileEntry, VersionDetail),
    NotYet(String),
    Failed(String),
}

impl Run {
    /// What a source has that is the same for every channel and device. The first that asks makes
    /// it, and others wait: two that build or fetch the same would be in each other's way.
    fn once(
        &self,
        source: &Source,
        make: impl FnOnce() -> anyhow::Result<Produced>,
    ) -> anyhow::Result<Produced> {
        let shared = self.shared(source);
        // Who makes it keeps the unpacked archive; others unpack the file if they need to.
        let mut first = None;
        let seen = shared.get_or_init(|| {
            let result = make();
            let seen = match &result {
                Ok(Produced::File(part, detail)) => Seen::File(part.entry.clone(), detail.clone()),
                Ok(Produced::NotYet(why)) => Seen::NotYet(why.clone()),
                Ok(Produced::AtTheEnd) => Seen::NotYet("it is the version file".to_owned()),
                Err(error) => Seen::Failed(format!("{error:#}")),
            };
            first = Some(result);
            seen
        });
        if let Some(result) = first {
            return result;
        }
        match seen.clone() {
            Seen::File(entry, detail) => Ok(Produced::File(Part::stored(entry), detail)),
            Seen::NotYet(why) => Ok(Produced::NotYet(why)),
            Seen::Failed(error) => Err(anyhow!(error)),
        }
    }

    /// The place where what a source has is kept, or will be.
    fn shared(&self, source: &Source) -> Arc<OnceLock<Seen>> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, seen)) = sources.iter().find(|(known, _)| known == source) {
            return Arc::clone(seen);
        }
        let seen = Arc::default();
        sources.push((source.clone(), Arc::clone(&seen)));
        seen
    }

    /// The version behind a URL, asked for once.
    fn version(
        &self,
        url: &str,
        ask: impl FnOnce() -> anyhow::Result<String>,
    ) -> anyhow::Result<String> {
        // Held while asking: others that want the same wait for it.
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(version) = versions.get(url) {
            return Ok(version.clone());
        }
        let version = ask()?;
        versions.insert(url.to_owned(), version.clone());
        Ok(version)
    }
}

/// What a generator has.
#[derive(Debug)]
pub enum Produced {
    /// A file, and what it adds to the version detail.
    File(Part, VersionDetail),
    /// Nothing, because the version file is made at the end anyway.
    AtTheEnd,
    /// No file yet, so no image.
    NotYet(String),
}

/// Makes or finds a file.
pub fn produce(job: Job<'_>, source: &Source) -> anyhow::Result<Produced> {
    match source {
        Source::Version => Ok(Produced::AtTheEnd),
        Source::Keyring { name } => keyring::produce(job, name),
        Source::Cdimage {
            kind,
            directory,
            series,
            import,
            product,
        } => cdimage::produce(job, *kind, directory, series, *import, product),
        Source::Http(download) => job.run.once(source, || http::produce(job, download)),
        Source::HttpCdimage(download) => {
            job.run.once(source, || http::produce_rootfs(job, download))
        }
        Source::SystemImage {
            channel,
            prefix,
            device,
        } => local::produce(job, channel, prefix, device.as_ref()),
        Source::RemoteSystemImage { .. } => remote::produce(job, source),
        Source::Bootstrap { recipe } => job.run.once(source, || bootstrap::produce(job, recipe)),
        Source::Tar { path, name } => job
            .run
            .once(source, || archive::tar(job, path, name.as_deref())),
        Source::Directory { path, name } => job
            .run
            .once(source, || archive::directory(job, path, name.as_deref())),
        Source::Oci {
            path,
            reference,
            name,
        } => job.run.once(source, || {
            oci::produce(job, path, reference.as_deref(), name.as_deref())
        }),
    }
}

/// Where the pool has a file of this prefix and hash.
fn pool_path(prefix: &str, hash: &Sha256) -> anyhow::Result<TreePath> {
    Ok(format!("/pool/{prefix}-{hash}.tar.xz").parse()?)
}

/// The digest of a text.
fn digest(text: &str) -> Sha256 {
    let mut hasher = Hasher::default();
    hasher.update(text.as_bytes());
    hasher.finish()
}

/// A file that the pool has already, with the version detail that its side file remembers.
fn known(tree: &Published, path: &TreePath) -> anyhow::Result<Option<Produced>> {
    let Some(entry) = pool::stored(tree, path)? else {
        return Ok(None);
    };
    let side = tree.side(path)?;
    let detail = side
        .and_then(|side| side.version_detail)
        .unwrap_or_default();
    Ok(Some(Produced::File(Part::stored(entry), detail)))
}

/// Stores an uncompressed archive; root file systems with their packages.
fn store(
    tree: &Tree,
    path: &TreePath,
    tar: File,
    generator: &str,
    detail: VersionDetail,
    more: &[(&str, Value)],
) -> anyhow::Result<Produced> {
    let mut side = SideFile::new(generator, detail.clone());
    side.extra.extend(
        more.iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone())),
    );
    if let Some(packages) = packages(&tar)? {
        side.extra.insert(PACKAGES.to_owned(), packages.into());
    }
    let entry = pool::store(tree, path, &tar, &side)?;
    Ok(Produced::File(Part::made(entry, tar), detail))
}

/// A version detail of one item.
fn item(key: &str, value: &str) -> anyhow::Result<VersionDetail> {
    let mut detail = VersionDetail::default();
    detail.push(key, value)?;
    Ok(detail)
}

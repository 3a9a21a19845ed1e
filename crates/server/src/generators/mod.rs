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
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use system_image_formats::checksum::Sha256;
use system_image_formats::detail::VersionDetail;
use system_image_formats::hash::Hasher;
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

/// What one run of the importer remembers, so that devices that share a source see the same of it.
#[derive(Debug, Default)]
pub struct Run {
    versions: Mutex<BTreeMap<String, String>>,
}

impl Run {
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
        Source::Http(download) => http::produce(job, download),
        Source::HttpCdimage(download) => http::produce_rootfs(job, download),
        Source::SystemImage {
            channel,
            prefix,
            device,
        } => local::produce(job, channel, prefix, device.as_ref()),
        Source::RemoteSystemImage { .. } => remote::produce(job, source),
        Source::Bootstrap { recipe } => bootstrap::produce(job, recipe),
        Source::Tar { path, name } => archive::tar(job, path, name.as_deref()),
        Source::Directory { path, name } => archive::directory(job, path, name.as_deref()),
        Source::Oci {
            path,
            reference,
            name,
        } => oci::produce(job, path, reference.as_deref(), name.as_deref()),
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

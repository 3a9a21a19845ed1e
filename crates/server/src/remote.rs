//! Another server, verified as a device would: from an archive-master keyring that the operator has
//! down to each document, before anything of it is parsed.
//!
//! In: an address and the anchor. Out: documents with the bytes that were verified. What is done
//! with them is the caller's.

use std::fs;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::channels::{Channels, DeviceEntry, SignedPath};
use system_image_formats::index::Index;
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{DeviceName, TreePath};
use system_image_trust::{Chain, Keyring, Now, Signers};

use crate::published::{channels_path, side_path};
use crate::root::Root;
use crate::web::Web;

/// Largest signature that is read, in bytes.
const MAX_SIGNATURE: usize = 64 << 10;
/// Largest keyring that is read, in bytes.
const MAX_KEYRING: usize = 4 << 20;
/// Largest list of channels that is read, in bytes.
const MAX_CHANNELS: usize = 64 << 20;
/// Largest index that is read, in bytes.
const MAX_INDEX: usize = 96 << 20;
/// Largest side file that is read, in bytes: a build record names each package.
const MAX_SIDE: usize = 16 << 20;

/// How often a document and its signature are fetched when they do not belong together: the other
/// server replaced them in between. More than once in a row is no accident.
const TRIES: u32 = 3;

/// A document as the other server has it, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Where it is.
    pub path: TreePath,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where its signature is.
    pub signature_path: TreePath,
    /// The bytes of its signature.
    pub signature: Vec<u8>,
}

/// Another server and what may be believed of it.
#[derive(Debug)]
pub struct Remote {
    web: Web,
    url: String,
    anchor: Vec<u8>,
    now: Now,
    chain: Chain,
    keyrings: Vec<(KeyringType, Signed)>,
}

/// Where the archive-master keyring of another server is kept when nothing else is said.
pub fn usual_anchor(root: &Root, url: &str) -> Utf8PathBuf {
    let host = url.split("://").nth(1).unwrap_or(url);
    let host = host.split(['/', ':']).next().unwrap_or(host);
    root.directory().join(format!("etc/remotes/{host}.tar.xz"))
}

/// Reads the anchor of the server at `url`.
pub fn read_anchor(place: &Utf8Path, url: &str) -> anyhow::Result<Vec<u8>> {
    fs::read(place)
        .with_context(|| format!("the archive-master keyring of `{url}` is needed as `{place}`"))
}

impl Remote {
    /// Loads the server's keyrings, each verified by the one above it, down from `anchor`.
    ///
    /// `device` is for whom keyrings must be that are for one model only; `now` is the clock, in
    /// Unix seconds.
    pub fn open(url: &str, anchor: Vec<u8>, device: &DeviceName, now: i64) -> anyhow::Result<Self> {
        let now = Now::from_clock(now);
        let chain = Chain::new(&anchor, device.clone(), now);
        let mut remote = Self {
            chain: chain.with_context(|| format!("the anchor of `{url}` cannot be used"))?,
            web: Web::new()?,
            url: url.trim_end_matches('/').to_owned(),
            anchor,
            now,
            keyrings: Vec::new(),
        };
        remote.keyring(KeyringType::ImageMaster)?;
        remote.keyring(KeyringType::Blacklist)?;
        remote.keyring(KeyringType::ImageSigning)?;
        Ok(remote)
    }

    /// As [`open`](Self::open), with what the server itself says is its archive-master keyring. All
    /// is then in order with itself, and nothing says whose it is.
    pub fn open_without_anchor_unverified(
        url: &str,
        device: &DeviceName,
        now: i64,
    ) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/');
        let path = keyring_path(KeyringType::ArchiveMaster);
        let anchor = Web::new()?.required(&format!("{url}{path}"), MAX_KEYRING)?;
        Self::open(url, anchor, device, now)
    }

    /// Its address, without `/` at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What fetches from it.
    pub fn web(&self) -> &Web {
        &self.web
    }

    /// Who may sign what, device keyrings left out.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The keyrings that were loaded, in the order of the chain.
    pub fn keyrings(&self) -> impl Iterator<Item = &Signed> {
        self.keyrings.iter().map(|(_, signed)| signed)
    }

    /// Its archive-master keyring, signed by a key of the anchor.
    pub fn archive_master(&self) -> anyhow::Result<Signed> {
        let kind = KeyringType::ArchiveMaster;
        self.signed(&keyring_path(kind), MAX_KEYRING, &|bytes, signature| {
            Keyring::open(&self.chain.signers_of(kind)?.verify(bytes, signature)?)?;
            Ok(())
        })
    }

    /// Its channels.
    pub fn channels(&self) -> anyhow::Result<(Channels, Signed)> {
        let signed = self.signed(&channels_path(), MAX_CHANNELS, &|bytes, signature| {
            Ok(self
                .chain
                .channel_signers()?
                .verify(bytes, signature)
                .map(drop)?)
        })?;
        let channels = Channels::parse(&signed.bytes)
            .with_context(|| format!("`{}` cannot be used", self.url_of(&signed.path)))?;
        Ok((channels, signed))
    }

    /// The chain for what is signed for one device, and the device's own keyring if it has one.
    pub fn chain_of(
        &self,
        device: &DeviceName,
        entry: &DeviceEntry,
    ) -> anyhow::Result<(Chain, Option<Signed>)> {
        let Some(paths) = &entry.keyring else {
            return Ok((self.chain.clone(), None));
        };
        // A device keyring may be for one model, and the chain is for another device so far.
        let mut chain = Chain::new(&self.anchor, device.clone(), self.now)?;
        for (kind, signed) in &self.keyrings {
            chain.load_as(*kind, &signed.bytes, &signed.signature)?;
        }
        let kind = KeyringType::DeviceSigning;
        let signed = self.found(paths, MAX_KEYRING, &|bytes, signature| {
            chain.clone().load_as(kind, bytes, signature)?;
            Ok(())
        })?;
        let signed = signed.with_context(|| self.absent(&paths.path))?;
        chain.load_as(kind, &signed.bytes, &signed.signature)?;
        Ok((chain, Some(signed)))
    }

    /// The index of a device whose chain is `chain`.
    pub fn index(&self, entry: &DeviceEntry, chain: &Chain) -> anyhow::Result<(Index, Signed)> {
        let signed = self.signed(&entry.index, MAX_INDEX, &|bytes, signature| {
            Ok(chain.index_signers()?.verify(bytes, signature).map(drop)?)
        })?;
        let index = Index::parse(&signed.bytes)
            .with_context(|| format!("`{}` cannot be used", self.url_of(&entry.index)))?;
        Ok((index, signed))
    }

    /// The signature of a file, not checked.
    pub fn signature(&self, path: &TreePath) -> anyhow::Result<Vec<u8>> {
        self.web.required(&self.url_of(path), MAX_SIGNATURE)
    }

    /// The side file of a file, if there is one.
    pub fn side(&self, path: &TreePath, signers: &Signers<'_>) -> anyhow::Result<Option<Signed>> {
        self.found(&usual(side_path(path)?)?, MAX_SIDE, &|bytes, signature| {
            Ok(signers.verify(bytes, signature).map(drop)?)
        })
    }

    /// The address of a file.
    pub fn url_of(&self, path: &TreePath) -> String {
        format!("{}{path}", self.url)
    }

    /// Loads a keyring. Only the blacklist may be missing.
    fn keyring(&mut self, kind: KeyringType) -> anyhow::Result<()> {
        let chain = &self.chain;
        let found = self.found(
            &usual(keyring_path(kind))?,
            MAX_KEYRING,
            &|bytes, signature| {
                chain.clone().load_as(kind, bytes, signature)?;
                Ok(())
            },
        )?;
        let signed = match found {
            None if kind == KeyringType::Blacklist => return Ok(()),
            found => found.with_context(|| self.absent(&keyring_path(kind)))?,
        };
        self.chain.load_as(kind, &signed.bytes, &signed.signature)?;
        self.keyrings.push((kind, signed));
        Ok(())
    }

    /// A document that must be there, with the usual name for its signature.
    fn signed(&self, path: &TreePath, max: usize, check: Check<'_>) -> anyhow::Result<Signed> {
        let found = self.found(&usual(path.clone())?, max, check)?;
        found.with_context(|| self.absent(path))
    }

    fn absent(&self, path: &TreePath) -> String {
        format!("there is no `{}`", self.url_of(path))
    }

    /// A document and its signature that `check` finds to belong together, if there is one.
    fn found(
        &self,
        paths: &SignedPath,
        max: usize,
        check: Check<'_>,
    ) -> anyhow::Result<Option<Signed>> {
        let url = self.url_of(&paths.path);
        let mut tries = 0;
        loop {
            let Some(bytes) = self.web.small(&url, max)? else {
                return Ok(None);
            };
            let signature = self.signature(&paths.signature)?;
            tries += 1;
            match check(&bytes, &signature) {
                Ok(()) => {
                    return Ok(Some(Signed {
                        path: paths.path.clone(),
                        bytes,
                        signature_path: paths.signature.clone(),
                        signature,
                    }));
                }
                Err(_) if tries < TRIES => {}
                Err(error) => return Err(error.context(format!("`{url}` cannot be trusted"))),
            }
        }
    }
}

/// Says whether bytes and a signature belong together.
type Check<'a> = &'a dyn Fn(&[u8], &[u8]) -> anyhow::Result<()>;

/// A document with the usual name for its signature.
fn usual(path: TreePath) -> anyhow::Result<SignedPath> {
    let signature = path.with_suffix(".asc")?;
    Ok(SignedPath { path, signature })
}

/// Where a keyring is.
pub fn keyring_path(kind: KeyringType) -> TreePath {
    let path = format!("/gpg/{kind}.tar.xz");
    path.parse().expect("it is a path")
}

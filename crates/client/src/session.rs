//! One run's keyrings, channels and index: each fetched, verified, and only then read (client
//! spec, sections 8 and 9.2 to 9.5).
//!
//! Keyrings are kept between runs. When a signature does not fit a kept one, keys may have been
//! rotated, at whatever document that shows: the run is repeated once with that keyring fetched
//! anew, and fails if it still does not fit.

use std::fs::File;
use std::io;

use anyhow::{Context, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_durable as durable;
use system_image_fetch::FetchError;
use system_image_formats::channels::{Channel, Channels, DeviceEntry};
use system_image_formats::config::ClientConfig;
use system_image_formats::index::{Image, Index};
use system_image_formats::json::JsonError;
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::outline::Outline;
use system_image_planner::Route;
use system_image_trust::{Chain, ChainError, Now, Verified, VerifyError};

use crate::files;
use crate::log::Log;
use crate::server::{MAX_SIGNATURE, Server, Signed};

/// Largest keyring archive, in bytes: real ones have a few thousand.
const MAX_KEYRING: usize = 4 << 20;

/// Largest `channels.json`, in bytes: 50 channels with 50 devices each have some 500 kB.
const MAX_CHANNELS: usize = 64 << 20;

/// Largest `index.json`, in bytes: 5,000 images with ten deltas each have some 60 MB.
const MAX_INDEX: u64 = 96 << 20;

/// The keyrings that are fetched whatever is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    image_master: bool,
    image_signing: bool,
}

/// Why an attempt ended.
#[derive(Debug)]
pub enum Failure {
    /// A signature did not fit; a newer keyring of this type may.
    Stale(KeyringType, anyhow::Error),
    /// Another attempt would end alike.
    Final(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

/// Runs `attempt`, again with fresh keyrings as long as it blames a kept one.
pub async fn with_fresh_keys<T>(
    log: &Log,
    mut attempt: impl AsyncFnMut(Fresh) -> Result<T, Failure>,
) -> anyhow::Result<T> {
    let mut fresh = Fresh::default();
    loop {
        match attempt(fresh).await {
            Ok(value) => return Ok(value),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Stale(kind, error)) => {
                let renewed = match kind {
                    KeyringType::ImageMaster => &mut fresh.image_master,
                    _ => &mut fresh.image_signing,
                };
                if std::mem::replace(renewed, true) {
                    return Err(error);
                }
                log.info(&format!("{error:#}; fetching the {kind} keyring again"));
            }
        }
    }
}

/// What a run knows of the server, all of it verified.
#[derive(Debug)]
pub struct Session {
    /// The keyrings.
    pub chain: Chain,
    /// The server's channels.
    pub channels: Verified<Channels>,
}

/// The device's own part of it. The index itself stays in a temporary file.
#[derive(Debug)]
pub struct DeviceIndex {
    /// The channel that the configured one follows.
    pub alias: Option<ChannelName>,
    /// The images, as far as planning needs them.
    pub outline: Verified<Outline>,
    /// Whether the device has a keyring of its own.
    pub has_keyring: bool,
    path: TreePath,
    document: Verified<File>,
}

impl DeviceIndex {
    /// The images of a route over the index, whole.
    pub fn images(&self, route: &Route<'_>) -> anyhow::Result<Vec<Image>> {
        let images = Index::read_images(self.document.as_ref(), &route.places());
        let images = images.map_err(|source| Unusable {
            path: self.path.clone(),
            source,
        })?;
        Ok(images)
    }
}

/// What a session needs of the device.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The configuration.
    pub config: &'a ClientConfig,
    /// The device's name.
    pub device: &'a DeviceName,
    /// The clock, in Unix seconds.
    pub now: i64,
    /// Whether no signature is looked at (`--skip-gpg-verification`).
    pub trust_anybody: bool,
    /// Whether applying patches to what is installed has failed.
    pub patches_failed: bool,
    /// Where to tell what happens.
    pub log: &'a Log,
}

impl Session {
    /// Loads the keyrings and the channels.
    pub async fn open(server: &Server, facts: Facts<'_>, fresh: Fresh) -> Result<Self, Failure> {
        let mut keys = Keys {
            server,
            facts,
            chain: anchor(facts)?,
        };
        keys.kept_or_fetched(KeyringType::ImageMaster, fresh.image_master)
            .await?;
        keys.blacklist(fresh).await?;
        keys.kept_or_fetched(KeyringType::ImageSigning, fresh.image_signing)
            .await?;
        let chain = keys.chain;

        let path = tree_path("channels.json");
        let signed = required(server, &path, &asc(&path), MAX_CHANNELS).await?;
        let verified = chain
            .channel_signers()?
            .verify(signed.content, &signed.signature);
        let channels = verified
            .map_err(|error| stale(KeyringType::ImageSigning, error, "channels.json"))?
            .try_map(|bytes| Channels::parse(&bytes))
            .map_err(|source| Unusable { path, source })?;
        Ok(Self { chain, channels })
    }

    /// The channel and device of the configuration.
    fn entry(&self, facts: Facts<'_>) -> Result<(&Channel, &DeviceEntry), NotOffered> {
        let name = &facts.config.service.channel;
        let channel = self.channels.get(name).ok_or_else(|| {
            facts.log.info(&format!("no matching channel: {name}"));
            NotOffered::Channel {
                name: name.clone(),
                known: visible(&self.channels),
            }
        })?;
        let entry = channel.devices.get(facts.device).ok_or_else(|| {
            facts
                .log
                .info(&format!("no matching device: {}", facts.device));
            NotOffered::Device {
                channel: name.clone(),
                device: facts.device.clone(),
                known: channel.devices.keys().map(ToString::to_string).collect(),
            }
        })?;
        facts.log.info(&format!("got channel: {name}"));
        Ok((channel, entry))
    }

    /// Loads the device's keyring, where it has one, and its index.
    pub async fn device_index(
        &mut self,
        server: &Server,
        facts: Facts<'_>,
    ) -> Result<Result<DeviceIndex, NotOffered>, Failure> {
        let (channel, entry) = match self.entry(facts) {
            Ok(found) => found,
            Err(not_offered) => return Ok(Err(not_offered)),
        };
        let (alias, entry) = (channel.alias.clone(), entry.clone());
        let place = &facts.config.gpg.device_signing;
        if let Some(paths) = &entry.keyring {
            let signed = required(server, &paths.path, &paths.signature, MAX_KEYRING).await?;
            load(&mut self.chain, KeyringType::DeviceSigning, &signed)?;
            keep(place, &signed)?;
        } else {
            // One of an earlier run must not outlive its entry.
            forget(place)?;
        }
        let path = entry.index;
        let directory = &facts.config.system.tempdir;
        files::make_directory(directory)?;
        let found = server
            .long_document(&path, &asc(&path), MAX_INDEX, directory)
            .await;
        let signed = there(server, found, &path)?;
        let verified = self
            .chain
            .index_signers()?
            .verify_file(signed.content, &signed.signature);
        let document =
            verified.map_err(|error| stale(KeyringType::ImageSigning, error, path.relative()))?;
        let outline = document
            .by_ref()
            .try_map(Outline::read)
            .map_err(|source| Unusable {
                path: path.clone(),
                source,
            })?;
        Ok(Ok(DeviceIndex {
            alias,
            outline,
            has_keyring: entry.keyring.is_some(),
            path,
            document,
        }))
    }
}

/// A chain of nothing but the device's trust root.
pub fn anchor(facts: Facts<'_>) -> anyhow::Result<Chain> {
    let path = &facts.config.gpg.archive_master;
    let anchor = durable::read(path, MAX_KEYRING)
        .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|source| NoAnchor {
            path: path.clone(),
            source,
        })?;
    let now = Now::from_clock(facts.now);
    let mut chain = Chain::new(&anchor, facts.device.clone(), now)
        .with_context(|| format!("`{path}` is not usable as trust root"))?;
    if facts.trust_anybody {
        chain.trust_anybody_for_testing();
    }
    Ok(chain)
}

/// Each keyring that is kept, in the order of the chain: when it expires, if it does, or why it cannot
/// be used; nothing for one that is not there.
pub fn kept_keyrings(facts: Facts<'_>) -> Vec<(KeyringType, anyhow::Result<Option<Option<i64>>>)> {
    let mut chain = match anchor(facts) {
        Ok(chain) => chain,
        Err(error) => return vec![(KeyringType::ArchiveMaster, Err(error))],
    };
    let gpg = &facts.config.gpg;
    let blacklist = facts.config.data_partition.join("blacklist.tar.xz");
    let places = [
        (KeyringType::ImageMaster, &gpg.image_master),
        (KeyringType::Blacklist, &blacklist),
        (KeyringType::ImageSigning, &gpg.image_signing),
        (KeyringType::DeviceSigning, &gpg.device_signing),
    ];
    let mut found = vec![(KeyringType::ArchiveMaster, Ok(Some(None)))];
    for (kind, place) in places {
        let result = match kept(place) {
            None => Ok(None),
            Some(signed) => chain
                .load_as(kind, &signed.content, &signed.signature)
                .map(|keyring| Some(keyring.info.expiry))
                .with_context(|| format!("cannot use `{place}`")),
        };
        found.push((kind, result));
    }
    found
}

/// The keyrings while they are being loaded.
struct Keys<'a> {
    server: &'a Server,
    facts: Facts<'a>,
    chain: Chain,
}

impl Keys<'_> {
    /// Loads a keyring that is kept between runs, or fetches it.
    async fn kept_or_fetched(&mut self, kind: KeyringType, fetch: bool) -> Result<(), Failure> {
        let gpg = &self.facts.config.gpg;
        let place = match kind {
            KeyringType::ImageMaster => &gpg.image_master,
            _ => &gpg.image_signing,
        };
        if !fetch
            && let Some(signed) = kept(place)
            && self
                .chain
                .load_as(kind, &signed.content, &signed.signature)
                .is_ok()
        {
            return Ok(());
        }
        let text = kind.as_str().replace('-', " ");
        self.facts
            .log
            .info(&format!("No valid {text} key found, downloading"));
        let path = tree_path(&format!("gpg/{kind}.tar.xz"));
        let signed = required(self.server, &path, &asc(&path), MAX_KEYRING).await?;
        load(&mut self.chain, kind, &signed)?;
        keep(place, &signed)?;
        Ok(())
    }

    /// Loads the blacklist. Only a server that says there is none has none; when it does not come,
    /// or is not the image-master's, the last one that was good still counts.
    async fn blacklist(&mut self, fresh: Fresh) -> Result<(), Failure> {
        let log = self.facts.log;
        let place = self.facts.config.data_partition.join("blacklist.tar.xz");
        let path = tree_path("gpg/blacklist.tar.xz");
        log.info(&format!("Looking for blacklist: {path}"));
        let refused = match self.server.document(&path, &asc(&path), MAX_KEYRING).await {
            Ok(Some(signed)) => match load(&mut self.chain, KeyringType::Blacklist, &signed) {
                Ok(()) => return Ok(keep(&place, &signed)?),
                // A new image-master may have signed it.
                Err(stale @ Failure::Stale(..)) if !fresh.image_master => return Err(stale),
                Err(Failure::Stale(_, error) | Failure::Final(error)) => error,
            },
            Ok(None) => {
                log.info("No blacklist found");
                return Ok(forget(&place)?);
            }
            Err(error) => anyhow!(error).context("cannot fetch the blacklist"),
        };
        let Some(signed) = kept(&place) else {
            return Err(Failure::Final(refused));
        };
        log.error(&format!("{refused:#}; the last blacklist is used"));
        load(&mut self.chain, KeyringType::Blacklist, &signed)
    }
}

/// Loads a fetched keyring; a signature that does not fit blames the keyring above it.
fn load(chain: &mut Chain, kind: KeyringType, signed: &Signed) -> Result<(), Failure> {
    match chain.load_as(kind, &signed.content, &signed.signature) {
        Ok(_) => Ok(()),
        Err(error @ ChainError::Signature { .. })
            if kind.signer() != KeyringType::ArchiveMaster =>
        {
            Err(Failure::Stale(kind.signer(), error.into()))
        }
        // The kept keyring above it; its publisher may have had it signed by another key.
        Err(error @ ChainError::SignerBlacklisted { kind, .. }) => {
            Err(Failure::Stale(kind, error.into()))
        }
        Err(error) => Err(error.into()),
    }
}

fn stale(
    kind: KeyringType,
    error: impl std::error::Error + Send + Sync + 'static,
    what: &str,
) -> Failure {
    Failure::Stale(
        kind,
        anyhow!(error).context(format!("`{what}` has no good signature")),
    )
}

/// A small document that must be there.
async fn required(
    server: &Server,
    path: &TreePath,
    signature: &TreePath,
    max: usize,
) -> Result<Signed, Failure> {
    there(server, server.document(path, signature, max).await, path)
}

fn there<T>(
    server: &Server,
    found: Result<Option<Signed<T>>, FetchError>,
    path: &TreePath,
) -> Result<Signed<T>, Failure> {
    let found = found.with_context(|| format!("cannot fetch `{}`", path.relative()))?;
    Ok(found.ok_or_else(|| Missing {
        path: path.clone(),
        url: server.metadata_url(path),
    })?)
}

/// The keyring that all trust comes from cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the trust root `{path}`")]
pub struct NoAnchor {
    path: Utf8PathBuf,
    source: io::Error,
}

/// A document is signed, and yet not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be used", path.relative())]
pub struct Unusable {
    path: TreePath,
    source: JsonError,
}

/// The server has no such document.
#[derive(Debug, thiserror::Error)]
#[error("the server has no `{}`", path.relative())]
pub struct Missing {
    path: TreePath,
    url: String,
}

impl Missing {
    /// In the words in which transfers fail (client spec, section 13.3).
    pub fn as_transfer(&self) -> String {
        format!("The requested URL returned error: 404: {}", self.url)
    }
}

/// The server has nothing for this device on this channel. For callers of the original that is no
/// error: the device is up to date.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOffered {
    /// There is no such channel.
    #[error("the server has no channel `{name}`")]
    Channel {
        /// Its name.
        name: ChannelName,
        /// Those that it offers.
        known: Vec<String>,
    },
    /// The channel is not for this device.
    #[error("channel `{channel}` has no device `{device}`")]
    Device {
        /// The channel.
        channel: ChannelName,
        /// The device.
        device: DeviceName,
        /// Those that it has.
        known: Vec<String>,
    },
}

impl NotOffered {
    /// One line for the person at the keyboard.
    pub fn hint(&self) -> String {
        let (known, option) = match self {
            Self::Channel { known, .. } => (known, "--channel"),
            Self::Device { known, .. } => (known, "--device"),
        };
        match &known[..] {
            [] => "it has none yet; ask its publisher".to_owned(),
            _ => format!("it has {}; choose one with {option}", known.join(", ")),
        }
    }
}

fn visible(channels: &Channels) -> Vec<String> {
    let shown = channels.0.iter().filter(|(_, channel)| !channel.hidden);
    shown.map(|(name, _)| name.to_string()).collect()
}

fn tree_path(relative: &str) -> TreePath {
    relative.parse().expect("it is a path of every tree")
}

fn asc(path: &TreePath) -> TreePath {
    path.with_suffix(".asc")
        .expect("a path with a suffix is a path")
}

fn signature_place(place: &Utf8Path) -> Utf8PathBuf {
    format!("{place}.asc").into()
}

/// A keyring of an earlier run, if it can be read.
fn kept(place: &Utf8Path) -> Option<Signed> {
    let content = durable::read(place, MAX_KEYRING).ok()??;
    let signature = durable::read(signature_place(place), MAX_SIGNATURE).ok()??;
    Some(Signed { content, signature })
}

/// Keeps a verified keyring, if it is another one than is kept. A crash between the two files
/// leaves a pair that does not verify, which is fetched anew.
fn keep(place: &Utf8Path, signed: &Signed) -> anyhow::Result<()> {
    if kept(place).as_ref() != Some(signed) {
        files::replace(place, &signed.content)?;
        files::replace(&signature_place(place), &signed.signature)?;
    }
    Ok(())
}

fn forget(place: &Utf8Path) -> anyhow::Result<()> {
    durable::remove(place)
        .and_then(|()| durable::remove(signature_place(place)))
        .with_context(|| format!("cannot remove `{place}`"))
}

/// What the person at the keyboard can do about an error of a session.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    let form = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(VerifyError::Form(_)))
    };
    if error.chain().any(form) {
        return Some("check that no proxy or log-in page answers instead of the server".to_owned());
    }
    error.chain().find_map(hint_of)
}

fn hint_of(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<ChainError>() {
        return error.hint();
    }
    if let Some(error) = cause.downcast_ref::<VerifyError>() {
        return error.hint().map(str::to_owned);
    }
    if let Some(FetchError::Temporary { .. }) = cause.downcast_ref() {
        return Some("make room there, or set `tempdir` of `[system]` to another directory".into());
    }
    if let Some(error) = cause.downcast_ref::<FetchError>() {
        return error.hint().map(str::to_owned);
    }
    if let Some(error) = cause.downcast_ref::<NotOffered>() {
        return Some(error.hint());
    }
    let text = if cause.is::<Missing>() {
        "check `base` and the ports of `[service]` in the configuration"
    } else if let Some(Unusable { source, .. }) = cause.downcast_ref() {
        if let JsonError::Read(_) = source {
            return None;
        }
        "its publisher has signed it like this and must publish it again"
    } else if cause.is::<NoAnchor>() {
        "put the publisher's archive-master keyring there, or set `archive_master` of `[gpg]`"
    } else {
        return None;
    };
    Some(text.to_owned())
}

//! The published tree as anyone may read it: documents verified before they are parsed.
//!
//! Needs no private key and no lock, so that an operator can look while an import runs.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use system_image_formats::channels::{Channels, DeviceEntry};
use system_image_formats::index::{Global, Image, Index};
use system_image_formats::json::MAX_LEN;
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::side::SideFile;
use system_image_store::{Directory, Store};
use system_image_trust::{Certificates, Keyring, Now, Signers, Verified};

use crate::config::Config;
use crate::keys;
use crate::root::Root;

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// Largest signature file that is read, in bytes.
pub const MAX_SIGNATURE: u64 = 64 << 10;

/// Largest keyring archive that is read, in bytes.
const MAX_KEYRING: u64 = 4 << 20;

/// Largest side file that is read, in bytes: a build record names each package.
const MAX_SIDE: u64 = 16 << 20;

/// The tree of a server that was set up, for reading.
pub struct Published {
    root: Root,
    config: Config,
    store: Arc<dyn Store>,
    trusted: Certificates,
    now: i64,
}

impl Published {
    /// Opens the tree of the server in `root`; `now` is the clock, in Unix seconds.
    pub fn open(root: &Root, now: i64) -> anyhow::Result<Self> {
        let config = configuration(root)?;
        let root = Root::configured(root.directory(), &config);
        let store = Arc::new(Directory::open(root.www())?);
        Self::with(root, config, store, now)
    }

    /// With everything given; the keyring is read again.
    pub(crate) fn with(
        root: Root,
        config: Config,
        store: Arc<dyn Store>,
        now: i64,
    ) -> anyhow::Result<Self> {
        let keyring = keys::required(&root, KeyringType::ImageSigning)?;
        Ok(Self {
            store,
            trusted: keyring.certificates,
            root,
            config,
            now,
        })
    }

    /// Where the server's files are.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The server's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The files of the tree.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// The same store, for another view of the tree.
    pub(crate) fn shared_store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// The clock of this run, in Unix seconds.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Who may have signed what the tree holds, device keyrings left out.
    pub fn signers(&self) -> Signers<'_> {
        Signers::new([&self.trusted], Now::from_clock(self.now))
    }

    /// Who may have signed what belongs to a device that has this keyring.
    pub fn signers_with<'a>(&'a self, own: &'a Keyring) -> Signers<'a> {
        let keyrings = [&self.trusted, &own.certificates];
        Signers::new(keyrings, Now::from_clock(self.now))
    }

    /// The tree's channels; none when there is no `channels.json`, or an empty one.
    pub fn channels(&self) -> anyhow::Result<Channels> {
        match self.document(&channels_path())? {
            Some(bytes) if !bytes.is_empty() => {
                Channels::parse(&bytes).context("`channels.json` cannot be used")
            }
            _ => Ok(Channels::default()),
        }
    }

    /// The index of a device; `None` when there is none.
    pub fn index(&self, entry: &DeviceEntry) -> anyhow::Result<Option<Index>> {
        let Some(bytes) = self.index_document(entry)? else {
            return Ok(None);
        };
        let index = Index::parse(&bytes);
        Ok(Some(index.with_context(|| unusable(entry))?))
    }

    /// Gives the images of a device's index to `visit` one after another, in their order; `None`
    /// when there is no index. For those who look at all indexes of a tree.
    pub fn visit_images(
        &self,
        entry: &DeviceEntry,
        visit: impl FnMut(Image),
    ) -> anyhow::Result<Option<Global>> {
        let Some(bytes) = self.index_document(entry)? else {
            return Ok(None);
        };
        let global = Index::visit(&bytes, visit);
        Ok(Some(global.with_context(|| unusable(entry))?))
    }

    /// The bytes of a device's index, signed by a key that may.
    fn index_document(&self, entry: &DeviceEntry) -> anyhow::Result<Option<Verified<Vec<u8>>>> {
        let Some((bytes, signature)) = self.signed(&entry.index, MAX_LEN as u64)? else {
            return Ok(None);
        };
        let verified = match self.device_keyring(entry)? {
            None => self.signers().verify(bytes, &signature),
            Some(own) => self.signers_with(&own).verify(bytes, &signature),
        };
        Ok(Some(verified.with_context(|| {
            format!("`{}` cannot be trusted", entry.index)
        })?))
    }

    /// A device's own keyring, if it has one.
    pub fn device_keyring(&self, entry: &DeviceEntry) -> anyhow::Result<Option<Keyring>> {
        let Some(paths) = &entry.keyring else {
            return Ok(None);
        };
        let read = |path, max| -> anyhow::Result<Vec<u8>> {
            let found = self.store.read(path, max)?;
            found.ok_or_else(|| anyhow!("`{path}` is missing in the tree"))
        };
        let archive = read(&paths.path, MAX_KEYRING)?;
        let signature = read(&paths.signature, MAX_SIGNATURE)?;
        let archive = self
            .signers()
            .verify(archive, &signature)
            .with_context(|| format!("`{}` cannot be trusted", paths.path))?;
        let keyring = Keyring::open(&archive);
        Ok(Some(keyring.with_context(|| {
            format!("`{}` cannot be used", paths.path)
        })?))
    }

    /// The side file of a file of the pool, if it has one.
    pub fn side(&self, path: &TreePath) -> anyhow::Result<Option<SideFile>> {
        let place = side_path(path)?;
        let Some((bytes, signature)) = self.signed(&place, MAX_SIDE)? else {
            return Ok(None);
        };
        let bytes = self.signers().verify(bytes, &signature);
        let bytes = bytes.with_context(|| format!("`{place}` cannot be trusted"))?;
        let side = SideFile::parse(&bytes);
        Ok(Some(
            side.with_context(|| format!("`{place}` cannot be used"))?,
        ))
    }

    /// The channel of this name.
    pub fn channel<'a>(
        &self,
        channels: &'a Channels,
        name: &ChannelName,
    ) -> Result<&'a system_image_formats::channels::Channel, UnknownChannel> {
        channels
            .get(name)
            .ok_or_else(|| UnknownChannel::among(name, channels))
    }

    /// A document whose signature was checked; `None` when there is none.
    pub(crate) fn document(&self, path: &TreePath) -> anyhow::Result<Option<Vec<u8>>> {
        let Some((bytes, signature)) = self.signed(path, MAX_LEN as u64)? else {
            return Ok(None);
        };
        let verified = self.signers().verify(bytes, &signature);
        let verified = verified.with_context(|| format!("`{path}` cannot be trusted"))?;
        Ok(Some(verified.into_inner()))
    }

    /// A file and its signature, neither of them checked.
    fn signed(&self, path: &TreePath, max: u64) -> anyhow::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let Some(bytes) = self.store.read(path, max)? else {
            return Ok(None);
        };
        let signature = self.store.read(&path.with_suffix(".asc")?, MAX_SIGNATURE)?;
        let signature = signature.ok_or_else(|| anyhow!("`{path}` has no signature"))?;
        Ok(Some((bytes, signature)))
    }
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// The configuration of a server that was set up.
pub fn configuration(root: &Root) -> anyhow::Result<Config> {
    let loaded = Config::load(root.directory());
    let config = loaded.context("the configuration cannot be used")?;
    Ok(config.ok_or_else(|| NotSetUp {
        directory: root.directory().to_string(),
    })?)
}

fn unusable(entry: &DeviceEntry) -> String {
    format!("`{}` cannot be used", entry.index)
}

/// Where the channels are.
pub fn channels_path() -> TreePath {
    "/channels.json".parse().expect("it is a path")
}

/// The place of the side file of a payload or version file.
pub fn side_path(path: &TreePath) -> anyhow::Result<TreePath> {
    let name = path.as_str();
    let stem = name
        .strip_suffix(".tar.xz")
        .or_else(|| name.strip_suffix(".patch").and(Some(name)))
        .with_context(|| format!("`{path}` is neither named `.tar.xz` nor `.patch`"))?;
    Ok(format!("{stem}.json").parse()?)
}

/// The device of a channel.
pub fn device_of<'a>(
    channels: &'a Channels,
    channel: &ChannelName,
    device: &DeviceName,
) -> anyhow::Result<&'a DeviceEntry> {
    let found = channels
        .get(channel)
        .ok_or_else(|| UnknownChannel::among(channel, channels))?;
    let entry = found.devices.get(device);
    Ok(entry.ok_or_else(|| UnknownDevice {
        channel: channel.clone(),
        device: device.clone(),
        known: found.devices.keys().map(ToString::to_string).collect(),
    })?)
}

/// The directory holds no server.
#[derive(Debug, thiserror::Error)]
#[error("`{directory}` is not a server's directory: it has no `etc/config`")]
pub struct NotSetUp {
    directory: String,
}

/// No such channel.
#[derive(Debug, thiserror::Error)]
#[error("there is no channel `{channel}`")]
pub struct UnknownChannel {
    channel: ChannelName,
    /// Those that there are.
    pub known: Vec<String>,
}

impl UnknownChannel {
    /// For a channel that is not among `channels`.
    pub fn among(channel: &ChannelName, channels: &Channels) -> Self {
        Self {
            channel: channel.clone(),
            known: channels.0.keys().map(ToString::to_string).collect(),
        }
    }
}

/// No such device in the channel.
#[derive(Debug, thiserror::Error)]
#[error("channel `{channel}` has no device `{device}`")]
pub struct UnknownDevice {
    channel: ChannelName,
    device: DeviceName,
    /// Those that there are.
    pub known: Vec<String>,
}

//! The published tree as its server sees it: verified documents in, signed documents out.

use anyhow::{Context, anyhow, bail};
use system_image_formats::channels::{Channels, DeviceEntry};
use system_image_formats::index::Index;
use system_image_formats::json::MAX_LEN;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::time::GeneratedAt;
use system_image_store::{Directory, Store};

use crate::config::Config;
use crate::keys::ImageSigner;
use crate::lock::Lock;
use crate::root::Root;

/// Largest signature file that is read, in bytes.
const MAX_SIGNATURE: u64 = 64 << 10;

/// A tree that this process may change.
#[derive(Debug)]
pub struct Tree {
    root: Root,
    config: Config,
    store: Directory,
    signer: ImageSigner,
    _lock: Lock,
}

impl Tree {
    /// Opens the tree of a server that was set up, and locks it.
    pub fn open(root: Root, now: i64) -> anyhow::Result<Self> {
        let place = root.config();
        let config = match std::fs::read(&place) {
            Ok(bytes) => Config::parse(&bytes).with_context(|| format!("cannot use `{place}`"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(anyhow!(NotSetUp {
                    directory: root.directory().to_string()
                }));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read `{place}`")),
        };
        let lock = Lock::take(&root.state())?;
        let store = Directory::open(root.www())?;
        let signer = ImageSigner::load(&root, now)?;
        Ok(Self {
            root,
            config,
            store,
            signer,
            _lock: lock,
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
        &self.store
    }

    /// What signs them.
    pub fn signer(&self) -> &ImageSigner {
        &self.signer
    }

    /// The tree's channels; none when there is no `channels.json`, or an empty one.
    pub fn channels(&self) -> anyhow::Result<Channels> {
        let bytes = self.document(&channels_path())?;
        match bytes {
            Some(bytes) if !bytes.is_empty() => {
                Channels::parse(&bytes).context("`channels.json` cannot be used")
            }
            _ => Ok(Channels::default()),
        }
    }

    /// Publishes the channels, if they changed or were never published.
    pub fn save_channels(&self, channels: &Channels) -> anyhow::Result<()> {
        self.save(&channels_path(), &channels.to_bytes())
    }

    /// The index of a device.
    pub fn index(&self, entry: &DeviceEntry) -> anyhow::Result<Option<Index>> {
        self.document(&entry.index)?
            .map(|bytes| {
                Index::parse(&bytes).with_context(|| format!("`{}` cannot be used", entry.index))
            })
            .transpose()
    }

    /// Publishes an index, if something else than its time changed. Every file that it names must
    /// be in the store.
    pub fn save_index(&self, entry: &DeviceEntry, mut index: Index) -> anyhow::Result<()> {
        if let Some(published) = self.index(entry)? {
            index.global.generated_at = published.global.generated_at;
            if index == published {
                return Ok(());
            }
        }
        index.global.generated_at = GeneratedAt::from_unix(self.signer.now());
        self.save(&entry.index, &index.to_bytes())
    }

    /// The device of a channel that images can be published for.
    pub fn device(
        &self,
        channel: &ChannelName,
        device: &DeviceName,
    ) -> anyhow::Result<DeviceEntry> {
        let channels = self.channels()?;
        let found = channels.get(channel).ok_or_else(|| UnknownChannel {
            channel: channel.clone(),
            known: channels.0.keys().map(ToString::to_string).collect(),
        })?;
        let entry = found.devices.get(device).ok_or_else(|| UnknownDevice {
            channel: channel.clone(),
            device: device.clone(),
            known: found.devices.keys().map(ToString::to_string).collect(),
        })?;
        if let Some(target) = &found.alias.as_ref().filter(|target| *target != channel) {
            bail!("channel `{channel}` is an alias of `{target}`, publish there");
        }
        if let Some(target) = found.redirect.as_ref().or(entry.redirect.as_ref()) {
            bail!("`{device}` in channel `{channel}` is redirected to `{target}`, publish there");
        }
        Ok(entry.clone())
    }

    /// A document whose signature was checked; `None` when there is none.
    fn document(&self, path: &TreePath) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(bytes) = self.store.read(path, MAX_LEN as u64)? else {
            return Ok(None);
        };
        let signature = self.store.read(&path.with_suffix(".asc")?, MAX_SIGNATURE)?;
        let signature = signature.ok_or_else(|| anyhow!("`{path}` has no signature"))?;
        let verified = self.signer.signers().verify(bytes, &signature);
        Ok(Some(
            verified
                .with_context(|| format!("`{path}` cannot be trusted"))?
                .into_inner(),
        ))
    }

    fn save(&self, path: &TreePath, bytes: &[u8]) -> anyhow::Result<()> {
        if self.document(path)?.as_deref() != Some(bytes) {
            let signature = self.signer.sign(bytes)?;
            self.store.replace(path, bytes, signature.as_bytes())?;
        }
        Ok(())
    }
}

fn channels_path() -> TreePath {
    "/channels.json".parse().expect("it is a path")
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
    /// For a channel that is not among `known`.
    pub fn new(channel: ChannelName, known: Vec<String>) -> Self {
        Self { channel, known }
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

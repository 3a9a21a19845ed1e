//! `server device`: the devices of a channel.

use anyhow::bail;
use clap::Subcommand;
use system_image_formats::channels::DeviceEntry;
use system_image_formats::index::Index;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::time::GeneratedAt;

use crate::tree::{Tree, UnknownChannel};

/// Manage the devices of a channel
#[derive(Debug, Subcommand)]
pub(super) enum Device {
    /// Add a device without images
    Add {
        /// The channel
        channel: ChannelName,
        /// The device's name, e.g. `tango`
        device: DeviceName,
    },
}

impl Device {
    pub(super) fn run(self, tree: &Tree) -> anyhow::Result<()> {
        let Self::Add { channel, device } = self;
        let mut channels = tree.channels()?;
        let known = channels.0.keys().map(ToString::to_string).collect();
        let Some(found) = channels.0.get_mut(&channel) else {
            return Err(UnknownChannel::new(channel, known).into());
        };
        if let Some(target) = found.alias.as_ref().or(found.redirect.as_ref()) {
            bail!("channel `{channel}` follows `{target}`, add the device there");
        }
        if found.devices.contains_key(&device) {
            bail!("channel `{channel}` has a device `{device}` already");
        }
        if device.as_str().starts_with('.') {
            bail!("`{device}` begins with a dot, web servers hide such names");
        }
        let entry = DeviceEntry {
            index: format!("/{channel}/{device}/index.json").parse()?,
            keyring: None,
            redirect: None,
            extra: serde_json::Map::new(),
        };
        // The index first: no channel names one that is not there. A valid one is kept.
        if tree.index(&entry)?.is_none() {
            tree.save_index(
                &entry,
                Index::empty(GeneratedAt::from_unix(tree.signer().now())),
            )?;
        }
        found.devices.insert(device.clone(), entry);
        tree.save_channels(&channels)?;
        println!("channel `{channel}` has device `{device}`");
        Ok(())
    }
}

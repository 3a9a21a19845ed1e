//! `server channel`: the channels of the tree.

use anyhow::bail;
use clap::Subcommand;
use system_image_formats::channels;
use system_image_formats::name::ChannelName;

use crate::tree::Tree;

/// Manage channels
#[derive(Debug, Subcommand)]
pub(super) enum Channel {
    /// Create a channel without devices
    Create {
        /// Its name, e.g. `24.04/stable`
        channel: ChannelName,
    },
}

impl Channel {
    pub(super) fn run(self, tree: &Tree) -> anyhow::Result<()> {
        let Self::Create { channel } = self;
        let mut channels = tree.channels()?;
        if matches!(
            channel.first_part(),
            "gpg" | "pool" | "channels.json" | "channels.json.asc"
        ) {
            bail!("`{}` is a name of the tree itself", channel.first_part());
        }
        if channel
            .as_str()
            .split('/')
            .any(|part| part.starts_with('.'))
        {
            bail!("a part of `{channel}` begins with a dot, web servers hide such names");
        }
        if channels.0.contains_key(&channel) {
            bail!("there is a channel `{channel}` already");
        }
        channels
            .0
            .insert(channel.clone(), channels::Channel::default());
        tree.save_channels(&channels)?;
        println!("channel `{channel}` is there");
        Ok(())
    }
}

//! `server tag`: the newest image once more, with a name for people.

use clap::Args;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;

use super::Context;
use super::publish::tell;
use crate::tag::tag;

/// Publish the newest image again, under the next number and with a tag
#[derive(Debug, Args)]
pub(super) struct Tag {
    /// The channel
    channel: ChannelName,
    /// The device
    device: DeviceName,
    /// The newest image
    version: ImageVersion,
    /// Its tag, e.g. `OTA-13`
    #[arg(value_name = "TAG")]
    text: String,
}

impl Tag {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let made = context
            .change(|tree| tag(tree, &self.channel, &self.device, self.version, &self.text))?;
        tell(&made);
        println!("{}", made.version);
        Ok(())
    }
}

//! `server withdraw`: a bad image is taken back.

use clap::Args;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;

use super::Context;
use super::publish::tell;
use crate::withdraw::withdraw;

/// Take a bad image back: nobody gets it any more, and devices that have it are led back
#[derive(Debug, Args)]
pub(super) struct Withdraw {
    /// The channel
    channel: ChannelName,
    /// The device
    device: DeviceName,
    /// The bad image
    version: ImageVersion,
    /// The image to go back to; the newest one before it by default
    #[arg(long, value_name = "N")]
    to: Option<ImageVersion>,
}

impl Withdraw {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let made = context
            .change(|tree| withdraw(tree, &self.channel, &self.device, self.version, self.to))?;
        match made {
            Some(made) => {
                tell(&made);
                context.say(&format!(
                    "version {} is withdrawn, {} leads back",
                    self.version, made.version
                ));
            }
            None => println!("version {} is withdrawn", self.version),
        }
        Ok(())
    }
}

//! `server phase`: rollouts of newest images.

use anyhow::ensure;
use clap::{Args, Subcommand};
use serde::Serialize;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::{ImageVersion, Percentage};

use super::Context;
use crate::history::History;
use crate::phase::{Step, newest, phase};

/// Roll newest images out in steps
#[derive(Debug, Subcommand)]
pub(super) enum Phase {
    /// Offer the newest image to a share of the devices
    Set {
        #[command(flatten)]
        image: One,
        /// The share, 0 to 100
        percentage: Percentage,
    },
    /// Offer newest images that are not at 100 % yet to more devices
    Step {
        /// How much more, in percent
        #[arg(default_value = "10")]
        by: Percentage,
        /// Only in this channel. Can be given several times
        #[arg(long, value_name = "CHANNEL")]
        channel: Vec<ChannelName>,
        /// Only for this device. Can be given several times
        #[arg(long, value_name = "DEVICE")]
        device: Vec<DeviceName>,
        /// Only images with this tag
        #[arg(long)]
        tag: Option<String>,
    },
    /// Offer the newest image to nobody, for now; `step` leaves it alone
    Pause(One),
    /// Offer a paused image to as many as before
    Resume(One),
    /// Show the rollouts that are under way
    List,
    /// Show who changed rollouts, when and how
    History {
        /// Only of this channel
        channel: Option<ChannelName>,
    },
}

/// The newest image of a device.
#[derive(Debug, Args)]
pub(super) struct One {
    /// The channel
    channel: ChannelName,
    /// The device
    device: DeviceName,
    /// Fail unless this is the newest image
    #[arg(long, value_name = "N")]
    version: Option<ImageVersion>,
}

/// A rollout that is under way.
#[derive(Debug, Serialize)]
struct Rollout {
    channel: String,
    device: String,
    version: ImageVersion,
    tag: Option<String>,
    percentage: Percentage,
    paused: bool,
}

impl Phase {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Set { image, percentage } => one(context, &image, Step::Set(percentage)),
            Self::Pause(image) => one(context, &image, Step::Pause),
            Self::Resume(image) => one(context, &image, Step::Resume),
            Self::List => {
                let rollouts = rollouts(&context.published()?)?;
                context.print(&rollouts, |rollouts| {
                    for rollout in rollouts {
                        let paused = if rollout.paused { ", paused" } else { "" };
                        println!(
                            "{} {}: version {} at {} %{paused}",
                            rollout.channel, rollout.device, rollout.version, rollout.percentage
                        );
                    }
                })
            }
            Self::Step {
                by,
                channel,
                device,
                tag,
            } => context.change(|tree| {
                let among = |wanted: &[String], name: &str| {
                    wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)
                };
                let channels: Vec<_> = channel.iter().map(ToString::to_string).collect();
                let devices: Vec<_> = device.iter().map(ToString::to_string).collect();
                let mut count = 0;
                for rollout in rollouts(tree)? {
                    let fits = among(&channels, &rollout.channel)
                        && among(&devices, &rollout.device)
                        && (tag.is_none() || tag == rollout.tag)
                        && !rollout.paused;
                    if fits {
                        let image = One {
                            channel: rollout.channel.parse()?,
                            device: rollout.device.parse()?,
                            version: Some(rollout.version),
                        };
                        tell(tree, &image, Step::By(by))?;
                        count += 1;
                    }
                }
                ensure!(
                    count > 0,
                    "no rollout fits; `phase list` shows those under way"
                );
                Ok(())
            }),
            Self::History { channel } => {
                let root = context.published()?.root().clone();
                let mut entries = History::of(&root).read()?;
                let wanted = channel.map(|channel| channel.to_string());
                entries.retain(|entry| {
                    let phases = entry.event.action.starts_with("phase")
                        || entry.event.more.contains_key("phased");
                    phases && (wanted.is_none() || entry.event.channel == wanted)
                });
                super::history::print(context, &entries)
            }
        }
    }
}

fn one(context: &Context, image: &One, step: Step) -> anyhow::Result<()> {
    context.change(|tree| tell(tree, image, step))
}

fn tell(tree: &crate::tree::Tree, image: &One, step: Step) -> anyhow::Result<()> {
    let phased = phase(tree, &image.channel, &image.device, image.version, step)?;
    println!(
        "{} {}: version {} from {} % to {} %",
        image.channel, image.device, phased.version, phased.from, phased.to
    );
    Ok(())
}

/// The newest images that are not offered to everyone, those of aliases and redirects left out.
fn rollouts(tree: &crate::published::Published) -> anyhow::Result<Vec<Rollout>> {
    let mut rollouts = Vec::new();
    for (name, channel) in &tree.channels()?.0 {
        if channel.followed(name).is_some() {
            continue;
        }
        for (device, entry) in &channel.devices {
            if entry.redirect.is_some() {
                continue;
            }
            let Some(index) = tree.index(entry)? else {
                continue;
            };
            if let Some((image, paused)) = newest(&index)
                && image.phased != Percentage::ALL
            {
                rollouts.push(Rollout {
                    channel: name.to_string(),
                    device: device.to_string(),
                    version: image.version,
                    tag: image.version_detail.get("tag").map(str::to_owned),
                    percentage: image.phased,
                    paused,
                });
            }
        }
    }
    Ok(rollouts)
}

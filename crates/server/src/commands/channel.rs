//! `server channel`: the channels of the tree.

use clap::Subcommand;
use serde::Serialize;
use system_image_formats::name::ChannelName;

use super::Context;
use crate::channel;

/// Manage channels
#[derive(Debug, Subcommand)]
pub(super) enum Channel {
    /// Create a channel without devices
    Create {
        /// Its name, e.g. `24.04/stable`
        channel: ChannelName,
    },
    /// List the channels
    List,
    /// Remove a channel; its files go when no reader can hold an old list any more
    Remove {
        /// The channel
        channel: ChannelName,
    },
    /// Give a channel another name; what follows it follows it still
    Rename {
        /// The channel
        channel: ChannelName,
        /// Its new name
        name: ChannelName,
    },
    /// Create a channel that follows another one, or make an alias follow another
    Alias {
        /// The alias
        channel: ChannelName,
        /// The channel to follow
        target: ChannelName,
        /// The alias exists and follows another channel
        #[arg(long)]
        change: bool,
    },
    /// Create a hidden channel that stands for another one
    Redirect {
        /// The new name
        channel: ChannelName,
        /// The channel it stands for
        target: ChannelName,
    },
    /// Leave a channel out of the lists that clients show
    Hide {
        /// The channel
        channel: ChannelName,
    },
    /// Put a hidden channel back into the lists
    Show {
        /// The channel
        channel: ChannelName,
    },
}

/// A channel in a list.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    devices: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect: Option<String>,
    hidden: bool,
    /// Filled by the importer.
    auto: bool,
}

impl Channel {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::List => return list(context),
            Self::Create { channel } => {
                context.change(|tree| channel::create(tree, &channel))?;
                context.say(&format!("channel `{channel}` is there"));
            }
            Self::Remove { channel } => {
                context.change(|tree| channel::remove(tree, &channel))?;
                context.say(&format!("channel `{channel}` is gone"));
            }
            Self::Rename { channel, name } => {
                context.change(|tree| channel::rename(tree, &channel, &name))?;
                context.say(&format!("channel `{channel}` is called `{name}` now"));
            }
            Self::Alias {
                channel,
                target,
                change,
            } => {
                context.change(|tree| {
                    if change {
                        channel::retarget(tree, &channel, &target)
                    } else {
                        channel::alias(tree, &channel, &target)
                    }
                })?;
                context.say(&format!("channel `{channel}` follows `{target}`"));
            }
            Self::Redirect { channel, target } => {
                context.change(|tree| channel::redirect(tree, &channel, &target))?;
                context.say(&format!("channel `{channel}` stands for `{target}`"));
            }
            Self::Hide { channel } => {
                context.change(|tree| channel::set_hidden(tree, &channel, true))?;
                context.say(&format!("channel `{channel}` is hidden"));
            }
            Self::Show { channel } => {
                context.change(|tree| channel::set_hidden(tree, &channel, false))?;
                context.say(&format!("channel `{channel}` is listed"));
            }
        }
        Ok(())
    }
}

fn list(context: &Context) -> anyhow::Result<()> {
    let tree = context.published()?;
    let channels = tree.channels()?;
    let listed: Vec<_> = channels
        .0
        .iter()
        .map(|(name, channel)| Listed {
            name: name.to_string(),
            devices: channel.devices.len(),
            alias: channel.alias.as_ref().map(ToString::to_string),
            redirect: channel.redirect.as_ref().map(ToString::to_string),
            hidden: channel.hidden,
            auto: tree.config().channel(name).auto,
        })
        .collect();
    context.print(&listed, |listed| {
        for channel in listed {
            let mut notes = vec![format!("{} devices", channel.devices)];
            notes.extend(channel.alias.as_ref().map(|to| format!("follows {to}")));
            notes.extend(
                channel
                    .redirect
                    .as_ref()
                    .map(|to| format!("stands for {to}")),
            );
            notes.extend(channel.hidden.then(|| "hidden".to_owned()));
            notes.extend(channel.auto.then(|| "imported".to_owned()));
            println!("{}: {}", channel.name, notes.join(", "));
        }
    })
}

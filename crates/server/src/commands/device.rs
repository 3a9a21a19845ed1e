//! `server device`: the devices of a channel.

use anyhow::Context as _;
use camino::Utf8PathBuf;
use clap::Subcommand;
use serde::Serialize;
use system_image_formats::index::Index;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::version::ImageVersion;

use super::Context;
use crate::{bases, device};

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
    /// List the devices of a channel, or of all
    List {
        /// The channel
        channel: Option<ChannelName>,
    },
    /// Remove a device; its files go when no reader can hold an old list any more
    Remove {
        /// The channel
        channel: ChannelName,
        /// The device
        device: DeviceName,
    },
    /// Let a device of a channel point to the same device of another one
    Redirect {
        /// The channel, which does not have the device yet
        channel: ChannelName,
        /// The device
        device: DeviceName,
        /// The channel that has it
        target: ChannelName,
    },
    /// Attach a device-signing keyring, or take it away
    Keyring {
        /// The channel
        channel: ChannelName,
        /// The device
        device: DeviceName,
        /// The keyring archive on this machine; its signature is the same name with `.asc`
        #[arg(required_unless_present_any = ["path", "unset"])]
        archive: Option<Utf8PathBuf>,
        /// Use an archive that is in the tree already
        #[arg(long, value_name = "PATH", conflicts_with = "archive")]
        path: Option<TreePath>,
        /// Take the keyring away
        #[arg(long, conflicts_with_all = ["archive", "path"])]
        unset: bool,
    },
}

/// A device in a list.
#[derive(Debug, Serialize)]
struct Listed {
    channel: String,
    device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect: Option<String>,
    keyring: bool,
    /// The newest image's number.
    newest: Option<ImageVersion>,
    /// How many full images there are.
    images: usize,
}

impl Device {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::List { channel } => return list(context, channel.as_ref()),
            Self::Add { channel, device } => {
                let kept = context.change(|tree| device::add(tree, &channel, &device))?;
                context.say(&format!("channel `{channel}` has device `{device}`"));
                if kept > 0 {
                    context.say(&format!("it has the {kept} images that it had before"));
                }
            }
            Self::Remove { channel, device } => {
                context.change(|tree| device::remove(tree, &channel, &device))?;
                context.say(&format!(
                    "channel `{channel}` has no device `{device}` any more"
                ));
            }
            Self::Redirect {
                channel,
                device,
                target,
            } => {
                context.change(|tree| device::redirect(tree, &channel, &device, &target))?;
                context.say(&format!("`{device}` in `{channel}` points to `{target}`"));
            }
            Self::Keyring {
                channel,
                device,
                archive,
                path,
                unset: _,
            } => {
                context.change(|tree| match (&archive, &path) {
                    (Some(archive), _) => {
                        let read = |place: &Utf8PathBuf| {
                            std::fs::read(place).with_context(|| format!("cannot read `{place}`"))
                        };
                        let signature = read(&format!("{archive}.asc").into())?;
                        device::set_keyring(tree, &channel, &device, &read(archive)?, &signature)
                    }
                    (None, Some(path)) => device::use_keyring(tree, &channel, &device, path),
                    (None, None) => device::unset_keyring(tree, &channel, &device),
                })?;
                let has = if archive.is_some() || path.is_some() {
                    "a"
                } else {
                    "no"
                };
                context.say(&format!(
                    "`{device}` in `{channel}` has {has} keyring of its own"
                ));
            }
        }
        Ok(())
    }
}

fn list(context: &Context, only: Option<&ChannelName>) -> anyhow::Result<()> {
    let tree = context.published()?;
    let channels = tree.channels()?;
    if let Some(only) = only {
        tree.channel(&channels, only)?;
    }
    let mut listed = Vec::new();
    for (name, channel) in &channels.0 {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        for (device, entry) in &channel.devices {
            let index = tree.index(entry)?;
            listed.push(Listed {
                channel: name.to_string(),
                device: device.to_string(),
                redirect: entry.redirect.as_ref().map(ToString::to_string),
                keyring: entry.keyring.is_some(),
                newest: index.as_ref().and_then(Index::newest),
                images: index.map_or(0, |index| bases::fulls(&index).len()),
            });
        }
    }
    context.print(&listed, |listed| {
        for device in listed {
            let mut notes = vec![match device.newest {
                Some(newest) => format!("image {newest}"),
                None => "no image".to_owned(),
            }];
            notes.extend(
                device
                    .redirect
                    .as_ref()
                    .map(|to| format!("redirected to {to}")),
            );
            notes.extend(device.keyring.then(|| "own keyring".to_owned()));
            println!("{} {}: {}", device.channel, device.device, notes.join(", "));
        }
    })
}

//! `server image`: the images of a device.

use anyhow::{Context as _, ensure};
use clap::Subcommand;
use serde::Serialize;
use system_image_formats::index::Image as Entry;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;
use system_image_report::Size;

use super::Context;
use crate::follow::follow;
use crate::history::Event;
use crate::published::{Published, device_of};

/// Look at images, or remove them
#[derive(Debug, Subcommand)]
pub(super) enum Image {
    /// List the images of a device
    List {
        /// The channel
        channel: ChannelName,
        /// The device
        device: DeviceName,
    },
    /// Show one version: its files and what they are made of
    Show {
        /// The channel
        channel: ChannelName,
        /// The device
        device: DeviceName,
        /// The version
        version: ImageVersion,
    },
    /// Take a version, or one of its deltas, out of the index
    Remove {
        /// The channel
        channel: ChannelName,
        /// The device
        device: DeviceName,
        /// The version
        version: ImageVersion,
        /// Only the delta from this version
        #[arg(long, value_name = "N")]
        base: Option<ImageVersion>,
        /// Even if it is the newest: devices that have it get no image until a higher number
        #[arg(long)]
        force: bool,
    },
    /// Tell what changes between two versions: files, and packages where they are recorded
    Diff {
        /// The channel
        channel: ChannelName,
        /// The device
        device: DeviceName,
        /// The older version
        from: ImageVersion,
        /// The newer version
        to: ImageVersion,
    },
}

/// An image in a list.
#[derive(Debug, Serialize)]
struct Listed {
    version: ImageVersion,
    base: Option<ImageVersion>,
    percentage: u8,
    bytes: u64,
    files: usize,
    description: Option<String>,
}

/// A file of an image.
#[derive(Debug, Serialize)]
struct ShownFile {
    path: String,
    checksum: String,
    bytes: u64,
    /// What the side file says.
    side: Option<serde_json::Value>,
}

impl Image {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::List { channel, device } => {
                let images = images(&context.published()?, &channel, &device)?;
                let listed: Vec<_> = images.iter().map(listed).collect();
                context.print(&listed, |listed| {
                    for image in listed {
                        let kind = match image.base {
                            None => "full".to_owned(),
                            Some(base) => format!("delta from {base}"),
                        };
                        let share = match image.percentage {
                            100 => String::new(),
                            share => format!(", {share} %"),
                        };
                        println!("{}: {kind}, {}{share}", image.version, Size(image.bytes));
                    }
                })
            }
            Self::Show {
                channel,
                device,
                version,
            } => {
                let tree = context.published()?;
                let image = full(&tree, &channel, &device, version)?;
                let files = shown(&tree, &image)?;
                context.print(&files, |files| {
                    println!("version {version}: {}", image.version_detail);
                    for file in files {
                        println!("  {} ({})", file.path, Size(file.bytes));
                    }
                })
            }
            Self::Remove {
                channel,
                device,
                version,
                base,
                force,
            } => {
                let count = context.change(|tree| {
                    let entry = tree.device(&channel, &device)?;
                    let mut index = crate::image::index_of(tree, &entry)?;
                    let is_newest = index.newest() == Some(version) && base.is_none();
                    ensure!(
                        !is_newest || force,
                        "{version} is the newest image: devices that have it would get nothing \
                         until a higher number; `withdraw` leads them back"
                    );
                    let before = index.images.len();
                    index.images.retain(|image| {
                        image.version != version
                            || base.is_some_and(|base| image.kind.base() != Some(base))
                    });
                    let count = before - index.images.len();
                    ensure!(count > 0, "there is no such image");
                    tree.save_index(&entry, index)?;
                    follow(tree, &channel)?;
                    let event = Event::new("image remove").channel(&channel).device(&device);
                    tree.record(&event.version(version));
                    Ok(count)
                })?;
                context.say(&format!("{count} images are gone from the index"));
                Ok(())
            }
            Self::Diff {
                channel,
                device,
                from,
                to,
            } => {
                let tree = context.published()?;
                let old = full(&tree, &channel, &device, from)?;
                let new = full(&tree, &channel, &device, to)?;
                let diff = crate::diff::diff(&tree, &old, &new)?;
                context.print(&diff, crate::diff::Diff::print)
            }
        }
    }
}

fn images(
    tree: &Published,
    channel: &ChannelName,
    device: &DeviceName,
) -> anyhow::Result<Vec<Entry>> {
    let channels = tree.channels()?;
    let entry = device_of(&channels, channel, device)?;
    Ok(tree
        .index(entry)?
        .map_or_else(Vec::new, |index| index.images))
}

fn full(
    tree: &Published,
    channel: &ChannelName,
    device: &DeviceName,
    version: ImageVersion,
) -> anyhow::Result<Entry> {
    let images = images(tree, channel, device)?;
    let found = images
        .into_iter()
        .find(|image| image.version == version && image.is_full());
    found.with_context(|| format!("there is no full image {version}"))
}

fn listed(image: &Entry) -> Listed {
    Listed {
        version: image.version,
        base: image.kind.base(),
        percentage: image.phased.get(),
        bytes: image.size(),
        files: image.files.len(),
        description: image.description.clone(),
    }
}

fn shown(tree: &Published, image: &Entry) -> anyhow::Result<Vec<ShownFile>> {
    let mut files: Vec<_> = image.files.iter().collect();
    files.sort_by_key(|file| file.order);
    let shown = files.into_iter().map(|file| {
        let side = tree.side(&file.path)?;
        Ok(ShownFile {
            path: file.path.to_string(),
            checksum: file.checksum.to_string(),
            bytes: file.size,
            side: side.map(serde_json::to_value).transpose()?,
        })
    });
    shown.collect()
}

//! `server status`: what a server offers.

use std::collections::BTreeSet;

use serde::Serialize;
use system_image_formats::version::ImageVersion;
use system_image_report::Size;

use super::Context;
use crate::bases::fulls;
use crate::phase;

/// What the server offers.
#[derive(Debug, Serialize)]
struct Offer {
    channels: usize,
    devices: usize,
    images: usize,
    /// Different files that indexes name.
    files: usize,
    /// Bytes of them.
    bytes: u64,
    timelines: Vec<Timeline>,
}

/// One device of one channel.
#[derive(Debug, Serialize)]
struct Timeline {
    channel: String,
    device: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    follows: Option<String>,
    newest: Option<ImageVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// The share of the devices that may have it.
    percentage: Option<u8>,
    paused: bool,
    fulls: usize,
    deltas: usize,
    /// When the index was written, in Unix seconds.
    generated: Option<i64>,
}

/// Prints it.
pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let tree = context.published()?;
    let channels = tree.channels()?;
    let mut offer = Offer {
        channels: channels.0.len(),
        devices: 0,
        images: 0,
        files: 0,
        bytes: 0,
        timelines: Vec::new(),
    };
    let mut files = BTreeSet::new();
    for (name, channel) in &channels.0 {
        for (device, entry) in &channel.devices {
            offer.devices += 1;
            let index = tree.index(entry)?;
            let follows = [&entry.redirect, &channel.redirect, &channel.alias];
            let mut timeline = Timeline {
                channel: name.to_string(),
                device: device.to_string(),
                follows: follows
                    .into_iter()
                    .flatten()
                    .next()
                    .map(ToString::to_string),
                newest: None,
                tag: None,
                percentage: None,
                paused: false,
                fulls: 0,
                deltas: 0,
                generated: None,
            };
            if let Some(index) = &index {
                timeline.fulls = fulls(index).len();
                timeline.deltas = index.images.len() - timeline.fulls;
                timeline.generated = Some(index.global.generated_at.unix());
                offer.images += index.images.len();
                if let Some((image, paused)) = phase::newest(index) {
                    timeline.newest = Some(image.version);
                    timeline.tag = image.version_detail.get("tag").map(str::to_owned);
                    timeline.percentage = Some(image.phased.get());
                    timeline.paused = paused;
                }
                for file in index.images.iter().flat_map(|image| &image.files) {
                    if files.insert(file.checksum) {
                        offer.files += 1;
                        offer.bytes += file.size;
                    }
                }
            }
            offer.timelines.push(timeline);
        }
    }
    context.print(&offer, |offer| {
        println!(
            "{} channels, {} devices, {} images, {} files with {}",
            offer.channels,
            offer.devices,
            offer.images,
            offer.files,
            Size(offer.bytes)
        );
        for line in &offer.timelines {
            let mut notes = vec![match line.newest {
                Some(newest) => format!("image {newest}"),
                None => "no image".to_owned(),
            }];
            notes.extend(line.tag.clone());
            if let Some(percentage) = line.percentage.filter(|share| *share != 100) {
                let paused = if line.paused { ", paused" } else { "" };
                notes.push(format!("{percentage} %{paused}"));
            }
            notes.push(format!("{} full, {} deltas", line.fulls, line.deltas));
            notes.extend(
                line.follows
                    .as_ref()
                    .map(|target| format!("follows {target}")),
            );
            println!("{} {}: {}", line.channel, line.device, notes.join(", "));
        }
    })
}

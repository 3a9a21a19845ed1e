//! `server status`: what a server offers.

use std::collections::HashSet;
use std::sync::Mutex;

use serde::Serialize;
use system_image_formats::channels::DeviceEntry;
use system_image_formats::checksum::Sha256;
use system_image_formats::version::ImageVersion;
use system_image_report::Size;

use super::Context;
use crate::phase;
use crate::published::Published;
use system_image_delta_build::parallel::on_all_cores;

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
#[derive(Debug, Default, Serialize)]
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
    let mut devices = Vec::new();
    for (name, channel) in &channels.0 {
        devices.extend(channel.devices.keys().map(|device| (name, channel, device)));
    }
    let files = Mutex::new(Files::default());
    let timelines = on_all_cores(&devices, |(name, channel, device)| {
        let follows = [
            &channel.devices[*device].redirect,
            &channel.redirect,
            &channel.alias,
        ];
        let timeline = Timeline {
            channel: name.to_string(),
            device: device.to_string(),
            follows: follows
                .into_iter()
                .flatten()
                .next()
                .map(ToString::to_string),
            ..Timeline::default()
        };
        timeline.of(&tree, &channel.devices[*device], &files)
    });
    let timelines = timelines.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let files = files.into_inner().expect("no worker panics");
    let offer = Offer {
        channels: channels.0.len(),
        devices: devices.len(),
        images: timelines.iter().map(|line| line.fulls + line.deltas).sum(),
        files: files.known.len(),
        bytes: files.bytes,
        timelines,
    };
    context.print(&offer, print)
}

/// Different files.
#[derive(Default)]
struct Files {
    known: HashSet<Sha256>,
    bytes: u64,
}

impl Timeline {
    /// What its index says, if there is one; its files are added to `files`.
    fn of(
        mut self,
        tree: &Published,
        entry: &DeviceEntry,
        files: &Mutex<Files>,
    ) -> anyhow::Result<Self> {
        let mut named = Vec::new();
        let global = tree.visit_images(entry, |image| {
            if image.is_full() {
                self.fulls += 1;
            } else {
                self.deltas += 1;
            }
            named.extend(image.files.iter().map(|file| (file.checksum, file.size)));
            // Of several images of the newest version, the first.
            if self.newest.is_none_or(|newest| newest < image.version) {
                self.newest = Some(image.version);
                self.tag = image.version_detail.get("tag").map(str::to_owned);
                self.percentage = Some(image.phased.get());
                self.paused = phase::is_paused(&image);
            }
        })?;
        self.generated = global.map(|global| global.generated_at.unix());
        let mut files = files.lock().expect("no worker panics");
        for (checksum, size) in named {
            if files.known.insert(checksum) {
                files.bytes += size;
            }
        }
        drop(files);
        Ok(self)
    }
}

/// Prints it for people.
fn print(offer: &Offer) {
    println!(
        "{} channels, {} devices, {} images, {} files with {}",
        offer.channels,
        offer.devices,
        offer.images,
        offer.files,
        Size(offer.bytes)
    );
    let mut lines = String::new();
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
        let follows = line.follows.as_ref();
        notes.extend(follows.map(|target| format!("follows {target}")));
        let notes = notes.join(", ");
        lines.push_str(&format!("{} {}: {notes}\n", line.channel, line.device));
    }
    print!("{lines}");
}

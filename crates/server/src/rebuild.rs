//! Emergency: `channels.json` is made anew from the indexes that are in the tree (server spec,
//! section 15, without what section 21, 34 says of it).
//!
//! Only indexes with a good signature count. An alias is told by its version files. What stood in
//! the channels alone is lost: redirects, hidden flags, channels without devices.

use std::io::Read;

use anyhow::Context;
use serde::Serialize;
use serde_json::Map;
use system_image_delta::{Limits, Reader};
use system_image_formats::channel_ini::ChannelIni;
use system_image_formats::channels::{Channels, DeviceEntry, SignedPath};
use system_image_formats::index::Index;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};

use crate::history::Event;
use crate::input::rewound;
use crate::part::is_version_file;
use crate::pool::unpack;
use crate::published::Published;
use crate::tree::Tree;

/// Largest `channel.ini` that is read, in bytes.
const MAX_INI: u64 = 1 << 20;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Channel and device of each index that counts.
    pub devices: Vec<(String, String)>,
    /// Channels that follow another one.
    pub aliases: Vec<(String, String)>,
    /// Devices that have a keyring of their own.
    pub keyrings: Vec<(String, String)>,
    /// Indexes that do not count, and why.
    pub left_out: Vec<(String, String)>,
}

/// Makes the channels anew and publishes them.
pub fn rebuild(tree: &Tree) -> anyhow::Result<Rebuilt> {
    let mut places = Vec::new();
    tree.store().each(&mut |path| {
        places.extend(path.strip_suffix("/index.json").map(str::to_owned));
    })?;
    places.sort();
    let mut rebuilt = Rebuilt::default();
    let mut channels = Channels::default();
    for place in places {
        match device(tree, &place) {
            Err(error) => rebuilt.left_out.push((place, format!("{error:#}"))),
            Ok(found) => {
                let named = (found.channel.to_string(), found.device.to_string());
                if found.entry.keyring.is_some() {
                    rebuilt.keyrings.push(named.clone());
                }
                let channel = channels.0.entry(found.channel).or_default();
                if let Some(target) = found.target {
                    rebuilt.aliases.push((named.0.clone(), target.to_string()));
                    channel.alias = Some(target);
                }
                channel.devices.insert(found.device, found.entry);
                rebuilt.devices.push(named);
            }
        }
    }
    rebuilt.aliases.dedup();
    tree.replace_channels(&channels)?;
    tree.record(&Event::new("rebuild").with("devices", rebuilt.devices.len()));
    Ok(rebuilt)
}

/// A device whose index was found.
struct Found {
    channel: ChannelName,
    device: DeviceName,
    entry: DeviceEntry,
    target: Option<ChannelName>,
}

fn device(tree: &Published, place: &str) -> anyhow::Result<Found> {
    let (channel, device) = place.rsplit_once('/').context("it is in no channel")?;
    let keyring: TreePath = format!("/{place}/device.tar.xz").parse()?;
    let mut entry = DeviceEntry {
        index: format!("/{place}/index.json").parse()?,
        keyring: Some(SignedPath {
            signature: keyring.with_suffix(".asc")?,
            path: keyring,
        }),
        redirect: None,
        extra: Map::new(),
    };
    if !matches!(tree.device_keyring(&entry), Ok(Some(_))) {
        entry.keyring = None;
    }
    let index = tree.index(&entry)?.context("it is gone")?;
    let channel: ChannelName = channel.parse()?;
    Ok(Found {
        target: target(tree, &index)?.filter(|target| *target != channel),
        device: device.parse()?,
        channel,
        entry,
    })
}

/// The channel that an alias's newest version file names.
fn target(tree: &Published, index: &Index) -> anyhow::Result<Option<ChannelName>> {
    let newest = index.newest().and_then(|newest| index.full(newest));
    let file = newest.and_then(|image| image.files.iter().find(|file| is_version_file(file)));
    let Some(file) = file else {
        return Ok(None);
    };
    let tar = unpack(tree, file)?;
    let mut reader = Reader::seeking(rewound(&tar)?, Limits::default());
    while let Some(header) = reader.next_header()? {
        if header.path.ends_with(b"channel.ini") {
            let mut text = Vec::new();
            (&mut reader).take(MAX_INI).read_to_end(&mut text)?;
            return Ok(ChannelIni::parse(&text)?.channel_target);
        }
    }
    Ok(None)
}

//! Which channels, devices and images of another server are copied.
//!
//! Documents are signed and so are copied as they are, or not at all: what is not wanted is still
//! named in `channels.json`, and in an index of which only the newest versions are wanted.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde::Serialize;
use system_image_formats::channels::{Channels, DeviceEntry};
use system_image_formats::index::{Image, Index};
use system_image_formats::name::{ChannelName, DeviceName};

use crate::published::UnknownChannel;

/// What is wanted of another server.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only these channels; all when empty.
    pub channels: Vec<ChannelName>,
    /// Only these devices; all when empty.
    pub devices: Vec<DeviceName>,
    /// Only the files of so many of the newest versions of each index.
    pub newest: Option<usize>,
}

/// What is named in the copy and is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Channels without any device that is in it.
    pub channels: usize,
    /// Devices of channels.
    pub devices: usize,
    /// Images whose index is in it.
    pub images: usize,
}

impl LeftOut {
    /// Whether everything that is named is there.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Wanted {
    /// The wanted devices, each index once, and what is left out.
    pub fn devices<'a>(
        &self,
        channels: &'a Channels,
    ) -> anyhow::Result<(Vec<(&'a DeviceName, &'a DeviceEntry)>, LeftOut)> {
        for name in &self.channels {
            if channels.get(name).is_none() {
                return Err(UnknownChannel::among(name, channels).into());
            }
        }
        let mut left_out = LeftOut::default();
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (name, channel) in &channels.0 {
            let here = self.channels.is_empty() || self.channels.contains(name);
            let wanted =
                |device| here && (self.devices.is_empty() || self.devices.contains(device));
            let count = channel.devices.keys().filter(|name| wanted(name)).count();
            left_out.devices += channel.devices.len() - count;
            left_out.channels += usize::from(count == 0 && (!here || !channel.devices.is_empty()));
            for (device, entry) in &channel.devices {
                // A redirect has the index of another one.
                if wanted(device) && seen.insert(&entry.index) {
                    found.push((device, entry));
                }
            }
        }
        for device in &self.devices {
            ensure!(
                found.iter().any(|(name, _)| *name == device),
                "none of these channels has a device `{device}`"
            );
        }
        Ok((found, left_out))
    }

    /// The wanted images of an index.
    pub fn images<'a>(&self, index: &'a Index) -> Vec<&'a Image> {
        let versions: BTreeSet<_> = index.images.iter().map(|image| image.version).collect();
        let few = self.newest.unwrap_or(usize::MAX);
        let newest: BTreeSet<_> = versions.into_iter().rev().take(few).collect();
        let wanted = |image: &&Image| newest.contains(&image.version);
        index.images.iter().filter(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNELS: &[u8] = br#"{
        "a": {"devices": {"x": {"index": "/a/x/index.json"}, "y": {"index": "/a/y/index.json"}}},
        "b": {"devices": {"x": {"index": "/a/x/index.json", "redirect": "a"}}},
        "c": {"devices": {}}
    }"#;

    fn wanted(channels: &[&str], devices: &[&str]) -> Wanted {
        Wanted {
            channels: channels.iter().map(|name| name.parse().unwrap()).collect(),
            devices: devices.iter().map(|name| name.parse().unwrap()).collect(),
            newest: None,
        }
    }

    #[test]
    fn channels_and_devices_narrow_the_choice_and_what_is_missing_is_counted() {
        let channels = Channels::parse(CHANNELS).unwrap();
        for (wanted, indexes, left_out) in [
            (
                wanted(&[], &[]),
                &["/a/x/index.json", "/a/y/index.json"][..],
                (0, 0),
            ),
            (wanted(&["b"], &[]), &["/a/x/index.json"], (2, 2)),
            (wanted(&[], &["y"]), &["/a/y/index.json"], (1, 2)),
            (wanted(&["a"], &["x"]), &["/a/x/index.json"], (2, 2)),
        ] {
            let (found, missing) = wanted.devices(&channels).unwrap();
            let found: Vec<_> = found.iter().map(|(_, e)| e.index.as_str()).collect();
            assert_eq!(found, indexes, "{wanted:?}");
            assert_eq!((missing.channels, missing.devices), left_out, "{wanted:?}");
        }
        assert!(wanted(&["d"], &[]).devices(&channels).is_err());
        assert!(wanted(&["c"], &["x"]).devices(&channels).is_err());
    }
}

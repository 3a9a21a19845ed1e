//! What follows a channel is brought up to date: aliases, channel redirects, device redirects
//! (server spec, section 15, without what section 21, 32 and 33 say of it).
//!
//! An alias has indexes and version files of its own, and is computed anew from its target each
//! time: nothing in it can be stale. Redirects are copies of entries.

use std::collections::BTreeSet;

use anyhow::Context;
use serde_json::Value;
use system_image_formats::channels::{Channel, Channels, DeviceEntry};
use system_image_formats::index::{FileEntry, Image, Index};
use system_image_formats::name::{ChannelName, DeviceName};

use crate::image;
use crate::part::is_version_file;
use crate::tree::Tree;
use crate::version_file::{self, Identity};

/// Brings up to date what follows `channel`, and publishes it.
pub fn follow(tree: &Tree, channel: &ChannelName) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    follow_in(tree, &mut channels, channel)?;
    tree.save_channels(&channels)
}

/// Brings up to date what follows `channel` in channels that are not yet published. The indexes of
/// aliases are published at once: no channel names one that is not there.
pub fn follow_in(
    tree: &Tree,
    channels: &mut Channels,
    channel: &ChannelName,
) -> anyhow::Result<()> {
    let mut done = BTreeSet::new();
    let mut changed = vec![channel.clone()];
    while let Some(target) = changed.pop() {
        if !done.insert(target.clone()) {
            continue;
        }
        redirect_devices(channels, &target, &mut changed);
        let names: Vec<_> = channels.0.keys().cloned().collect();
        for name in names.into_iter().filter(|name| *name != target) {
            let follower = &channels.0[&name];
            if follower.redirect.as_ref() == Some(&target) {
                if let Some(entry) = redirected(channels, &target) {
                    channels.0.insert(name.clone(), entry);
                }
                changed.push(name);
            } else if follower.alias.as_ref() == Some(&target) && channels.0.contains_key(&target) {
                alias(tree, channels, &name, &target)
                    .with_context(|| format!("cannot bring alias `{name}` up to date"))?;
                changed.push(name);
            }
        }
    }
    Ok(())
}

/// The entry of a channel redirect to `target`.
pub fn redirected(channels: &Channels, target: &ChannelName) -> Option<Channel> {
    let mut entry = channels.get(target)?.clone();
    entry.redirect = Some(target.clone());
    entry.hidden = true;
    Some(entry)
}

/// Copies the device entries of `target` to where devices are redirected to it; a redirect to a
/// device that is gone goes, too.
fn redirect_devices(channels: &mut Channels, target: &ChannelName, changed: &mut Vec<ChannelName>) {
    let theirs = channels.get(target).map(|found| found.devices.clone());
    let theirs = theirs.unwrap_or_default();
    for (name, channel) in &mut channels.0 {
        if channel.redirect.is_some() || name == target {
            continue;
        }
        let before = channel.devices.clone();
        channel.devices.retain(|device, entry| {
            if entry.redirect.as_ref() != Some(target) {
                return true;
            }
            let Some(found) = theirs.get(device) else {
                return false;
            };
            *entry = DeviceEntry {
                redirect: Some(target.clone()),
                ..found.clone()
            };
            true
        });
        if channel.devices != before {
            changed.push(name.clone());
        }
    }
}

fn alias(
    tree: &Tree,
    channels: &mut Channels,
    name: &ChannelName,
    target: &ChannelName,
) -> anyhow::Result<()> {
    let theirs = channels.0[target].devices.clone();
    let mut devices = std::collections::BTreeMap::new();
    for (device, their_entry) in theirs {
        let entry = DeviceEntry {
            index: format!("/{name}/{device}/index.json").parse()?,
            redirect: None,
            ..their_entry.clone()
        };
        let visible = image::index_of(tree, &entry)?;
        let their_index = image::index_of(tree, &their_entry)?;
        let alias = Alias {
            tree,
            name,
            target,
            device: &device,
            entry: &entry,
            visible: &visible,
        };
        tree.save_index(&entry, alias.index(&their_index)?)?;
        devices.insert(device, entry);
    }
    let channel = channels.0.get_mut(name);
    channel.context("the alias is one of the channels")?.devices = devices;
    Ok(())
}

/// One device of an alias.
struct Alias<'a> {
    tree: &'a Tree,
    name: &'a ChannelName,
    target: &'a ChannelName,
    device: &'a DeviceName,
    entry: &'a DeviceEntry,
    visible: &'a Index,
}

impl Alias<'_> {
    /// What the index of the target becomes here.
    fn index(&self, theirs: &Index) -> anyhow::Result<Index> {
        let followed = self.followed()?;
        let mut index = Index {
            images: Vec::new(),
            ..theirs.clone()
        };
        // A full image and its deltas share the version file.
        let mut made: Vec<(&Image, FileEntry)> = Vec::new();
        for image in &theirs.images {
            let known = made.iter().find(|(of, _)| {
                of.version == image.version && of.version_detail == image.version_detail
            });
            let version_file = match known {
                Some((_, file)) => file.clone(),
                None => self.version_file(image, followed)?,
            };
            let mut files: Vec<_> = image.files.clone();
            if let Some(at) = files.iter().position(is_version_file) {
                let order = files.remove(at).order;
                files.push(FileEntry {
                    order,
                    ..version_file.clone()
                });
            }
            made.push((image, version_file));
            index.images.push(Image {
                files,
                ..image.clone()
            });
        }
        Ok(index)
    }

    /// Whether the version files that are there name the target. Those of the original say nothing
    /// beside themselves, and were made for the target that the channels name.
    fn followed(&self) -> anyhow::Result<bool> {
        let newest = self.visible.images.iter().max_by_key(|image| image.version);
        let file = newest.and_then(|image| image.files.iter().find(|file| is_version_file(file)));
        let Some(file) = file else {
            return Ok(true);
        };
        let side = self.tree.side(&file.path)?;
        let ini = side.and_then(|side| side.extra.get("channel.ini").cloned());
        Ok(ini.is_none_or(|ini| {
            ini.get("channel_target").and_then(Value::as_str) == Some(self.target.as_str())
        }))
    }

    fn version_file(&self, image: &Image, followed: bool) -> anyhow::Result<FileEntry> {
        let same = |own: &&Image| {
            own.version == image.version && own.version_detail == image.version_detail
        };
        let own = self.visible.images.iter().find(same).filter(|_| followed);
        let own = own.and_then(|own| own.files.iter().find(|file| is_version_file(file)));
        if let Some(file) = own {
            return Ok(file.clone());
        }
        let identity = Identity {
            channel: self.name,
            target: Some(self.target),
            device: self.device,
            version: image.version,
            detail: &image.version_detail,
        };
        version_file::store(self.tree, self.entry, self.visible, identity)
    }
}

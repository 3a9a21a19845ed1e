//! What can be done to a channel (server spec, section 15).
//!
//! Nothing here deletes a file: what no document names any more stays until garbage collection,
//! for readers that still hold an older document.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use system_image_formats::channels::{Channel, Channels, DeviceEntry, SignedPath};
use system_image_formats::index::FileEntry;
use system_image_formats::name::{ChannelName, TreePath};

use crate::follow::{follow_in, redirected};
use crate::history::Event;
use crate::image;
use crate::published::{UnknownChannel, side_path};
use crate::tree::Tree;

/// A channel of no devices.
pub fn create(tree: &Tree, name: &ChannelName) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    check_new(&channels, name)?;
    channels.0.insert(name.clone(), Channel::default());
    tree.save_channels(&channels)?;
    tree.record(&Event::new("channel create").channel(name));
    Ok(())
}

/// A channel that follows `target` with version files of its own.
pub fn alias(tree: &Tree, name: &ChannelName, target: &ChannelName) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    check_new(&channels, name)?;
    check_target(tree, &channels, target)?;
    let channel = Channel {
        alias: Some(target.clone()),
        ..Channel::default()
    };
    channels.0.insert(name.clone(), channel);
    follow_in(tree, &mut channels, target)?;
    tree.save_channels(&channels)?;
    let event = Event::new("channel alias").channel(name);
    tree.record(&event.with("target", target.as_str()));
    Ok(())
}

/// Makes an alias follow another channel. Devices on it take a full image of the new one.
pub fn retarget(tree: &Tree, name: &ChannelName, target: &ChannelName) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    let channel = tree.channel(&channels, name)?;
    let is_alias = channel.alias.as_ref().is_some_and(|old| old != name);
    ensure!(
        is_alias && channel.redirect.is_none(),
        "channel `{name}` is no alias"
    );
    check_target(tree, &channels, target)?;
    let mut at = Some(target.clone());
    while let Some(followed) = at {
        ensure!(followed != *name, "`{target}` follows `{name}` itself");
        at = channels
            .get(&followed)
            .and_then(|found| found.alias.clone());
        at = at.filter(|next| *next != followed);
    }
    if let Some(channel) = channels.0.get_mut(name) {
        channel.alias = Some(target.clone());
    }
    follow_in(tree, &mut channels, target)?;
    tree.save_channels(&channels)?;
    let event = Event::new("channel alias").channel(name);
    tree.record(&event.with("target", target.as_str()));
    Ok(())
}

/// A hidden channel whose entry is a copy of `target`'s.
pub fn redirect(tree: &Tree, name: &ChannelName, target: &ChannelName) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    check_new(&channels, name)?;
    check_target(tree, &channels, target)?;
    if let Some(entry) = redirected(&channels, target) {
        channels.0.insert(name.clone(), entry);
    }
    tree.save_channels(&channels)?;
    let event = Event::new("channel redirect").channel(name);
    tree.record(&event.with("target", target.as_str()));
    Ok(())
}

/// Takes a channel away, and the device redirects to it. Aliases and channel redirects to it stand
/// in the way.
pub fn remove(tree: &Tree, name: &ChannelName) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    tree.channel(&channels, name)?;
    let followers: Vec<_> = channels
        .0
        .iter()
        .filter(|(other, channel)| {
            *other != name && [&channel.alias, &channel.redirect].contains(&&Some(name.clone()))
        })
        .map(|(other, _)| other.to_string())
        .collect();
    if !followers.is_empty() {
        bail!(
            "`{name}` is followed by {}; remove or retarget them first",
            followers.join(", ")
        );
    }
    channels.0.remove(name);
    follow_in(tree, &mut channels, name)?;
    tree.save_channels(&channels)?;
    tree.record(&Event::new("channel remove").channel(name));
    Ok(())
}

/// Takes a channel out of the lists that clients show, or puts it back.
pub fn set_hidden(tree: &Tree, name: &ChannelName, hidden: bool) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    let unknown = UnknownChannel::among(name, &channels);
    channels.0.get_mut(name).ok_or(unknown)?.hidden = hidden;
    follow_in(tree, &mut channels, name)?;
    tree.save_channels(&channels)?;
    let action = if hidden {
        "channel hide"
    } else {
        "channel show"
    };
    tree.record(&Event::new(action).channel(name));
    Ok(())
}

/// Gives a channel another name. Its files are there under both until garbage collection, so that
/// no reader of the old list loses them; what followed it follows it still.
pub fn rename(tree: &Tree, old: &ChannelName, new: &ChannelName) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    tree.channel(&channels, old)?;
    check_new(&channels, new)?;
    let mut channel = channels.0.remove(old).unwrap_or_default();
    if channel.redirect.is_none() {
        let mut devices = BTreeMap::new();
        for (device, entry) in channel.devices {
            let entry = if entry.redirect.is_some() {
                entry
            } else {
                moved(tree, &entry, old, new)?
            };
            devices.insert(device, entry);
        }
        channel.devices = devices;
    }
    channels.0.insert(new.clone(), channel);
    for follower in channels.0.values_mut() {
        let devices = follower
            .devices
            .values_mut()
            .map(|entry| &mut entry.redirect);
        for target in devices.chain([&mut follower.alias, &mut follower.redirect]) {
            if target.as_ref() == Some(old) {
                *target = Some(new.clone());
            }
        }
    }
    follow_in(tree, &mut channels, new)?;
    tree.save_channels(&channels)?;
    let event = Event::new("channel rename").channel(new);
    tree.record(&event.with("from", old.as_str()));
    Ok(())
}

/// A device's entry and index below the new name; its files there are second names of the old.
fn moved(
    tree: &Tree,
    entry: &DeviceEntry,
    old: &ChannelName,
    new: &ChannelName,
) -> anyhow::Result<DeviceEntry> {
    let there = |path: &TreePath| -> anyhow::Result<Option<TreePath>> {
        let rest = path.as_str().strip_prefix(&format!("/{old}/"));
        Ok(rest
            .map(|rest| format!("/{new}/{rest}").parse())
            .transpose()?)
    };
    let copy = |from: &TreePath, to: &TreePath| -> anyhow::Result<()> {
        if tree.store().size(from)?.is_some() && tree.store().size(to)?.is_none() {
            tree.store().copy(from, to)?;
        }
        Ok(())
    };
    let mut index = image::index_of(tree, entry)?;
    for file in index.images.iter_mut().flat_map(|image| &mut image.files) {
        let (Some(path), Some(signature)) = (there(&file.path)?, there(&file.signature)?) else {
            continue;
        };
        copy(&file.path, &path)?;
        copy(&file.signature, &signature)?;
        let (from, to) = (side_path(&file.path)?, side_path(&path)?);
        copy(&from, &to)?;
        copy(&from.with_suffix(".asc")?, &to.with_suffix(".asc")?)?;
        *file = FileEntry {
            path,
            signature,
            ..file.clone()
        };
    }
    let mut moved = entry.clone();
    if let Some(keyring) = &entry.keyring
        && let (Some(path), Some(signature)) = (there(&keyring.path)?, there(&keyring.signature)?)
    {
        copy(&keyring.path, &path)?;
        copy(&keyring.signature, &signature)?;
        moved.keyring = Some(SignedPath { path, signature });
    }
    if let Some(place) = there(&entry.index)? {
        moved.index = place;
    }
    tree.save_index(&moved, index)?;
    Ok(moved)
}

/// Whether a new channel can have this name.
fn check_new(channels: &Channels, name: &ChannelName) -> anyhow::Result<()> {
    if matches!(
        name.first_part(),
        "gpg" | "pool" | "channels.json" | "channels.json.asc"
    ) {
        bail!("`{}` is a name of the tree itself", name.first_part());
    }
    if name.as_str().split('/').any(|part| part.starts_with('.')) {
        bail!("a part of `{name}` begins with a dot, web servers hide such names");
    }
    if channels.0.contains_key(name) {
        bail!("there is a channel `{name}` already");
    }
    Ok(())
}

/// Whether another channel can follow this one.
fn check_target(tree: &Tree, channels: &Channels, target: &ChannelName) -> anyhow::Result<()> {
    let found = tree.channel(channels, target)?;
    if let Some(further) = &found.redirect {
        bail!("`{target}` is itself a redirect to `{further}`, follow that");
    }
    Ok(())
}

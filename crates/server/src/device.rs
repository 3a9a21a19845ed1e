//! What can be done to a device of a channel (server spec, section 15).

use anyhow::{Context, bail, ensure};
use serde_json::Map;
use system_image_formats::channels::{Channel, Channels, DeviceEntry, SignedPath};
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};

use crate::follow::follow_in;
use crate::history::Event;
use crate::image;
use crate::published::{UnknownChannel, device_of};
use crate::tree::Tree;

/// Adds a device. Returns how many images of an earlier time it still has.
pub fn add(tree: &Tree, channel: &ChannelName, device: &DeviceName) -> anyhow::Result<usize> {
    let mut channels = tree.channels()?;
    let found = changeable(&mut channels, channel)?;
    ensure!(
        !found.devices.contains_key(device),
        "channel `{channel}` has a device `{device}` already"
    );
    check_new(device)?;
    let entry = DeviceEntry {
        index: format!("/{channel}/{device}/index.json").parse()?,
        keyring: None,
        redirect: None,
        extra: Map::new(),
    };
    // The index first: no channel names one that is not there. A valid one is kept, without the
    // images whose files are gone since.
    let mut index = image::index_of(tree, &entry)?;
    let mut kept = Vec::new();
    for image in index.images {
        let mut whole = true;
        for file in &image.files {
            whole &= tree.store().size(&file.path)? == Some(file.size)
                && tree.store().size(&file.signature)?.is_some();
        }
        if whole {
            kept.push(image);
        }
    }
    index.images = kept;
    let count = index.images.len();
    if tree.index(&entry)?.as_ref() != Some(&index) {
        tree.save_index(&entry, index)?;
    }
    found.devices.insert(device.clone(), entry);
    follow_in(tree, &mut channels, channel)?;
    tree.save_channels(&channels)?;
    tree.record(&Event::new("device add").channel(channel).device(device));
    Ok(count)
}

/// Takes a device out of a channel, and the redirects to it.
pub fn remove(tree: &Tree, channel: &ChannelName, device: &DeviceName) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    device_of(&channels, channel, device)?;
    changeable(&mut channels, channel)?.devices.remove(device);
    follow_in(tree, &mut channels, channel)?;
    tree.save_channels(&channels)?;
    tree.record(&Event::new("device remove").channel(channel).device(device));
    Ok(())
}

/// Makes a device of a channel point to the same device of `target`.
pub fn redirect(
    tree: &Tree,
    channel: &ChannelName,
    device: &DeviceName,
    target: &ChannelName,
) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    let theirs = device_of(&channels, target, device)?.clone();
    ensure!(channel != target, "a device cannot be redirected to itself");
    if let Some(further) = &theirs.redirect {
        bail!("`{device}` in `{target}` is itself redirected to `{further}`, use that");
    }
    let found = changeable(&mut channels, channel)?;
    ensure!(
        !found.devices.contains_key(device),
        "channel `{channel}` has a device `{device}` already"
    );
    let entry = DeviceEntry {
        redirect: Some(target.clone()),
        ..theirs
    };
    found.devices.insert(device.clone(), entry);
    follow_in(tree, &mut channels, channel)?;
    tree.save_channels(&channels)?;
    let event = Event::new("device redirect")
        .channel(channel)
        .device(device);
    tree.record(&event.with("target", target.as_str()));
    Ok(())
}

/// Attaches a device-signing keyring: an archive and its signature, which are put beside the index.
pub fn set_keyring(
    tree: &Tree,
    channel: &ChannelName,
    device: &DeviceName,
    archive: &[u8],
    signature: &[u8],
) -> anyhow::Result<()> {
    let entry = tree.device(channel, device)?;
    let verified = tree.signers().verify(archive, signature);
    let archive = verified.context("the keyring is not signed by image-signing")?;
    let keyring = system_image_trust::Keyring::open(&archive.clone().map(<[u8]>::to_vec))?;
    let now = system_image_trust::Now::from_clock(tree.now());
    keyring.check(KeyringType::DeviceSigning, device, now)?;
    let index = entry.index.as_str();
    let directory = index.strip_suffix("/index.json").unwrap_or(index);
    let path: TreePath = format!("{directory}/device.tar.xz").parse()?;
    if tree.store().read(&path, 4 << 20)?.as_deref() != Some(*archive) {
        tree.store().replace(&path, &archive, signature)?;
    }
    let signature = path.with_suffix(".asc")?;
    change(tree, channel, device, "device keyring", |entry| {
        entry.keyring = Some(SignedPath { path, signature });
    })
}

/// Attaches a device-signing keyring that is in the tree already.
pub fn use_keyring(
    tree: &Tree,
    channel: &ChannelName,
    device: &DeviceName,
    path: &TreePath,
) -> anyhow::Result<()> {
    let mut entry = tree.device(channel, device)?;
    entry.keyring = Some(SignedPath {
        path: path.clone(),
        signature: path.with_suffix(".asc")?,
    });
    let keyring = tree.device_keyring(&entry)?;
    let keyring = keyring.context("it was just named")?;
    let now = system_image_trust::Now::from_clock(tree.now());
    keyring
        .check(KeyringType::DeviceSigning, device, now)
        .with_context(|| format!("`{path}` cannot be used"))?;
    change(tree, channel, device, "device keyring", |found| {
        found.keyring = entry.keyring;
    })
}

/// Takes a device's keyring away. What only its key has signed must not be named any more.
pub fn unset_keyring(
    tree: &Tree,
    channel: &ChannelName,
    device: &DeviceName,
) -> anyhow::Result<()> {
    let entry = tree.device(channel, device)?;
    let without = DeviceEntry {
        keyring: None,
        ..entry.clone()
    };
    if let Some(index) = tree.index(&entry)?
        && tree.index(&without).is_err()
    {
        // Signed by the device's key: by ours from now on.
        tree.resign_index(&without, &index)?;
    }
    change(tree, channel, device, "device keyring unset", |found| {
        found.keyring = None;
    })
}

fn change(
    tree: &Tree,
    channel: &ChannelName,
    device: &DeviceName,
    action: &str,
    with: impl FnOnce(&mut DeviceEntry),
) -> anyhow::Result<()> {
    let mut channels = tree.channels()?;
    let found = changeable(&mut channels, channel)?;
    with(
        found
            .devices
            .get_mut(device)
            .context("the device was just there")?,
    );
    follow_in(tree, &mut channels, channel)?;
    tree.save_channels(&channels)?;
    tree.record(&Event::new(action).channel(channel).device(device));
    Ok(())
}

/// A channel whose devices are its own.
fn changeable<'a>(
    channels: &'a mut Channels,
    name: &ChannelName,
) -> anyhow::Result<&'a mut Channel> {
    let unknown = UnknownChannel::among(name, channels);
    let found = channels.0.get_mut(name).ok_or(unknown)?;
    if let Some(target) = found.followed(name) {
        bail!("channel `{name}` follows `{target}`, do it there");
    }
    Ok(found)
}

fn check_new(device: &DeviceName) -> anyhow::Result<()> {
    if device.as_str().starts_with('.') {
        bail!("`{device}` begins with a dot, web servers hide such names");
    }
    Ok(())
}

//! Chooses the images that deltas lead from (server spec, section 14.3, without what section 21, 15
//! says of it).
//!
//! Numbers of different channels have nothing to do with each other. So a base in another channel
//! stands for the image of this channel that has the same content: a device has that number.

use anyhow::bail;
use system_image_formats::index::{Image, Index};
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;

use crate::part::same_content;
use crate::published::Published;

/// The bases that were asked for by number.
pub fn asked_for(
    index: &Index,
    asked: &[ImageVersion],
    version: ImageVersion,
) -> anyhow::Result<Vec<Image>> {
    let mut bases = asked.to_vec();
    bases.sort_unstable();
    bases.dedup();
    let mut found = Vec::new();
    for base in bases {
        let Some(image) = index.full(base).filter(|_| base < version) else {
            let known: Vec<_> = fulls(index)
                .iter()
                .map(|image| image.version.to_string())
                .collect();
            bail!(
                "there is no full image {base} for a delta; there are {}",
                known.join(", ")
            );
        };
        found.push(image.clone());
    }
    Ok(found)
}

/// The bases that the configuration asks for: the newest full images of the channel itself, and
/// those that have the same content as the newest of each other channel.
pub fn configured(
    tree: &Published,
    index: &Index,
    channel: &ChannelName,
    device: &DeviceName,
) -> anyhow::Result<Vec<Image>> {
    let config = tree.config().channel(channel);
    let own = fulls(index);
    let mut bases = Vec::new();
    if config.deltabase.is_empty() || config.deltabase.contains(channel) {
        bases.extend(own.iter().take(config.deltas as usize).copied());
    }
    let channels = tree.channels()?;
    for other in config.deltabase.iter().filter(|other| *other != channel) {
        let Some(entry) = channels.get(other).and_then(|c| c.devices.get(device)) else {
            continue;
        };
        let Some(theirs) = tree.index(entry)? else {
            continue;
        };
        if let Some(newest) = fulls(&theirs).first() {
            bases.extend(own.iter().find(|image| same_content(image, newest)));
        }
    }
    bases.sort_by_key(|image| image.version);
    bases.dedup_by_key(|image| image.version);
    Ok(bases.into_iter().cloned().collect())
}

/// The full images of an index, newest first.
pub fn fulls(index: &Index) -> Vec<&Image> {
    let mut fulls: Vec<_> = index
        .images
        .iter()
        .filter(|image| image.is_full())
        .collect();
    fulls.sort_by_key(|image| std::cmp::Reverse(image.version));
    fulls
}

//! Tagging: the newest image once more, under the next number and a name for people (server spec,
//! section 17.3, without what section 21, 13 and 14 say of it).

use anyhow::{Context, ensure};
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;

use crate::bases;
use crate::expire;
use crate::follow::follow;
use crate::history::Event;
use crate::image::{self, Draft, Made};
use crate::part::Part;
use crate::promote::retagged;
use crate::tree::Tree;

/// Publishes the newest image, which must be `version`, again with a tag. Its rollout goes on.
pub fn tag(
    tree: &Tree,
    channel: &ChannelName,
    device: &DeviceName,
    version: ImageVersion,
    tag: &str,
) -> anyhow::Result<Made> {
    let entry = tree.device(channel, device)?;
    let mut index = image::index_of(tree, &entry)?;
    let newest = index.newest().unwrap_or(ImageVersion::NONE);
    ensure!(
        newest == version,
        "only the newest image can be tagged; it is {newest}, not {version}"
    );
    let image = index.full(version);
    let image = image
        .with_context(|| format!("there is no full image {version}"))?
        .clone();
    let mut bases = bases::configured(tree, &index, channel, device)?;
    if bases.iter().all(|base| base.version != version) {
        bases.push(image.clone());
    }
    let draft = Draft {
        channel,
        device,
        version: image::next_version(tree, channel, &index, None)?,
        parts: Part::of_image(&image),
        detail: retagged(&image.version_detail, tag)?,
        phased: image.phased,
    };
    let made = image::add(tree, &entry, &mut index, &draft, &bases)?;
    expire::expire(&mut index, tree.config().channel(channel).fullcount);
    tree.save_index(&entry, index)?;
    follow(tree, channel)?;
    let event = Event::new("tag").channel(channel).device(device);
    tree.record(&event.version(made.version).with("tag", tag));
    Ok(made)
}

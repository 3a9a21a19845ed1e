//! A bad image is taken back: who has not got it never will, and who has it is offered a way back.
//!
//! Clients only ever go up, so the way back is a new image with the content of a good one, and a
//! delta to it from the bad one.

use anyhow::{Context, bail, ensure};
use system_image_formats::index::Image;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::{ImageVersion, Percentage};

use crate::bases;
use crate::follow::follow;
use crate::history::Event;
use crate::image::{self, Draft, Made};
use crate::part::Part;
use crate::tree::Tree;

/// Takes back the image `version`. If it is the newest, its successor has the content of `to`, by
/// default of the newest one before it, and is returned.
pub fn withdraw(
    tree: &Tree,
    channel: &ChannelName,
    device: &DeviceName,
    version: ImageVersion,
    to: Option<ImageVersion>,
) -> anyhow::Result<Option<Made>> {
    let entry = tree.device(channel, device)?;
    let mut index = image::index_of(tree, &entry)?;
    let bad = index
        .full(version)
        .with_context(|| format!("there is no full image {version}"))?
        .clone();
    let is_newest = index.newest() == Some(version);
    let made = if is_newest {
        let good = good(&bases::fulls(&index), version, to)?.clone();
        let mut bases = vec![bad, good.clone()];
        bases.extend(bases::configured(tree, &index, channel, device)?);
        bases.sort_by_key(|image| image.version);
        bases.dedup_by_key(|image| image.version);
        let draft = Draft {
            channel,
            device,
            version: image::next_version(tree, channel, &index, None)?,
            parts: Part::of_image(&good),
            detail: good.version_detail.clone(),
            phased: Percentage::ALL,
        };
        Some(image::add(tree, &entry, &mut index, &draft, &bases)?)
    } else {
        ensure!(
            to.is_none(),
            "{version} is not the newest image: devices that have it go on to a newer one"
        );
        None
    };
    index.images.retain(|image| image.version != version);
    tree.save_index(&entry, index)?;
    follow(tree, channel)?;
    let event = Event::new("withdraw").channel(channel).device(device);
    let replaced = made.as_ref().map(|made| made.version.get());
    tree.record(&event.version(version).with("replaced-by", replaced));
    Ok(made)
}

fn good<'a>(
    fulls: &[&'a Image],
    bad: ImageVersion,
    to: Option<ImageVersion>,
) -> anyhow::Result<&'a Image> {
    let mut before = fulls.iter().filter(|image| image.version < bad);
    match to {
        Some(to) => {
            let found = before.find(|image| image.version == to).copied();
            found.with_context(|| format!("there is no full image {to} before {bad}"))
        }
        None => match before.next() {
            Some(image) => Ok(image),
            None => bail!(
                "{bad} is the only image, so there is none to go back to; publish a good one, then \
                 withdraw {bad}"
            ),
        },
    }
}

//! Rollouts: the share of the devices that may take the newest image (server spec, sections 5 and
//! 16.4), raised in steps, paused and resumed.
//!
//! A paused image is at 0 %, and remembers in a key of its own what it comes back to; clients skip
//! keys that they do not know.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use system_image_formats::index::{Image, Index};
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::{ImageVersion, Percentage};

use crate::follow::follow;
use crate::history::Event;
use crate::image;
use crate::tree::Tree;

/// Where a paused image keeps its percentage.
const PAUSED: &str = "paused-percentage";

/// What to do to the newest image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Offer it to this share.
    Set(Percentage),
    /// Offer it to so many more; one that is paused stays so.
    By(Percentage),
    /// Offer it to nobody, for now.
    Pause,
    /// Offer it to as many as before the pause.
    Resume,
}

/// What became of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phased {
    /// The image.
    pub version: ImageVersion,
    /// Its share before.
    pub from: Percentage,
    /// Its share now.
    pub to: Percentage,
}

/// The share of the newest image and whether it is paused; `None` without an image.
pub fn newest(index: &Index) -> Option<(&Image, bool)> {
    let version = index.newest()?;
    let image = index.images.iter().find(|image| image.version == version)?;
    Some((image, is_paused(image)))
}

/// Whether an image is offered to nobody for now.
pub fn is_paused(image: &Image) -> bool {
    image.extra.contains_key(PAUSED)
}

/// Changes the rollout of the newest image, which must be `version` if that is given.
pub fn phase(
    tree: &Tree,
    channel: &ChannelName,
    device: &DeviceName,
    version: Option<ImageVersion>,
    step: Step,
) -> anyhow::Result<Phased> {
    let entry = tree.device(channel, device)?;
    let mut index = image::index_of(tree, &entry)?;
    let newest = index
        .newest()
        .with_context(|| format!("`{device}` in channel `{channel}` has no image yet"))?;
    if let Some(version) = version.filter(|version| *version != newest) {
        bail!("only the newest image is phased; it is {newest}, not {version}");
    }
    let mut phased = None;
    for image in index
        .images
        .iter_mut()
        .filter(|image| image.version == newest)
    {
        let from = image.phased;
        apply(image, step)?;
        phased = Some(Phased {
            version: newest,
            from,
            to: image.phased,
        });
    }
    let phased = phased.context("the newest image is one of the images")?;
    if tree.save_index(&entry, index)? {
        let action = match step {
            Step::Set(_) | Step::By(_) => "phase",
            Step::Pause => "phase pause",
            Step::Resume => "phase resume",
        };
        let event = Event::new(action).channel(channel).device(device);
        tree.record(
            &event
                .version(newest)
                .with("from", phased.from.get())
                .with("to", phased.to.get()),
        );
    }
    follow(tree, channel)?;
    Ok(phased)
}

fn apply(image: &mut Image, step: Step) -> anyhow::Result<()> {
    match step {
        Step::Set(to) => {
            image.extra.remove(PAUSED);
            image.phased = to;
        }
        Step::By(more) => {
            if !image.extra.contains_key(PAUSED) {
                let sum = i64::from(image.phased.get()) + i64::from(more.get());
                image.phased = Percentage::clamped(sum);
            }
        }
        Step::Pause => {
            if !image.extra.contains_key(PAUSED) {
                image
                    .extra
                    .insert(PAUSED.to_owned(), image.phased.get().into());
                image.phased = Percentage::NONE;
            }
        }
        Step::Resume => {
            let before = image.extra.remove(PAUSED);
            let before = before.as_ref().and_then(Value::as_i64);
            ensure!(before.is_some(), "version {} is not paused", image.version);
            image.phased = Percentage::clamped(before.unwrap_or(0));
        }
    }
    Ok(())
}

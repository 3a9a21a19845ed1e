//! Importing: the configured channels get new images when their sources have something new (server
//! spec, section 14, without what section 21, 18 to 20 says of it).
//!
//! "New" is decided by what the files are: an image comes to be when its files differ from those of
//! the newest one. A source that fails is an error of its device; the others go on.

use anyhow::Context;
use serde::Serialize;
use system_image_formats::channels::Channels;
use system_image_formats::detail::VersionDetail;
use system_image_formats::index::Image;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::{ImageVersion, Percentage};

use crate::bases;
use crate::config::ChannelConfig;
use crate::expire;
use crate::follow::follow;
use crate::generators::{Job, Produced, Run, produce};
use crate::history::Event;
use crate::image::{self, Draft};
use crate::part::{Part, is_version_file};
use crate::promote::again;
use crate::tree::Tree;
use system_image_delta_build::parallel;

/// What became of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Its channel.
    pub channel: String,
    /// Its name.
    pub device: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What became of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// There is a new image.
    New {
        /// Its number.
        version: ImageVersion,
        /// Bytes of the full image.
        bytes: u64,
        /// The bases of its deltas.
        deltas: Vec<ImageVersion>,
        /// Deltas that could not be made, and why.
        refused: Vec<(ImageVersion, String)>,
    },
    /// The newest image has these files.
    Unchanged {
        /// Its number.
        version: ImageVersion,
    },
    /// A source has nothing yet.
    NotYet {
        /// The file's name in the configuration.
        file: String,
        /// Why.
        why: String,
    },
    /// A source, or what was made of it, is not in order.
    Failed {
        /// Why.
        error: String,
    },
}

/// Which devices to import for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only these channels; all that are imported when empty.
    pub channels: Vec<ChannelName>,
    /// Only these devices; all when empty.
    pub devices: Vec<DeviceName>,
}

/// Runs the importer.
pub fn import(tree: &Tree, wanted: &Wanted) -> anyhow::Result<Vec<Imported>> {
    let run = Run::default();
    let channels = tree.channels()?;
    let mut imported = Vec::new();
    for (name, config) in &tree.config().channels {
        let asked = wanted.channels.contains(name);
        if !config.auto || !(wanted.channels.is_empty() || asked) {
            continue;
        }
        let devices = match devices(&channels, name, wanted) {
            Ok(devices) => devices,
            Err(error) => {
                imported.push(Imported {
                    channel: name.to_string(),
                    device: String::new(),
                    outcome: Outcome::Failed { error },
                });
                continue;
            }
        };
        imported.extend(in_parallel(tree, &run, name, config, &devices));
        follow(tree, name)?;
    }
    Ok(imported)
}

/// The devices of a channel that can be imported for.
fn devices(
    channels: &Channels,
    name: &ChannelName,
    wanted: &Wanted,
) -> Result<Vec<DeviceName>, String> {
    let Some(channel) = channels.get(name) else {
        return Err(format!("the tree has no channel `{name}`; create it"));
    };
    if let Some(target) = channel.followed(name) {
        return Err(format!("it follows `{target}` and cannot be imported for"));
    }
    let own = channel.devices.iter().filter(|(device, entry)| {
        let asked = wanted.devices.is_empty() || wanted.devices.contains(device);
        entry.redirect.is_none() && asked
    });
    Ok(own.map(|(device, _)| device.clone()).collect())
}

/// Imports for several devices at once; what became of them comes in order.
fn in_parallel(
    tree: &Tree,
    run: &Run,
    channel: &ChannelName,
    config: &ChannelConfig,
    devices: &[DeviceName],
) -> Vec<Imported> {
    parallel::each(tree.config().jobs, devices, |device| {
        let job = Job {
            tree,
            channel,
            device,
            run,
        };
        let outcome = one(job, config).unwrap_or_else(|error| Outcome::Failed {
            error: format!("{error:#}"),
        });
        Imported {
            channel: channel.to_string(),
            device: device.to_string(),
            outcome,
        }
    })
}

/// Imports for one device.
fn one(job: Job<'_>, config: &ChannelConfig) -> anyhow::Result<Outcome> {
    let (tree, channel, device) = (job.tree, job.channel, job.device);
    let entry = tree.device(channel, device)?;
    let mut index = image::index_of(tree, &entry)?;
    let newest: Option<Image> = bases::fulls(&index).first().map(|image| (*image).clone());
    let mut parts = Vec::new();
    let mut detail = VersionDetail::default();
    for rule in config.rules(device) {
        if matches!(rule.name.as_str(), "ubuntu" | "ubports") {
            let last = newest
                .as_ref()
                .and_then(|image| image.version_detail.get("tag"));
            detail.push("tag", &again(&today(tree.now())?, last))?;
        }
        let produced = produce(job, &rule.source)
            .with_context(|| format!("file `{}` of channel `{channel}`", rule.name))?;
        match produced {
            Produced::AtTheEnd => {}
            Produced::NotYet(why) => {
                return Ok(Outcome::NotYet {
                    file: rule.name.clone(),
                    why,
                });
            }
            Produced::File(part, more) => {
                for (key, value) in more.items() {
                    detail.push(key, value)?;
                }
                parts.push(part);
            }
        }
    }
    if let Some(newest) = &newest
        && same_files(newest, &parts)
    {
        return Ok(Outcome::Unchanged {
            version: newest.version,
        });
    }
    let bases = bases::configured(tree, &index, channel, device)?;
    let draft = Draft {
        channel,
        device,
        version: image::next_version(tree, channel, &index, None)?,
        parts,
        detail,
        phased: Percentage::ALL,
    };
    let made = image::add(tree, &entry, &mut index, &draft, &bases)?;
    expire::expire(&mut index, config.fullcount);
    tree.save_index(&entry, index)?;
    let event = Event::new("import").channel(channel).device(device);
    tree.record(&event.version(made.version));
    Ok(Outcome::New {
        version: made.version,
        bytes: made.full,
        deltas: made.deltas.into_iter().map(|delta| delta.base).collect(),
        refused: made.refused,
    })
}

/// Whether an image has these files, its version file aside.
fn same_files(image: &Image, parts: &[Part]) -> bool {
    let mut files: Vec<_> = image
        .files
        .iter()
        .filter(|file| !is_version_file(file))
        .collect();
    files.sort_by_key(|file| file.order);
    let ours = parts
        .iter()
        .map(|part| (&part.entry.path, part.entry.checksum));
    files
        .into_iter()
        .map(|file| (&file.path, file.checksum))
        .eq(ours)
}

/// The date where the server is, as `YYYY-MM-DD`.
fn today(now: i64) -> anyhow::Result<String> {
    let time = jiff::Timestamp::from_second(now).context("the clock is out of range")?;
    let date = time.to_zoned(jiff::tz::TimeZone::system()).date();
    Ok(date.to_string())
}

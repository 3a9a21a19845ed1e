//! Is there an update: from keyrings, channels and index to an [`Update`] or the reason why there is
//! none (client spec, sections 9 to 11).

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Serialize;
use system_image_formats::detail::VersionDetail;
use system_image_formats::index::{FileEntry, Image};
use system_image_formats::name::ChannelName;
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_planner::{Filter, PhaseSource, Plan, Request, Route, Start, phase_channel};
use system_image_trust::Chain;

use crate::device;
use crate::explain::Explanation;
use crate::server::Server;
use crate::session::{DeviceIndex, Facts, Failure, Fresh, NotOffered, Session};
use crate::state::{Found, Offered};

/// What a run is asked for, beside the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The installed version was given, not configured: an alias that leads elsewhere now does not
    /// force a full image.
    pub build_given: bool,
    /// Which candidates count.
    pub filter: Option<Filter>,
    /// Cuts the chosen route after this version.
    pub cap: Option<ImageVersion>,
    /// The device's place in rollouts, instead of its own.
    pub percentage: Option<Percentage>,
    /// Mobile data may be used whatever the setting says.
    pub mobile_data: bool,
    /// Keep every candidate and image with the reason why it was not taken.
    pub explain: bool,
}

/// What a check found, and what a download needs of it.
#[derive(Debug)]
pub struct Checked {
    /// The keyrings.
    pub chain: Chain,
    /// The channels that have this device.
    pub channels: Vec<Offered>,
    /// The update, or why there is none.
    pub outcome: Outcome,
    /// Where the decision comes from, if it was asked for.
    pub explanation: Option<Explanation>,
}

/// What a check found.
#[derive(Debug)]
pub enum Outcome {
    /// An update.
    Update(Box<Update>),
    /// None.
    UpToDate {
        /// Why there is none.
        why: String,
    },
    /// The server does not have the channel, or not for this device.
    NotOffered(NotOffered),
}

/// An update: the images of the chosen route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Update {
    /// The version that the device starts from.
    pub from: ImageVersion,
    /// The version that it has in the end.
    pub version: ImageVersion,
    /// What that is made of.
    pub version_detail: VersionDetail,
    /// The keys of the last image that begin with `description`.
    pub descriptions: BTreeMap<String, String>,
    /// The images in order.
    pub images: Vec<Step>,
    /// Whether one of them is full, so that the system is formatted first.
    pub is_full: bool,
    /// Bytes of all their files.
    pub size: u64,
    /// The device's place in rollouts, as used, and the version it was drawn for.
    pub phase: Option<Phase>,
    /// The alias's old and new target, when the channel was pointed elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<(ChannelName, ChannelName)>,
    /// The files that are fetched and applied now, in order of application.
    pub files: Vec<FileEntry>,
    /// How many of the images that are.
    #[serde(skip)]
    pub now: usize,
    /// Whether the device has a keyring of its own.
    #[serde(skip)]
    pub device_keyring: bool,
}

/// An image of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its version.
    pub version: ImageVersion,
    /// For a delta: the version that it starts from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ImageVersion>,
    /// Bytes of its files.
    pub size: u64,
    /// Whether the device must boot into it before it goes on.
    pub bootme: bool,
}

/// A place in rollouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// The version that it was drawn for.
    pub version: ImageVersion,
    /// The percentage.
    pub percentage: Percentage,
}

impl Update {
    /// The versions joined with `:`, as in `3:4:5`.
    pub fn route(&self) -> String {
        let versions: Vec<_> = (self.images.iter())
            .map(|image| image.version.to_string())
            .collect();
        versions.join(":")
    }

    /// The version that the device has when the files are applied: that of the first image that
    /// must be booted, or the last.
    pub fn reached(&self) -> ImageVersion {
        self.images[self.now - 1].version
    }

    fn new(
        found: &DeviceIndex,
        route: &Route<'_>,
        start: &Start,
        phase: Option<(ImageVersion, Percentage)>,
    ) -> anyhow::Result<Self> {
        let mut images = found.images(route)?;
        if route.is_patched()
            && let Some(first) = images.first_mut()
            && let Some((patched, _)) = first.patched()
        {
            *first = patched;
        }
        let steps = images.iter().map(|image| Step {
            version: image.version,
            base: image.kind.base(),
            size: image.size(),
            bootme: image.bootme,
        });
        let steps: Vec<_> = steps.collect();
        let last = images.last().context("a route has an image")?;
        let (version_detail, descriptions) = (last.version_detail.clone(), descriptions(last));
        images.truncate(route.now());
        Ok(Self {
            from: start.version,
            version: route.target(),
            version_detail,
            descriptions,
            images: steps,
            is_full: route.starts_from_nothing(),
            size: route.size(),
            phase: phase.map(|(version, percentage)| Phase {
                version,
                percentage,
            }),
            switch: start.switch.clone(),
            files: system_image_planner::files(images),
            now: route.now(),
            device_keyring: found.has_keyring,
        })
    }
}

fn descriptions(image: &Image) -> BTreeMap<String, String> {
    let translated = image.extra.iter().filter_map(|(key, value)| {
        let text = value.as_str()?;
        (key.starts_with("description")).then(|| (key.clone(), text.to_owned()))
    });
    let plain = (image.description.iter()).map(|text| ("description".to_owned(), text.clone()));
    plain.chain(translated).collect()
}

impl Checked {
    /// The update, if there is one.
    pub fn update(&self) -> Option<&Update> {
        match &self.outcome {
            Outcome::Update(update) => Some(update),
            Outcome::UpToDate { .. } | Outcome::NotOffered(_) => None,
        }
    }

    /// What is kept of it for later runs.
    pub fn found(&self) -> Found {
        match &self.outcome {
            Outcome::Update(update) => Found::Update {
                version: update.version,
                size: update.size,
                version_detail: update.version_detail.clone(),
            },
            Outcome::UpToDate { why } => Found::UpToDate { why: why.clone() },
            Outcome::NotOffered(error) => Found::UpToDate {
                why: error.to_string(),
            },
        }
    }
}

/// Asks the server.
pub async fn check(
    server: &Server,
    facts: Facts<'_>,
    wish: &Wish,
    fresh: Fresh,
) -> Result<Checked, Failure> {
    let mut session = Session::open(server, facts, fresh).await?;
    let channels = offered(&session, facts);
    let (outcome, explanation) = match session.device_index(server, facts).await? {
        Err(not_offered) => (Outcome::NotOffered(not_offered), None),
        Ok(found) => {
            let (plan, start) = plan(&found, facts, wish)?;
            let explanation = wish
                .explain
                .then(|| Explanation::new(&plan, &start, &found.outline));
            let outcome = match &plan.decision {
                Ok(route) => {
                    Outcome::Update(Box::new(Update::new(&found, route, &start, plan.phase)?))
                }
                Err(why) => Outcome::UpToDate {
                    why: why.to_string(),
                },
            };
            (outcome, explanation)
        }
    };
    Ok(Checked {
        chain: session.chain,
        channels,
        outcome,
        explanation,
    })
}

/// The channels that list the device.
fn offered(session: &Session, facts: Facts<'_>) -> Vec<Offered> {
    let channels = session.channels.0.iter();
    channels
        .filter(|(_, channel)| channel.devices.contains_key(facts.device))
        .map(|(name, channel)| Offered {
            name: name.clone(),
            shown: !channel.hidden && channel.alias.is_none() && channel.redirect.is_none(),
        })
        .collect()
}

/// Memory in bytes for applying patches; none after an update by patches that failed, until another
/// version is installed: the installed one may have been changed.
fn patch_memory(facts: Facts<'_>) -> u64 {
    if facts.patches_failed {
        return 0;
    }
    u64::from(facts.config.patch_memory) << 20
}

fn plan<'a>(
    found: &'a DeviceIndex,
    facts: Facts<'_>,
    wish: &Wish,
) -> anyhow::Result<(Plan<'a>, Start)> {
    let (service, log) = (&facts.config.service, facts.log);
    let target = service.channel_target.as_ref();
    let (installed, given) = (service.build_number, wish.build_given);
    let start = Start::decide(installed, given, target, found.alias.as_ref());
    let phase = match wish.percentage {
        Some(percentage) => PhaseSource::Override(percentage),
        None => PhaseSource::Machine {
            channel: phase_channel(
                found.alias.as_ref().map(AsRef::as_ref),
                target.map(AsRef::as_ref),
            ),
            machine_id: device::machine_id().context("cannot read the machine's id")?,
        },
    };
    let request = Request {
        installed: start.version,
        filter: wish.filter,
        cap: wish.cap,
        phase,
        patch_memory: patch_memory(facts),
    };
    let plan = system_image_planner::plan(&found.outline, &request);
    for candidate in plan.candidates.iter().rev() {
        let (score, route) = (candidate.score, &candidate.route);
        log.debug(&format!(
            "candidate {route}: score {score}, {}",
            candidate.verdict
        ));
    }
    if let Some((_, percentage)) = plan.phase {
        log.debug(&format!("Device phased percentage: {percentage}%"));
    }
    match &plan.decision {
        Ok(route) => log.info(&format!("Upgrade path is {route}")),
        Err(why) => log.info(&format!("Already up-to-date: {why}")),
    }
    Ok((plan, start))
}

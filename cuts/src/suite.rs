//! Suites: one update on one kind of device, cut off in one way, at every state.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use system_image_testkit::tree::{Snapshot, Tree};

use crate::device::{Device, Layout};
use crate::lab::Lab;
use crate::power::{self, Cuts};
use crate::record::Record;
use crate::scenario::Scenario;
use crate::trace::{self, Call, Disturbance, Effect, Fault, Program};
use crate::verdict::{Ended, Wanted, settle};

/// What a call says that was to change something.
const ERRORS: [Fault; 3] = [
    Fault::Error("EIO"),
    Fault::Error("ENOSPC"),
    Fault::Error("EROFS"),
];

/// The recorded writes of a suite that was kept.
const KEPT_RECORD: &str = "record";
/// The disk before them.
const KEPT_DISK: &str = "disk.img";

/// A way to be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A program is killed.
    Kill,
    /// A call fails.
    Fail,
    /// The power fails.
    Power,
}

impl Way {
    /// The ways that a kind of device is cut off.
    pub(crate) fn of(layout: Layout) -> &'static [Self] {
        match layout {
            Layout::Directory | Layout::Partition => &[Self::Kill, Self::Fail],
            Layout::Disk => &[Self::Power],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Fail => "fail",
            Self::Power => "power",
        }
    }
}

/// A suite's name, as the summary and `--only` have it.
pub(crate) fn name(scenario: &Scenario, layout: Layout, way: Way) -> String {
    format!("{}/{}/{}", scenario.name, layout.name(), way.name())
}

/// A suite.
#[derive(Debug)]
pub(crate) struct Suite {
    /// Its name.
    pub(crate) name: String,
    /// The device before the update, and what may become of it.
    start: Arc<Start>,
    states: States,
    kept: AtomicBool,
}

#[derive(Debug)]
struct Start {
    layout: Layout,
    device: Device,
    wanted: Wanted,
}

#[derive(Debug)]
enum States {
    Calls(Vec<Disturbance>),
    Cuts(Cuts),
}

/// Runs an update undisturbed and finds every state at which it can be cut off.
///
/// A recording that was kept in `kept` takes the place of a new one.
pub(crate) fn prepare(
    lab: &Lab,
    scenario: &Scenario,
    layout: Layout,
    kept: Option<&Path>,
) -> anyhow::Result<Vec<Suite>> {
    let place = lab.place(&format!("{}-{}", scenario.name, layout.name()));
    let wanted = Wanted {
        old: installed(lab, &place.join("old"), &scenario.old),
        new: installed(lab, &place.join("new"), scenario.target()),
    };
    let device = Device::new(lab, layout, &place.join("start"));
    let way_name = |way| name(scenario, layout, way);
    let kept = kept.map(|kept| kept_at(kept, &way_name(Way::Power)));
    let kept = kept.filter(|kept| layout == Layout::Disk && kept.exists());
    if let Some(kept) = &kept {
        fs::copy(kept.join(KEPT_DISK), device.image()).context("cannot read what was kept")?;
    } else {
        device.partition()?;
        let running = device.start()?;
        let recovery = running.recovery();
        recovery.furnish();
        recovery.full(&scenario.old);
        recovery.upgrade_well();
        scenario.leave(recovery);
    }
    let start = Arc::new(Start {
        layout,
        device,
        wanted,
    });
    let trial = Device::new(lab, layout, &place.join("trial"));
    let suite = |way, states| Suite {
        name: way_name(way),
        start: Arc::clone(&start),
        states,
        kept: AtomicBool::new(false),
    };
    if layout == Layout::Disk {
        let record = if let Some(kept) = kept {
            Record::load(&kept.join(KEPT_RECORD))?
        } else {
            trial.become_like(&start.device)?;
            power::record(&trial)?
        };
        let cuts = Cuts::of(record, lab.seed());
        return Ok(vec![suite(Way::Power, States::Cuts(cuts))]);
    }
    let mut calls = Vec::new();
    for program in Program::all() {
        trial.become_like(&start.device)?;
        let running = trial.start()?;
        calls.extend(trace::calls(lab, &trial, program)?);
        drop(running);
    }
    let suites = Way::of(layout)
        .iter()
        .map(|&way| suite(way, States::Calls(disturbances(&calls, way))));
    Ok(suites.collect())
}

/// A system as an undisturbed device has it.
fn installed(lab: &Lab, place: &Path, tree: &Tree) -> Snapshot {
    let device = Device::new(lab, Layout::Directory, place);
    device.recovery.full(tree);
    device.recovery.upgrade_well();
    system_image_testkit::tree::snapshot(&device.recovery.system())
}

/// What can happen at these calls. One that only looks leaves nothing new to be found, so nothing
/// is killed there; and all that it can say is that the disk is broken.
fn disturbances(calls: &[Call], way: Way) -> Vec<Disturbance> {
    let faults = |call: &Call| match (way, call.effect) {
        (Way::Kill, Effect::Changes | Effect::Waits) => vec![Fault::Kill],
        (Way::Fail, Effect::Changes) => ERRORS.to_vec(),
        (Way::Fail, Effect::Looks) => vec![ERRORS[0]],
        _ => Vec::new(),
    };
    let of = |call: &Call, fault| Disturbance {
        call: call.clone(),
        fault,
    };
    calls
        .iter()
        .flat_map(|call| faults(call).into_iter().map(|fault| of(call, fault)))
        .collect()
}

fn kept_at(kept: &Path, suite: &str) -> PathBuf {
    kept.join(suite.replace('/', "-"))
}

impl Suite {
    /// The number of its states.
    pub(crate) fn len(&self) -> usize {
        match &self.states {
            States::Calls(disturbances) => disturbances.len(),
            States::Cuts(cuts) => cuts.len(),
        }
    }

    /// The kind of device that it needs.
    pub(crate) fn layout(&self) -> Layout {
        self.start.layout
    }

    /// A state in words.
    pub(crate) fn describe(&self, state: usize) -> String {
        match &self.states {
            States::Calls(disturbances) => disturbances[state].to_string(),
            States::Cuts(cuts) => cuts.describe(state),
        }
    }

    /// Brings a device into a state and leaves it to its recovery.
    pub(crate) fn run(&self, lab: &Lab, device: &Device, state: usize) -> anyhow::Result<Ended> {
        let wanted = &self.start.wanted;
        device.become_like(&self.start.device)?;
        match &self.states {
            States::Calls(disturbances) => {
                let running = device.start()?;
                match trace::disturbed(lab, device, &disturbances[state])? {
                    Some(output) => settle(&running, Some(&output), wanted),
                    None => Ok(Ended::Undisturbed),
                }
            }
            States::Cuts(cuts) => {
                cuts.cut(state, &device.image())?;
                settle(&device.start()?, None, wanted)
            }
        }
    }

    /// Keeps what it takes to repeat states, when the first of them fails, and the disk of that
    /// one. All that cannot be made again is the recording of a disk. Where that is, if there is one.
    pub(crate) fn keep(&self, kept: &Path, state: usize) -> anyhow::Result<Option<PathBuf>> {
        let States::Cuts(cuts) = &self.states else {
            return Ok(None);
        };
        let place = kept_at(kept, &self.name);
        if !self.kept.swap(true, Ordering::Relaxed) {
            if place.exists() {
                // Another recording, whose states are others.
                fs::remove_dir_all(&place)?;
            }
            fs::create_dir_all(&place)?;
            let disk = place.join(KEPT_DISK);
            fs::copy(self.start.device.image(), &disk)?;
            cuts.record().save(&place.join(KEPT_RECORD))?;
            let cut = place.join(format!("state-{state}.img"));
            fs::copy(&disk, &cut)?;
            cuts.cut(state, &cut)?;
        }
        Ok(Some(place))
    }
}

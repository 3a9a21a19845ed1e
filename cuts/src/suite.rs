//! Suites: one update on one kind of device, cut off in one way, at every state.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use system_image_testkit::tree::{Snapshot, Tree};

use crate::device::{Device, Layout};
use crate::lab::Lab;
use crate::power::{self, Cuts, Pace};
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
    Power(Pace),
}

impl Way {
    /// The ways that a kind of device is cut off.
    pub(crate) fn of(layout: Layout) -> &'static [Self] {
        match layout {
            layout if layout.is_disk() => &[Self::Power(Pace::Eager), Self::Power(Pace::Lazy)],
            _ => &[Self::Kill, Self::Fail],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Fail => "fail",
            Self::Power(Pace::Eager) => "power-eager",
            Self::Power(Pace::Lazy) => "power-lazy",
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
    /// The kind of device that it needs.
    pub(crate) layout: Layout,
    before: Arc<Device>,
    wanted: Arc<Wanted>,
    states: States,
    /// Whether what it takes to repeat it is kept.
    kept: AtomicBool,
}

#[derive(Debug)]
enum States {
    Calls(Vec<Disturbance>),
    Cuts(Cuts),
}

/// Runs an update undisturbed and finds every state at which it can be cut off.
///
/// Recordings that were kept in `kept` take the place of new ones.
pub(crate) fn prepare(
    lab: &Lab,
    scenario: &Scenario,
    layout: Layout,
    kept: Option<&Path>,
) -> anyhow::Result<Vec<Suite>> {
    let place = lab.place(&format!("{}-{}", scenario.name, layout.name()));
    let device = Arc::new(before(lab, scenario, layout, &place.join("before"))?);
    let trial = Device::new(lab, layout, &place.join("trial"));
    let mut wanted = Wanted {
        old: installed(lab, &place.join("old"), &scenario.old),
        new: installed(lab, &place.join("new"), scenario.target()),
    };
    trial.become_like(&device)?;
    let running = trial.start()?;
    wanted.old.extend(running.look_beside()?);
    running.recovery().upgrade_well();
    wanted.new.extend(running.look_beside()?);
    drop(running);
    let wanted = Arc::new(wanted);
    let calls = if layout.is_disk() {
        Vec::new()
    } else {
        calls(lab, &device, &trial)?
    };
    let suites = Way::of(layout).iter().map(|&way| {
        let name = name(scenario, layout, way);
        let kept = kept.map(|kept| kept_at(kept, &name));
        let mut before = Arc::clone(&device);
        let states = match (way, kept.filter(|kept| kept.exists())) {
            (Way::Kill | Way::Fail, _) => States::Calls(disturbances(&calls, way)),
            (Way::Power(_), Some(kept)) => {
                let disk = Device::new(lab, layout, &place.join(way.name()));
                fs::copy(kept.join(KEPT_DISK), disk.image())
                    .context("cannot read what was kept")?;
                before = Arc::new(disk);
                let record = Record::load(&kept.join(KEPT_RECORD));
                States::Cuts(Cuts::of(
                    record.context("cannot read what was kept")?,
                    lab.seed(),
                ))
            }
            (Way::Power(eagerness), None) => {
                trial.become_like(&before)?;
                States::Cuts(Cuts::of(power::record(&trial, eagerness)?, lab.seed()))
            }
        };
        Ok(Suite {
            name,
            layout,
            before,
            wanted: Arc::clone(&wanted),
            states,
            kept: AtomicBool::new(false),
        })
    });
    suites.collect()
}

/// The device that has what is to be updated, and all that the client left.
fn before(lab: &Lab, scenario: &Scenario, layout: Layout, place: &Path) -> anyhow::Result<Device> {
    let device = Device::new(lab, layout, place);
    device.partition()?;
    let running = device.start()?;
    let recovery = running.recovery();
    recovery.furnish();
    device.furnish()?;
    // What it says of the slots is read by the upgrader.
    let running = {
        drop(running);
        device.start()?
    };
    let recovery = running.recovery();
    recovery.full(&scenario.old);
    recovery.upgrade_well();
    running.settle_in()?;
    scenario.leave(recovery);
    drop(running);
    Ok(device)
}

/// The calls of all programs that an update runs.
fn calls(lab: &Lab, before: &Device, trial: &Device) -> anyhow::Result<Vec<Call>> {
    let mut calls = Vec::new();
    for program in Program::all() {
        trial.become_like(before)?;
        let running = trial.start()?;
        calls.extend(trace::calls(lab, trial, program)?);
        drop(running);
    }
    Ok(calls)
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

    /// A state in words.
    pub(crate) fn describe(&self, state: usize) -> String {
        match &self.states {
            States::Calls(disturbances) => disturbances[state].to_string(),
            States::Cuts(cuts) => cuts.describe(state),
        }
    }

    /// Brings a device into a state and leaves it to its recovery.
    pub(crate) fn run(&self, lab: &Lab, device: &Device, state: usize) -> anyhow::Result<Ended> {
        let wanted = &self.wanted;
        device.become_like(&self.before)?;
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
            fs::copy(self.before.image(), &disk)?;
            cuts.record().save(&place.join(KEPT_RECORD))?;
            let cut = place.join(format!("state-{state}.img"));
            fs::copy(&disk, &cut)?;
            cuts.cut(state, &cut)?;
        }
        Ok(Some(place))
    }
}

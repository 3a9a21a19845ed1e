//! What the client's service holds while it waits, and what it takes to get there.

use std::fs;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use system_image_demo::measure::Cost;
use system_image_testkit::Bus;

use crate::contest::{Side, contest};
use crate::lab::Lab;
use crate::offer::Offer;
use crate::process;
use crate::table::{Limit, Table};

const NAME: &str = "com.canonical.SystemImage";
const PATH: &str = "/Service";

/// Resident while it waits.
const IDLE: Limit = Limit {
    seconds: None,
    memory: 8.0,
};

/// How often to look whether it has finished.
const PERIOD: Duration = Duration::from_millis(5);

/// After so long it has given back what it does not need while it waits.
const NOTICES: Duration = Duration::from_secs(3);

/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(lab: &Lab, offer: &Offer, table: &mut Table) -> anyhow::Result<()> {
    let bus = Bus::start();
    let what = "the service, started";
    let mut ours = [Side::new("ours", || {
        let service = Service::start(lab, offer, &bus)?;
        service.ask("Information")?;
        service.cost()
    })];
    let costs = contest(what, lab.rounds, &mut ours)?;
    table.row_within(what, [("system-image-dbus", &costs[0])], IDLE);

    let what = "the service, started and then waiting after a check";
    let mut ours = [Side::new("ours", || {
        let service = Service::start(lab, offer, &bus)?;
        service.ask("CheckForUpdate")?;
        let before = Instant::now();
        while service
            .ask("Information")?
            .contains("'target_build_number': '-1'")
        {
            ensure!(before.elapsed() < PATIENCE, "the check does not end");
            sleep(PERIOD);
        }
        service.cost()
    })];
    let costs = contest(what, lab.rounds, &mut ours)?;
    table.row_within(what, [("system-image-dbus", &costs[0])], IDLE);
    Ok(())
}

/// The service on a bus. It ends when dropped.
struct Service<'a> {
    bus: &'a Bus,
    child: Child,
    started: Instant,
}

impl<'a> Service<'a> {
    fn start(lab: &Lab, offer: &Offer, bus: &'a Bus) -> anyhow::Result<Self> {
        // What an earlier one found out is not there.
        let state = offer.state();
        if state.exists() {
            fs::remove_dir_all(&state).with_context(|| format!("cannot remove `{state}`"))?;
        }
        let mut program = bus.program(lab.programs.join("system-image-dbus").as_str());
        program.args(["-C", offer.config().as_str()]);
        let started = Instant::now();
        let child = program.spawn().context("cannot run system-image-dbus")?;
        bus.wait_for(NAME);
        Ok(Self {
            bus,
            child,
            started,
        })
    }

    fn ask(&self, method: &str) -> anyhow::Result<String> {
        let method = format!("{NAME}.{method}");
        let answer = self.bus.try_call(NAME, PATH, &method, &[]);
        ensure!(answer.status.success(), "{method}: {answer:?}");
        Ok(String::from_utf8(answer.stdout)?)
    }

    /// What it has used, and what it holds once it has noticed that nobody asks.
    fn cost(&self) -> anyhow::Result<Cost> {
        let seconds = self.started.elapsed().as_secs_f64();
        sleep(NOTICES);
        let used = process::used(self.child.id())?;
        Ok(Cost {
            seconds,
            cpu: used.cpu,
            memory: used.resident,
        })
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

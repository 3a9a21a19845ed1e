//! One run: finds the command file, verifies everything, then takes its steps.
//!
//! Up to [`Journal::begin`] nothing of the device is changed, so every “no” before it is a
//! [`Failure::Refused`] that leaves the system as it was. After it the system is mixed until the
//! last step: a [`Failure::Interrupted`], a signal or a power cut then leaves the command file
//! under its `.applying` name, and the next run continues with the step that was under way.

use std::collections::VecDeque;
use std::fs::{File, FileTimes};
use std::io::{self, Write};
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_delta::{Root, Skipped};
use system_image_formats::command::CommandFile;
use system_image_report::Size;
use system_image_trust::Now;

use crate::config::Settings;
use crate::drop_box::{DropBox, DropBoxError};
use crate::hint::hint;
use crate::journal::{Journal, Noted};
use crate::keyrings;
use crate::log;
use crate::outcome::{Ending, Outcome};
use crate::plan::{Plan, Step};
use crate::progress::Progress;
use crate::system::{self, Deployment};
use crate::tarball::Tarball;

/// Its modification time is when the system was last updated, for the settings application.
const LAST_UPDATE: &str = ".last_update";

/// How a run failed.
#[derive(Debug)]
pub enum Failure {
    /// The system is as it was, and nothing is left to be done.
    Refused(anyhow::Error),
    /// The system is mixed: it must not be booted before a run has succeeded.
    Interrupted(anyhow::Error),
}

/// Carries out the command file at `command_file`, after one that an earlier run left unfinished.
///
/// `now` is what the device's clock says. Progress goes to `out` as the recovery reads it, the
/// log to standard error, and the outcome to the result file of the settings.
pub fn run(
    settings: &Settings,
    command_file: Utf8PathBuf,
    now: Now,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let journal = Journal::new(command_file);
    match DropBox::open(&settings.drop_box) {
        Ok(drop_box) => Run {
            settings,
            journal,
            drop_box,
            now,
        }
        .all(out),
        // The other one is at it: its command file is not to be touched.
        Err(busy @ DropBoxError::Busy { .. }) => Err(Failure::Refused(busy.into())),
        Err(error) => Err(refuse(Some(settings), &journal, None, error.into())),
    }
}

/// Puts a refused command file aside and says so in the result file, if the settings say where
/// that is.
pub fn refuse(
    settings: Option<&Settings>,
    journal: &Journal,
    plan: Option<&Plan>,
    error: anyhow::Error,
) -> Failure {
    match journal.refuse() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log(&format!("the command file cannot be put aside: {error}"));
        }
        _ => {}
    }
    if let Some(settings) = settings {
        report(settings, Ending::Refused, plan, Some(&error));
    }
    Failure::Refused(error)
}

/// What one run works with.
struct Run<'a> {
    settings: &'a Settings,
    journal: Journal,
    drop_box: DropBox,
    now: Now,
}

/// Where the work on a command file ended.
enum Stopped {
    /// Before its first change.
    Before(Option<Plan>, anyhow::Error),
    /// In the middle of the changes.
    Amid(Plan, anyhow::Error),
}

/// Whether a command file is a new one or one whose steps have begun.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Begun,
}

impl Run<'_> {
    fn all(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let begun = self
            .journal
            .begun()
            .context("cannot read the interrupted command file");
        let begun = begun.map_err(Failure::Interrupted)?;
        let fresh = self.journal.fresh().context("cannot read the command file");
        let mut fresh = fresh.map_err(|error| self.refused(None, error))?;
        let Some(begun) = begun else {
            let missing = || Failure::Refused(anyhow!("there is no command file"));
            return self.start(&fresh.ok_or_else(missing)?, out);
        };
        // A full installation needs nothing of the old system: it ends the matter, and helps
        // where the interrupted update cannot be continued.
        if let Some(full) = fresh.take_if(|noted| is_full(noted)) {
            log("a full installation takes the place of the interrupted update");
            match self.start(&full, out) {
                Err(Failure::Refused(error)) => log(&format!("it is refused: {error:#}")),
                ended => return ended,
            }
        }
        self.resume(&begun, out)?;
        fresh.map_or(Ok(()), |fresh| self.start(&fresh, out))
    }

    /// Carries out a new command file.
    fn start(&self, noted: &Noted, out: &mut dyn Write) -> Result<(), Failure> {
        match self.carry_out(noted, State::Fresh, out) {
            Ok(()) => Ok(()),
            Err(Stopped::Before(plan, error)) => Err(self.refused(plan.as_ref(), error)),
            Err(Stopped::Amid(plan, error)) => Err(self.interrupted(Some(&plan), error)),
        }
    }

    /// Continues a command file whose steps have begun.
    fn resume(&self, noted: &Noted, out: &mut dyn Write) -> Result<(), Failure> {
        log(&format!(
            "continuing an interrupted update; {} steps are done",
            noted.done
        ));
        match self.carry_out(noted, State::Begun, out) {
            Ok(()) => Ok(()),
            Err(Stopped::Before(plan, error)) => {
                let error = error.context("the interrupted update cannot be continued");
                Err(self.interrupted(plan.as_ref(), error))
            }
            Err(Stopped::Amid(plan, error)) => Err(self.interrupted(Some(&plan), error)),
        }
    }

    fn refused(&self, plan: Option<&Plan>, error: anyhow::Error) -> Failure {
        refuse(Some(self.settings), &self.journal, plan, error)
    }

    fn interrupted(&self, plan: Option<&Plan>, error: anyhow::Error) -> Failure {
        report(self.settings, Ending::Interrupted, plan, Some(&error));
        Failure::Interrupted(error)
    }

    fn carry_out(&self, noted: &Noted, state: State, out: &mut dyn Write) -> Result<(), Stopped> {
        let plan = plan(noted).map_err(|error| Stopped::Before(None, error))?;
        if noted.finished {
            return self
                .finish(&plan)
                .map_err(|error| Stopped::Amid(plan, error));
        }
        let sizes = self.sizes(&plan, noted.done);
        let mut progress = Progress::start(sizes, out);
        let deployment = system::at(&self.settings.system);
        let ready = self
            .verify(&plan, noted.done, &*deployment, &mut progress)
            .and_then(|ready| {
                if state == State::Fresh {
                    check_room(&ready, &*deployment)?;
                    self.journal
                        .begin()
                        .context("cannot rename the command file")?;
                }
                Ok(ready)
            });
        let tarballs = match ready {
            Ok(tarballs) => tarballs,
            Err(error) => return Err(Stopped::Before(Some(plan), error)),
        };
        let done = self
            .take_steps(&plan, noted.done, tarballs, &*deployment, &mut progress)
            .and_then(|()| self.finish(&plan));
        done.map_err(|error| Stopped::Amid(plan, error))?;
        progress.finish();
        Ok(())
    }

    /// Sizes of the tarballs that are still to be applied. What cannot be read is told later.
    fn sizes(&self, plan: &Plan, done: usize) -> Vec<u64> {
        let size = |step: &Step| match step {
            Step::Update(signed) => Some(self.drop_box.file(signed.file()).ok()?.metadata().ok()?),
            _ => None,
        };
        plan.steps
            .iter()
            .skip(done)
            .filter_map(size)
            .map(|meta| meta.len())
            .collect()
    }

    /// Verifies all that the steps after the first `done` need. Changes nothing.
    fn verify(
        &self,
        plan: &Plan,
        done: usize,
        deployment: &dyn Deployment,
        progress: &mut Progress<&mut dyn Write>,
    ) -> anyhow::Result<VecDeque<Tarball>> {
        for words in &plan.skipped {
            log(&format!("skipped: {words}"));
        }
        deployment.check()?;
        let settings = self.settings;
        let chain = keyrings::load(
            &settings.archive_master,
            &plan.keyrings,
            &self.drop_box,
            &settings.data,
            settings.device.clone(),
            self.now,
        )?;
        let signers = chain.index_signers()?;
        let mut tarballs = VecDeque::new();
        for step in plan.steps.iter().skip(done) {
            let Step::Update(signed) = step else {
                continue;
            };
            log(&format!("verifying {}", signed.file()));
            let mut read = |bytes| progress.add(bytes);
            let limits = settings.limits;
            let tarball = Tarball::verify(&self.drop_box, signed, &signers, limits, &mut read)?;
            for route in &tarball.left_out {
                log(&format!("{}: left out {route:?}", signed.file()));
            }
            tarballs.push_back(tarball);
        }
        Ok(tarballs)
    }

    /// Takes the steps after the first `done`; what only makes the system accessible is taken
    /// again.
    fn take_steps(
        &self,
        plan: &Plan,
        done: usize,
        mut tarballs: VecDeque<Tarball>,
        deployment: &dyn Deployment,
        progress: &mut Progress<&mut dyn Write>,
    ) -> anyhow::Result<()> {
        let mut mounted = None;
        let mut steps = || -> anyhow::Result<()> {
            for (index, step) in plan.steps.iter().enumerate() {
                match step {
                    Step::Mount if needed(plan, index, done) => {
                        log("mounting the system");
                        mounted = Some(deployment.mount()?);
                    }
                    Step::Unmount => {
                        if let Some(root) = mounted.take() {
                            deployment.unmount(root)?;
                        }
                    }
                    Step::Format if index >= done => {
                        log("formatting the system");
                        deployment.format()?;
                        self.note_done(index + 1)?;
                    }
                    Step::Update(_) if index >= done => {
                        let root = mounted.as_ref().context("the system is not mounted")?;
                        let tarball = tarballs.pop_front().context("a tarball is missing")?;
                        self.install(&tarball, root, progress)?;
                        self.note_done(index + 1)?;
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        let taken = steps();
        // A failed run leaves nothing mounted either; its own error is the one to tell.
        if let Some(root) = mounted
            && let Err(error) = deployment.unmount(root)
        {
            log(&format!("the system stays mounted: {error}"));
        }
        taken
    }

    fn install(
        &self,
        tarball: &Tarball,
        root: &Root,
        progress: &mut Progress<&mut dyn Write>,
    ) -> anyhow::Result<()> {
        let settings = self.settings;
        let mut read = |bytes| progress.add(bytes);
        let applied = tarball.install(root, settings.limits, settings.privileges, &mut read)?;
        // Before anything says that it is done.
        root.sync().context("cannot write the system to the disk")?;
        let name = tarball.signed.file();
        let (members, removed, bytes) = (applied.members, applied.removed, applied.bytes);
        log(&format!(
            "{name}: placed {members} members with {bytes} bytes, removed {removed}"
        ));
        if applied.skipped != Skipped::default() {
            let Skipped {
                owners,
                devices,
                xattrs,
            } = applied.skipped;
            log(&format!(
                "{name}: left out without root: {owners} owners, {devices} devices, {xattrs} attributes"
            ));
        }
        Ok(())
    }

    fn note_done(&self, done: usize) -> anyhow::Result<()> {
        self.journal
            .note_done(done)
            .context("cannot note a finished step in the command file")
    }

    /// All steps are done: tells the running system, and cleans away what was consumed and
    /// nothing else.
    fn finish(&self, plan: &Plan) -> anyhow::Result<()> {
        let stamp = self.settings.data.join(LAST_UPDATE);
        if let Err(error) = touch(&stamp) {
            log(&format!("cannot set the time of `{stamp}`: {error}"));
        }
        report(self.settings, Ending::Installed, Some(plan), None);
        // From here on files may be missing, and a next run must not look for them.
        self.journal
            .note_finished()
            .context("cannot note the end in the command file")?;
        for signed in plan.keyrings.iter().chain(plan.updates()) {
            self.drop_box.remove(signed.file())?;
            self.drop_box.remove(signed.signature())?;
        }
        self.journal.end().context("cannot remove the command file")
    }
}

/// Refuses a tarball whose files cannot fit, whatever is removed before.
///
/// Only each by itself: the next one may replace the files of the one before.
fn check_room(tarballs: &VecDeque<Tarball>, deployment: &dyn Deployment) -> Result<(), NoRoom> {
    let capacity = match deployment.capacity() {
        Ok(Some(capacity)) => capacity,
        Ok(None) => return Ok(()),
        Err(error) => {
            log(&format!("not known how much fits: {error}"));
            return Ok(());
        }
    };
    match tarballs.iter().find(|t| t.solid_bytes > capacity) {
        None => Ok(()),
        Some(tarball) => Err(NoRoom {
            name: tarball.signed.file().to_string(),
            bytes: Size(tarball.solid_bytes),
            capacity: Size(capacity),
        }),
    }
}

/// A tarball that cannot fit. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` has {bytes} of files, the system's file system only {capacity}")]
pub struct NoRoom {
    name: String,
    bytes: Size,
    capacity: Size,
}

fn plan(noted: &Noted) -> anyhow::Result<Plan> {
    let file = CommandFile::parse(&noted.text).context("cannot read the command file")?;
    Ok(Plan::of(&file)?)
}

fn is_full(noted: &Noted) -> bool {
    plan(noted).is_ok_and(|plan| plan.is_full())
}

/// Whether anything between this `mount` and its `unmount` is still to be done.
fn needed(plan: &Plan, mount: usize, done: usize) -> bool {
    let between = plan.steps.iter().enumerate().skip(mount);
    let mut between = between.take_while(|(_, step)| **step != Step::Unmount);
    between.any(|(index, step)| index >= done && matches!(step, Step::Update(_)))
}

fn touch(path: &Utf8Path) -> io::Result<()> {
    let times = FileTimes::new().set_modified(SystemTime::now());
    let file = File::options().create(true).append(true).open(path)?;
    file.set_times(times)?;
    file.sync_all()
}

/// Writes the result file. The update does not depend on it, so a failure is only logged.
fn report(settings: &Settings, ending: Ending, plan: Option<&Plan>, error: Option<&anyhow::Error>) {
    let updates = plan.into_iter().flat_map(Plan::updates);
    let mut outcome = Outcome::new(
        ending,
        updates.map(|signed| signed.file().to_string()).collect(),
    );
    outcome.full = plan.map(Plan::is_full);
    if let Some(error) = error {
        let causes = error.chain().map(ToString::to_string);
        outcome.reason = causes
            .map(|cause| system_image_report::printable(&cause))
            .collect();
        // Some libraries repeat their cause as their own text.
        outcome.reason.dedup();
        outcome.hint = hint(error);
    }
    if let Err(error) = outcome.write(&settings.result) {
        log(&format!("cannot write `{}`: {error}", settings.result));
    }
}

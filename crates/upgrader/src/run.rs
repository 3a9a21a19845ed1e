//! One run: finds the command file, prepares everything, then does the work.
//!
//! Up to [`Journal::begin`] nothing is changed that anybody sees, so every “no” before it is a
//! [`Failure::Refused`] that leaves the device as it was. After it the work is done piece by piece; a
//! signal or a power cut then leaves the command file under its `.applying` name, and the next run
//! continues with the piece that was under way.

use std::fs::{File, FileTimes};
use std::io::{self, Write};
use std::time::SystemTime;

use anyhow::{Context, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::command::CommandFile;
use system_image_trust::Now;

use crate::config::Settings;
use crate::deploy;
use crate::drop_box::{DropBox, DropBoxError};
use crate::hint::hint;
use crate::journal::{Begun, Journal, Way};
use crate::log;
use crate::outcome::{Ending, Outcome, Taken};
use crate::plan::Plan;
use crate::prepare::{self, Prepared};
use crate::progress::{Form, Progress};
use crate::work::{self, Work};

/// Its modification time is when the system was last updated, for the settings application.
const LAST_UPDATE: &str = ".last_update";

/// Swap that early upgraders made on user data, by its name and its size in bytes. They delete it too.
const OLD_SWAP: (&str, u64) = ("SWAP.img", 512 << 20);

/// How a run failed.
#[derive(Debug)]
pub enum Failure {
    /// The device is as it was, and nothing is left to be done.
    Refused(anyhow::Error),
    /// The work has begun: the system must not be booted before a run has succeeded.
    Interrupted(anyhow::Error),
    /// It was continued as often as the settings allow, and is not any more.
    Failed(anyhow::Error),
}

/// What all parts of one run work with.
#[derive(Debug)]
pub struct Run<'a> {
    /// The device description.
    pub settings: &'a Settings,
    /// What the device's clock says.
    pub now: Now,
    /// The command file.
    pub journal: Journal,
    /// Where the files are that it names.
    pub drop_box: DropBox,
}

/// What is told of a run as it goes.
#[expect(
    missing_debug_implementations,
    reason = "where progress is written to has none"
)]
pub struct Told<'a> {
    /// For the recovery.
    pub progress: Progress<&'a mut dyn Write>,
    /// For the result file.
    pub steps: Vec<Taken>,
}

impl Told<'_> {
    /// Takes a step: says so, and notes how long it took and what it wrote.
    pub fn step<T>(
        &mut self,
        what: &str,
        take: impl FnOnce(&mut Self) -> anyhow::Result<(T, u64)>,
    ) -> anyhow::Result<T> {
        log(what);
        self.progress.say(what);
        let start = std::time::Instant::now();
        let (done, bytes) = take(self)?;
        self.steps.push(Taken {
            step: what.to_owned(),
            seconds: start.elapsed().as_secs_f64(),
            bytes,
        });
        Ok(done)
    }
}

/// Carries out the command file at `command_file`, after one that an earlier run left unfinished.
///
/// `now` is what the device's clock says. Progress goes to `out` as the recovery reads it, the
/// log to standard error and its file, and the outcome to the result file of the settings.
pub fn run(
    settings: &Settings,
    command_file: Utf8PathBuf,
    now: Now,
    form: Form,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let journal = Journal::new(command_file);
    match DropBox::open(&settings.drop_box) {
        Ok(drop_box) => Run {
            settings,
            now,
            journal,
            drop_box,
        }
        .all(form, out),
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
        report(settings, Ending::Refused, plan, Vec::new(), Some(&error));
    }
    Failure::Refused(error)
}

impl Run<'_> {
    fn all(&self, form: Form, out: &mut dyn Write) -> Result<(), Failure> {
        let begun = self
            .journal
            .begun()
            .context("cannot read the interrupted command file");
        let begun = begun.map_err(Failure::Interrupted)?;
        let fresh = self.journal.fresh().context("cannot read the command file");
        let mut fresh = fresh.map_err(|error| self.refused(None, error))?;
        let Some(begun) = begun else {
            if let Err(error) = self.journal.sweep() {
                log(&format!("cannot remove an old journal: {error}"));
            }
            let missing = || Failure::Refused(anyhow!("there is no command file"));
            return self.start(&fresh.ok_or_else(missing)?, form, out);
        };
        if !begun.is_ours {
            return self.take_over(&begun, fresh, form, out);
        }
        // A full installation needs nothing of the old system: it ends the matter, and helps
        // where the interrupted update cannot be continued.
        if let Some(full) = fresh.take_if(|text| is_full(text)) {
            log("a full installation takes the place of the interrupted update");
            match self.start(&full, form, out) {
                Err(Failure::Refused(error)) => log(&format!("it is refused: {error:#}")),
                ended => return ended,
            }
        }
        self.resume(&begun, form, out)?;
        fresh.map_or(Ok(()), |fresh| self.start(&fresh, form, out))
    }

    /// What another upgrader began and did not finish is begun again from its start: how far it got
    /// is not known, and laying the same archives over it once more gives the same. A newer command
    /// file takes its place.
    fn take_over(
        &self,
        begun: &Begun,
        fresh: Option<Vec<u8>>,
        form: Form,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        if let Some(fresh) = fresh {
            log("an unfinished update is given up for a newer one");
            let given_up = self.journal.give_up();
            given_up
                .context("cannot put the unfinished command file aside")
                .map_err(Failure::Interrupted)?;
            return self.start(&fresh, form, out);
        }
        log("an unfinished update is begun again");
        let taken = self.journal.begin_again();
        taken
            .context("cannot rename the unfinished command file")
            .map_err(Failure::Interrupted)?;
        self.start(&begun.text, form, out)
    }

    /// Carries out a new command file.
    fn start(&self, text: &[u8], form: Form, out: &mut dyn Write) -> Result<(), Failure> {
        let plan = plan(text).map_err(|error| self.refused(None, error))?;
        for words in &plan.skipped {
            log(&format!("skipped: {words}"));
        }
        let mut told = self.told(&plan, form, out);
        let prepared = prepare::prepare(self, &plan, &mut told)
            .map_err(|error| self.refused(Some(&plan), error))?;
        self.work(&plan, prepared, 0, told)
    }

    /// Continues a command file whose changes have begun.
    fn resume(&self, begun: &Begun, form: Form, out: &mut dyn Write) -> Result<(), Failure> {
        let plan = plan(&begun.text).map_err(|error| self.interrupted(None, Vec::new(), error))?;
        if begun.finished {
            let ended = self.clean_up(&plan);
            return ended.map_err(|error| self.interrupted(Some(&plan), Vec::new(), error));
        }
        log(&format!(
            "continuing an interrupted update; {} pieces of work are done",
            begun.done
        ));
        match prepare::is_lost(self, &plan, begun) {
            Ok(true) => return self.take_over(begun, None, form, out),
            Ok(false) => {}
            Err(error) => log(&format!("it is not known how far it got: {error:#}")),
        }
        if begun.attempts >= self.settings.attempts {
            return Err(self.give_up(&plan, begun));
        }
        let mut told = self.told(&plan, form, out);
        let ready = self
            .journal
            .note_attempt()
            .context("cannot note an attempt in the journal")
            .and_then(|()| prepare::again(self, &plan, begun, &mut told))
            .context("the interrupted update cannot be continued");
        match ready {
            Ok(prepared) => self.work(&plan, prepared, begun.done, told),
            Err(error) => Err(self.interrupted(Some(&plan), told.steps, error)),
        }
    }

    /// Does the work after the first `done` pieces, and ends the matter.
    fn work(
        &self,
        plan: &Plan,
        mut prepared: Prepared,
        done: usize,
        mut told: Told<'_>,
    ) -> Result<(), Failure> {
        let is_trial = prepared.slot.is_some();
        let mut all = || -> anyhow::Result<()> {
            let pieces = work::of(plan, prepared.way);
            for (index, piece) in pieces.iter().enumerate().skip(done) {
                work::take(self, plan, &mut prepared, piece, &mut told)?;
                self.journal
                    .note_done(index + 1)
                    .context("cannot note finished work in the journal")?;
            }
            work::take(self, plan, &mut prepared, &Work::PutAway, &mut told)?;
            self.touch_last_update();
            Ok(())
        };
        if let Err(error) = all() {
            // A failed run leaves nothing mounted either; its own error is the one to tell.
            prepared.put_away();
            return Err(self.interrupted(Some(plan), told.steps, error));
        }
        let ending = if is_trial {
            Ending::Trying
        } else {
            Ending::Installed
        };
        let mut outcome = outcome(ending, Some(plan), told.steps, None);
        outcome.slot.clone_from(&prepared.slot);
        write(self.settings, &outcome);
        let noted = self.journal.note_finished();
        let ended = noted
            .context("cannot note the end in the journal")
            .and_then(|()| self.clean_up(plan));
        ended.map_err(|error| self.interrupted(Some(plan), Vec::new(), error))?;
        told.progress.finish();
        Ok(())
    }

    /// An update that gets no further is not tried for ever. What was only prepared is removed again,
    /// and the device stays as it was.
    fn give_up(&self, plan: &Plan, begun: &Begun) -> Failure {
        let whole = prepare::give_up(self, plan, begun).unwrap_or_else(|error| {
            log(&format!("what was prepared stays: {error:#}"));
            false
        });
        if let Err(error) = self.journal.give_up() {
            log(&format!("the command file cannot be put aside: {error}"));
        }
        let error = GaveUp {
            attempts: begun.attempts,
            whole,
        };
        let error = anyhow::Error::from(error);
        report(
            self.settings,
            Ending::Failed,
            Some(plan),
            Vec::new(),
            Some(&error),
        );
        Failure::Failed(error)
    }

    fn told<'a>(&self, plan: &Plan, form: Form, out: &'a mut dyn Write) -> Told<'a> {
        // What cannot be read is told later.
        let size = |signed: &system_image_formats::command::SignedFile| {
            let meta = self.drop_box.file(signed.file()).ok()?.metadata().ok()?;
            Some(meta.len())
        };
        let sizes: Vec<_> = plan.updates().filter_map(size).collect();
        Told {
            progress: Progress::start(sizes, form, out),
            steps: Vec::new(),
        }
    }

    fn refused(&self, plan: Option<&Plan>, error: anyhow::Error) -> Failure {
        refuse(Some(self.settings), &self.journal, plan, error)
    }

    fn interrupted(&self, plan: Option<&Plan>, steps: Vec<Taken>, error: anyhow::Error) -> Failure {
        report(
            self.settings,
            Ending::Interrupted,
            plan,
            steps,
            Some(&error),
        );
        Failure::Interrupted(error)
    }

    fn touch_last_update(&self) {
        let stamp = self.settings.data.join(LAST_UPDATE);
        if let Err(error) = touch(&stamp) {
            log(&format!("cannot set the time of `{stamp}`: {error}"));
        }
        let (name, size) = OLD_SWAP;
        let swap = self.settings.data.join(name);
        if swap
            .symlink_metadata()
            .is_ok_and(|found| found.is_file() && found.len() == size)
            && let Err(error) = std::fs::remove_file(&swap)
        {
            log(&format!("cannot remove `{swap}`: {error}"));
        }
    }

    /// Cleans away what was consumed and nothing else. From here on files may be missing, and a next
    /// run does not look for them.
    fn clean_up(&self, plan: &Plan) -> anyhow::Result<()> {
        for signed in plan.keyrings.iter().chain(plan.updates()) {
            self.drop_box.remove(signed.file())?;
            self.drop_box.remove(signed.signature())?;
        }
        for name in plan.files() {
            self.drop_box.remove(name)?;
        }
        self.journal.end().context("cannot remove the command file")
    }
}

/// An update that was continued again and again.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "the update was continued {attempts} times and got no further; {}",
    if *.whole { "the system is as it was before" } else { "the system is not whole" }
)]
pub struct GaveUp {
    attempts: u32,
    /// Whether the system is as it was.
    pub whole: bool,
}

fn plan(text: &[u8]) -> anyhow::Result<Plan> {
    let file = CommandFile::parse(text).context("cannot read the command file")?;
    Ok(Plan::of(&file)?)
}

fn is_full(text: &[u8]) -> bool {
    plan(text).is_ok_and(|plan| plan.is_full())
}

fn touch(path: &Utf8Path) -> io::Result<()> {
    let times = FileTimes::new().set_modified(SystemTime::now());
    let file = File::options().create(true).append(true).open(path)?;
    file.set_times(times)?;
    file.sync_all()
}

/// Writes the result file.
fn report(
    settings: &Settings,
    ending: Ending,
    plan: Option<&Plan>,
    steps: Vec<Taken>,
    error: Option<&anyhow::Error>,
) {
    write(settings, &outcome(ending, plan, steps, error));
}

/// The update does not depend on it, so a failure is only logged.
pub fn write(settings: &Settings, outcome: &Outcome) {
    if let Err(error) = outcome.write(&settings.result) {
        log(&format!("cannot write `{}`: {error}", settings.result));
    }
}

/// What the result file says of a run.
pub fn outcome(
    ending: Ending,
    plan: Option<&Plan>,
    steps: Vec<Taken>,
    error: Option<&anyhow::Error>,
) -> Outcome {
    let updates = plan.into_iter().flat_map(Plan::updates);
    let files = updates.map(|signed| signed.file().to_string()).collect();
    let mut outcome = Outcome::new(ending, files);
    outcome.full = plan.map(Plan::is_full);
    outcome.steps = steps;
    if let Some(error) = error {
        let causes = error.chain().map(ToString::to_string);
        outcome.reason = causes
            .map(|cause| system_image_report::printable(&cause))
            .collect();
        // Some libraries repeat their cause as their own text.
        outcome.reason.dedup();
        outcome.hint = hint(error);
    }
    outcome
}

/// Whether an error is, or comes from, a disk that is full.
pub(crate) fn is_for_want_of_room(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let deploy = cause.downcast_ref::<deploy::DeployError>();
        let io = cause.downcast_ref::<io::Error>();
        deploy.is_some_and(deploy::DeployError::is_full) || io.is_some_and(deploy::is_full)
    })
}

/// How the changes of a plan are made if nothing has to be prepared.
pub(crate) const WITHOUT_SYSTEM: Way = Way::Prepared;

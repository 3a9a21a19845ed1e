//! How it ends: a device that was cut off is left to its recovery, and is old or new, or it failed.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output};

use anyhow::{bail, ensure};
use system_image_testkit::tree::{Snapshot, differences};

use crate::device::Running;

/// How often a recovery starts the upgrader before somebody would have to help.
const STARTS: u32 = 4;

/// What the upgrader's exit status says (`docs/upgrader.md`).
const INSTALLED: i32 = 0;
const REFUSED: i32 = 1;
const INTERRUPTED: i32 = 3;

/// What may be seen of a device.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Before the update.
    pub(crate) old: Snapshot,
    /// After it.
    pub(crate) new: Snapshot,
}

/// A good end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The update was refused, and the device is as it was.
    Old,
    /// The update is installed.
    New,
    /// Nothing happened: the call that was to be disturbed did not come.
    Undisturbed,
}

/// Starts the upgrader, undisturbed, as long as a recovery would; then looks.
///
/// `first` is how the disturbed upgrader ended; none after a power cut.
pub(crate) fn settle(
    running: &Running<'_>,
    first: Option<&Output>,
    wanted: &Wanted,
) -> anyhow::Result<Ended> {
    let recovery = running.recovery();
    if let Some(output) = first.filter(|output| !killed(output.status)) {
        judge(running, output, wanted)?;
    }
    let mut starts = 0;
    while recovery.has_work() {
        starts += 1;
        let output = recovery.upgrade();
        judge(running, &output, wanted)?;
        ensure!(
            starts < STARTS || !recovery.has_work(),
            "still interrupted after {STARTS} starts: {}",
            log(&output)
        );
    }
    if recovery.has_refused() {
        compare(running, &wanted.old, "refused")?;
        return Ok(Ended::Old);
    }
    compare(running, &wanted.new, "installed")?;
    Ok(Ended::New)
}

/// Whether the device is what an exit status says of it.
fn judge(running: &Running<'_>, output: &Output, wanted: &Wanted) -> anyhow::Result<()> {
    let has_work = running.recovery().has_work();
    match output.status.code() {
        Some(INSTALLED) if has_work => bail!("installed, and the command file is still there"),
        // It was refused, and yet it will be tried again.
        Some(REFUSED) if has_work => compare(running, &wanted.old, "refused"),
        // Nothing will be tried again: what it is is compared now.
        Some(INSTALLED | REFUSED | INTERRUPTED) => Ok(()),
        _ => bail!("ended with {}: {}", output.status, log(output)),
    }
}

fn compare(running: &Running<'_>, want: &Snapshot, says: &str) -> anyhow::Result<()> {
    match differences(&running.look()?, want) {
        None => Ok(()),
        Some(differences) => bail!("{says}, and the system is another: {differences}"),
    }
}

/// Whether it was ended by `SIGKILL`.
fn killed(status: ExitStatus) -> bool {
    status.signal() == Some(rustix::process::Signal::KILL.as_raw())
}

/// The end of what the upgrader said, without where in its code that was.
fn log(output: &Output) -> String {
    const LINES: usize = 6;
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().take_while(|line| *line != "stack backtrace:");
    let lines: Vec<_> = lines.collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

//! Slots that are tried: looked at, confirmed after their health checks, or left again.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use system_image_durable as durable;
use system_image_slots::{Boot, SlotName};

use crate::config::{Settings, Slots};
use crate::deploy::slot;
use crate::log;
use crate::outcome::Ending;
use crate::run;

/// How often to ask whether a health check has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// Longest record that is read, in bytes.
const MAX_RECORD: usize = 64 << 10;

/// Why a slot that was tried did not prove itself: kept for the old one, which tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Failed {
    slot: SlotName,
    reason: String,
}

/// The running slot is being tried, and a health check failed: the next try is to begin.
#[derive(Debug, thiserror::Error)]
#[error("slot {0} is not confirmed")]
pub struct Unwell(SlotName);

fn slots(settings: &Settings) -> anyhow::Result<&Slots> {
    settings.slots().context("this device has no slots")
}

/// Prints which slot runs, and what boots next.
pub fn status(settings: &Settings, json: bool) -> anyhow::Result<()> {
    let slots = slots(settings)?;
    let running = slot::running(slots)?;
    let boot = slot::boot_control(slots).read()?;
    if json {
        let trial = boot
            .trial
            .as_ref()
            .map(|trial| serde_json::json!({"slot": trial.slot.as_str(), "left": trial.left}));
        let object = serde_json::json!({
            "running": running.as_str(),
            "default": boot.default.as_str(),
            "next": boot.next().as_str(),
            "trial": trial,
        });
        println!("{object}");
        return Ok(());
    }
    let mut text = format!("running  {running}\ndefault  {}\n", boot.default);
    if let Some(trial) = &boot.trial {
        let _ = writeln!(text, "trial    {}, {} tries left", trial.slot, trial.left);
    }
    println!("{text}next     {}", boot.next());
    Ok(())
}

/// What a late start does about the slots.
#[derive(Debug, PartialEq, Eq)]
enum Matter {
    /// Nothing is being tried, or what is tried boots next time.
    None,
    /// The running slot is being tried.
    Tried,
    /// A slot was tried in vain.
    FellBack(SlotName),
}

/// Decides from what runs and what the boot loader says.
fn matter(running: &SlotName, boot: &Boot) -> Matter {
    match &boot.trial {
        Some(trial) if trial.slot == *running => Matter::Tried,
        Some(trial) if trial.left == 0 => Matter::FellBack(trial.slot.clone()),
        _ => Matter::None,
    }
}

/// Confirms the running slot, or says that another one did not prove itself.
///
/// The error has [`Unwell`] in it if the device is to be started again. Nothing else is a reason for that:
/// it would not end where no slot is being tried.
pub fn confirm(settings: &Settings) -> anyhow::Result<()> {
    let slots = slots(settings)?;
    let running = slot::running(slots)?;
    let control = slot::boot_control(slots);
    let record = slots.state.join("trial.json");
    match matter(&running, &control.read()?) {
        Matter::None => log(&format!("slot {running} runs, nothing is being tried")),
        Matter::Tried => {
            if let Err(error) = healthy(slots) {
                let failed = Failed {
                    slot: running.clone(),
                    reason: format!("{error:#}"),
                };
                write_record(&record, &failed);
                return Err(error.context(Unwell(running)));
            }
            control.confirm(&running)?;
            durable::remove(&record).context("cannot remove an old record")?;
            log(&format!("slot {running} is confirmed"));
            let mut outcome = run::outcome(Ending::Installed, None, Vec::new(), None);
            outcome.slot = Some(running.to_string());
            run::write(settings, &outcome);
        }
        Matter::FellBack(tried) => {
            let reason = read_record(&record)
                .filter(|failed| failed.slot == tried)
                .map_or_else(
                    || "it did not come up far enough to be confirmed".to_owned(),
                    |failed| failed.reason,
                );
            let error = anyhow::anyhow!(reason).context(format!(
                "slot {tried} was tried in vain, slot {running} runs again"
            ));
            log(&format!("{error:#}"));
            let mut outcome = run::outcome(Ending::FellBack, None, Vec::new(), Some(&error));
            outcome.slot = Some(tried.to_string());
            run::write(settings, &outcome);
            control.abandon()?;
            durable::remove(&record).context("cannot remove an old record")?;
        }
    }
    Ok(())
}

/// Has the other slot boot next, as a trial like any other.
pub fn roll_back(settings: &Settings) -> anyhow::Result<()> {
    let slots = slots(settings)?;
    let target = slot::target(slots)?;
    if !slot::manifest_path(slots, &target).exists() {
        bail!("slot {target} holds no complete system");
    }
    slot::boot_control(slots).try_out(&target, slots.tries)?;
    log(&format!("slot {target} boots next"));
    Ok(())
}

/// Runs the health checks, in order.
fn healthy(slots: &Slots) -> anyhow::Result<()> {
    for words in &slots.health {
        let (program, arguments) = words.split_first().context("a health check is empty")?;
        log(&format!("health check: {}", words.join(" ")));
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run the health check `{program}`"))?;
        let limit = Duration::from_secs(slots.health_seconds);
        match wait(&mut child, limit).with_context(|| format!("cannot wait for `{program}`"))? {
            Some(status) if status.success() => {}
            Some(status) => bail!("the health check `{program}` failed with {status}"),
            None => bail!(
                "the health check `{program}` took longer than {} s",
                limit.as_secs()
            ),
        }
    }
    Ok(())
}

/// Waits for a program, and ends it after `limit`.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        sleep(PAUSE);
    }
}

/// It is for people; the trial fails without it too.
fn write_record(path: &Utf8PathBuf, failed: &Failed) {
    let write = || -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        durable::replace(path, &serde_json::to_vec(failed)?, 0o644)
    };
    if let Err(error) = write() {
        log(&format!("cannot write `{path}`: {error}"));
    }
}

fn read_record(path: &Utf8PathBuf) -> Option<Failed> {
    let bytes = durable::read(path, MAX_RECORD).ok()??;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use system_image_slots::Trial;

    use super::*;

    #[test]
    fn a_trial_is_confirmed_by_who_runs_and_told_by_who_runs_again() {
        let name = |text: &str| text.parse::<SlotName>().unwrap();
        let boot = |trial: Option<(&str, u8)>| Boot {
            default: name("a"),
            trial: trial.map(|(slot, left)| Trial {
                slot: name(slot),
                left,
            }),
        };
        for (running, trial, want) in [
            ("a", None, Matter::None),
            ("b", None, Matter::None),
            ("a", Some(("b", 3)), Matter::None),
            ("b", Some(("b", 2)), Matter::Tried),
            ("b", Some(("b", 0)), Matter::Tried),
            ("a", Some(("b", 0)), Matter::FellBack(name("b"))),
        ] {
            assert_eq!(
                matter(&name(running), &boot(trial)),
                want,
                "{running} {trial:?}"
            );
        }
    }
}

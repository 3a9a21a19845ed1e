//! `check`: looks at the real device, and says what is wrong with its description.

use std::fs;
use std::process::ExitCode;

use anyhow::Context;
use camino::Utf8Path;
use serde::Serialize;
use system_image_trust::{Chain, Now};

use crate::config::{Settings, SystemAt};
use crate::data::reset;
use crate::deploy::{self, slot};
use crate::hint::hint;
use crate::storage;

/// Tables of file systems that recoveries have.
const FSTABS: [&str; 2] = ["/etc/recovery.fstab", "/etc/fstab"];

/// Reads the device description.
pub fn settings(path: &Utf8Path) -> anyhow::Result<Settings> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"))?;
    let fstab = |named: Option<&Utf8Path>| match named {
        Some(path) => fs::read_to_string(path).ok(),
        None => FSTABS.iter().find_map(|path| fs::read_to_string(path).ok()),
    };
    Settings::parse(&text, fstab).with_context(|| format!("`{path}`"))
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What.
    what: String,
    /// What is wrong with it, outermost first; empty if nothing is.
    problem: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Looks at everything and prints what was found.
pub fn run(settings: anyhow::Result<Settings>, path: &Utf8Path, json: bool) -> ExitCode {
    let mut findings = Vec::new();
    match settings {
        Ok(settings) => {
            note(&mut findings, format!("the description `{path}`"), Ok(()));
            look(&settings, &mut findings);
        }
        Err(error) => note(&mut findings, "the description".to_owned(), Err(error)),
    }
    let is_well = findings.iter().all(|finding| finding.problem.is_empty());
    if json {
        println!(
            "{}",
            serde_json::json!({"ok": is_well, "findings": findings})
        );
    } else {
        for Finding {
            what,
            problem,
            hint,
        } in &findings
        {
            if problem.is_empty() {
                println!("ok       {what}");
                continue;
            }
            println!("problem  {what}: {}", problem.join(": "));
            if let Some(hint) = hint {
                println!("         hint: {hint}");
            }
        }
    }
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn note(findings: &mut Vec<Finding>, what: String, result: anyhow::Result<()>) {
    let problem = result.as_ref().err().map(|error| {
        let causes = error.chain().map(ToString::to_string);
        let mut causes: Vec<_> = causes
            .map(|cause| system_image_report::printable(&cause))
            .collect();
        causes.dedup();
        causes
    });
    findings.push(Finding {
        what,
        problem: problem.unwrap_or_default(),
        hint: result.err().and_then(|error| hint(&error)),
    });
}

fn look(settings: &Settings, findings: &mut Vec<Finding>) {
    let anchor = || -> anyhow::Result<()> {
        let bytes = fs::read(&settings.archive_master)?;
        // Whether it has expired is a matter of the clock, which a recovery may lack.
        Chain::new(&bytes, settings.device.clone(), Now::UNKNOWN)?;
        Ok(())
    };
    note(
        findings,
        format!("the trust root `{}`", settings.archive_master),
        anchor(),
    );
    for (what, path) in [
        ("the drop box", Some(&*settings.drop_box)),
        ("user data", Some(&*settings.data)),
        ("the directory of the result", settings.result.parent()),
        (
            "the directory of the log",
            settings.log.as_deref().and_then(Utf8Path::parent),
        ),
    ] {
        if let Some(path) = path {
            note(findings, format!("{what} `{path}`"), writable(path));
        }
    }
    let listed = reset::check(&settings.reset).map_err(Into::into);
    note(
        findings,
        format!("the list of persistent files `{}`", settings.reset.list),
        listed,
    );
    if let SystemAt::Slots(slots) = &settings.system {
        let boot = slot::boot_control(slots).check().map_err(Into::into);
        note(findings, "the boot loader".to_owned(), boot);
        let running = slot::running(slots);
        let running = running.map(drop).map_err(Into::into);
        note(findings, "the running slot".to_owned(), running);
        for name in &slots.names {
            let found = storage::slot(&slots.at, name.as_str())
                .and_then(|storage| storage.capacity())
                .map(drop);
            note(
                findings,
                format!("the slot `{name}`"),
                found.map_err(Into::into),
            );
        }
        for program in slots.health.iter().filter_map(|words| words.first()) {
            let there = fs::metadata(program).map(drop).map_err(Into::into);
            note(findings, format!("the health check `{program}`"), there);
        }
    } else {
        let found = deploy::live(settings).and_then(|storage| match storage {
            Some(storage) => storage.check(),
            None => Ok(()),
        });
        note(findings, "the system".to_owned(), found.map_err(Into::into));
    }
    for (name, device) in &settings.partitions {
        let slots = settings
            .slots()
            .map(|slots| slots.names.as_slice())
            .unwrap_or_default();
        let devices = if device.is_slotted() && !slots.is_empty() {
            slots
                .iter()
                .map(|slot| device.of_slot(slot.as_str()))
                .collect()
        } else {
            vec![device.clone()]
        };
        for device in devices {
            let found = device.find().map_err(anyhow::Error::from).and_then(|path| {
                fs::metadata(&path)
                    .map(drop)
                    .with_context(|| format!("cannot find `{path}`"))
            });
            note(
                findings,
                format!("the partition `{name}` on `{}`", device.as_str()),
                found,
            );
        }
    }
}

/// Whether files can be made in a directory.
fn writable(path: &Utf8Path) -> anyhow::Result<()> {
    let found = fs::metadata(path)?;
    anyhow::ensure!(found.is_dir(), "it is no directory");
    rustix::fs::access(
        path.as_std_path(),
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )?;
    Ok(())
}

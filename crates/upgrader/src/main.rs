//! `system-image-upgrader`: parse, read the settings, run, print the error.

use std::process::ExitCode;
use std::time::SystemTime;
use std::{fs, io};

use anyhow::Context;
use camino::Utf8Path;
use clap::Parser;
use system_image_trust::Now;
use system_image_upgrader::cli::Cli;
use system_image_upgrader::config::Settings;
use system_image_upgrader::hint::hint;
use system_image_upgrader::journal::Journal;
use system_image_upgrader::run::{Failure, refuse, run};

/// The system is mixed: run this again before booting it.
const INTERRUPTED: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match settings(&cli.config) {
        Ok(settings) => run(&settings, cli.command_file, now(), &mut io::stdout()),
        // Under its own name it would send the recovery back here for ever.
        Err(error) => Err(refuse(None, &Journal::new(cli.command_file), None, error)),
    };
    let (error, code) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Refused(error)) => (error, ExitCode::FAILURE),
        Err(Failure::Interrupted(error)) => (error, ExitCode::from(INTERRUPTED)),
    };
    eprint!(
        "{}",
        system_image_report::describe(&error, hint(&error).as_deref())
    );
    code
}

fn settings(path: &Utf8Path) -> anyhow::Result<Settings> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"))?;
    Settings::parse(&text).with_context(|| format!("`{path}`"))
}

/// A clock before 1970 is no clock.
fn now() -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok());
    seconds.map_or(Now::UNKNOWN, Now::from_clock)
}

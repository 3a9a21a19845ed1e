//! `system-image-upgrader`: parse, read the settings, act, print the error.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use camino::Utf8Path;
use clap::Parser;
use system_image_trust::Now;
use system_image_upgrader::cli::{Action, Cli};
use system_image_upgrader::config::Settings;
use system_image_upgrader::hint::hint;
use system_image_upgrader::journal::Journal;
use system_image_upgrader::progress::Form;
use system_image_upgrader::run::{Failure, refuse, run};
use system_image_upgrader::{check, log, trial};

/// Whether the running slot is well could not be found out.
const UNKNOWN: u8 = 2;

/// The system is mixed: run this again before booting it.
const INTERRUPTED: u8 = 3;

/// It was run again too often.
const FAILED: u8 = 4;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let settings = check::settings(&cli.config);
    let result = match (cli.action, cli.command_file) {
        (None, Some(command_file)) => {
            system_image_lean::give_back_at_once();
            return end(upgrade(settings, command_file, cli.progress), cli.progress);
        }
        (Some(Action::Check { json }), _) => return check::run(settings, &cli.config, json),
        (Some(Action::Status { json }), _) => {
            settings.and_then(|settings| trial::status(&settings, json))
        }
        (Some(Action::Confirm), _) => {
            return confirmed(settings.and_then(|settings| trial::confirm(&settings)));
        }
        (Some(Action::RollBack), _) => settings.and_then(|settings| trial::roll_back(&settings)),
        (None, None) => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

fn confirmed(done: anyhow::Result<()>) -> ExitCode {
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    tell(&error);
    if error.is::<trial::Unwell>() {
        ExitCode::FAILURE
    } else {
        ExitCode::from(UNKNOWN)
    }
}

fn upgrade(
    settings: anyhow::Result<Settings>,
    command_file: camino::Utf8PathBuf,
    form: Form,
) -> Result<(), Failure> {
    match settings {
        Ok(settings) => {
            if let Some(path) = &settings.log {
                log_to(path);
            }
            run(&settings, command_file, now(), form, &mut io::stdout())
        }
        // Under its own name it would send the recovery back here for ever.
        Err(error) => Err(refuse(None, &Journal::new(command_file), None, error)),
    }
}

/// The update does not depend on it.
fn log_to(path: &Utf8Path) {
    if let Err(error) = log::also_to(path) {
        let _ = writeln!(io::stderr(), "cannot write the log to `{path}`: {error}");
    }
}

fn end(done: Result<(), Failure>, form: Form) -> ExitCode {
    let (error, code) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Refused(error)) => (error, ExitCode::FAILURE),
        Err(Failure::Interrupted(error)) => (error, ExitCode::from(INTERRUPTED)),
        Err(Failure::Failed(error)) => (error, ExitCode::from(FAILED)),
    };
    if form == Form::Json {
        let object = serde_json::json!({"type": "error", "msg": format!("{error:#}")});
        // Nobody reads it any more: no reason to panic.
        let _ = writeln!(io::stdout(), "{object}");
    }
    tell(&error);
    code
}

fn tell(error: &anyhow::Error) {
    let text = system_image_report::describe(error, hint(error).as_deref());
    let _ = write!(io::stderr(), "{text}");
    log::to_file(&text);
}

/// A clock before 1970 is no clock.
fn now() -> Now {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok());
    seconds.map_or(Now::UNKNOWN, Now::from_clock)
}

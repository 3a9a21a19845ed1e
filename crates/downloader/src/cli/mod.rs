//! The command line: the daemon without a command, and with one its client for people.

mod add;
mod control;
mod list;
mod service;
mod watch;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::service::Service;
use crate::daemon;
use crate::options::Options;

/// Downloads for other programs, over D-Bus
///
/// Without a command this is the service itself, which the message bus starts when somebody calls. It
/// takes -disable-timeout, -stoppable, -self-signed-certs PATTERN, -log-dir DIRECTORY and
/// -state-dir DIRECTORY, and ignores what it does not know. With a command it shows and steers the
/// downloads of the service.
#[derive(Debug, Parser)]
#[command(name = "system-image-downloader", version)]
struct Cli {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    command: Command,
}

/// Which service, and how its answers are shown.
#[derive(Debug, Args)]
struct Which {
    /// The service on the system's bus: root's, which brings system images
    #[arg(long, global = true, conflicts_with = "session")]
    system: bool,
    /// The service on the session's bus: yours (the default, unless you are root)
    #[arg(long, global = true)]
    session: bool,
    /// Print JSON, for machines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Add(add::Add),
    Start(control::Start),
    Pause(control::Pause),
    Resume(control::Resume),
    Cancel(control::Cancel),
    Collect(control::Collect),
    Throttle(control::Throttle),
    MobileData(control::MobileData),
    Watch(watch::Watch),
}

/// The command line's grammar, for manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !is_for_people(&arguments) {
        return daemon::main(&Options::parse(arguments));
    }
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ran = runtime
        .context("cannot begin to run")
        .and_then(|runtime| runtime.block_on(cli.run()));
    match ran {
        Ok(code) => code,
        Err(error) => {
            let hint = service::hint(&error);
            eprint!("{}", system_image_report::describe(&error, hint));
            ExitCode::FAILURE
        }
    }
}

/// Whether somebody wants more than the daemon, whose options all begin with one dash.
fn is_for_people(arguments: &[String]) -> bool {
    const ASKS: [&str; 7] = [
        "--help",
        "-h",
        "--version",
        "-V",
        "--system",
        "--session",
        "--json",
    ];
    let first = arguments.first();
    first.is_some_and(|first| !first.starts_with('-') || ASKS.contains(&first.as_str()))
}

impl Cli {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let is_root = rustix::process::geteuid().is_root();
        let system = self.which.system || is_root && !self.which.session;
        let service = Service::connect(system).await?;
        let json = self.which.json;
        match self.command {
            Command::List(list) => list.run(&service, json).await,
            Command::Add(add) => return add.run(&service, json).await,
            Command::Start(start) => start.run(&service).await,
            Command::Pause(pause) => pause.run(&service).await,
            Command::Resume(resume) => resume.run(&service).await,
            Command::Cancel(cancel) => cancel.run(&service).await,
            Command::Collect(collect) => collect.run(&service).await,
            Command::Throttle(throttle) => throttle.run(&service).await,
            Command::MobileData(mobile_data) => mobile_data.run(&service).await,
            Command::Watch(watch) => watch.run(&service, json).await,
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_one_dash_is_for_the_daemon() {
        Cli::command().debug_assert();
        for (arguments, people) in [
            ("", false),
            ("-stoppable -disable-timeout", false),
            ("-whatever", false),
            ("list", true),
            ("lst", true),
            ("--help", true),
            ("--system list", true),
        ] {
            let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            assert_eq!(is_for_people(&arguments), people, "{arguments:?}");
        }
    }
}

//! `system-image-cli`: the options of the original, their order and their exit codes (client
//! spec, section 2).

mod options;

use std::io::{Write, stdout};
use std::pin::pin;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::{CommandFactory, Parser};
use futures_util::future::{Either, select};
use system_image_formats::config::HookName;
use system_image_formats::name::DeviceName;
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_planner::{Filter, PhaseSource, Plan, Request, Start, phase_channel};

use self::options::Options;
use crate::device::{self, BadConfig, Device, NoConfigDirectory};
use crate::handover;
use crate::log::Log;
use crate::meter::{Meter, Meters};
use crate::server::Server;
use crate::session::{self, DeviceIndex, Facts, Failure, Session, with_fresh_keys};
use crate::update::{self, BadName, NoRoom};

/// Runs the program.
pub fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => return usage_error(&first_line(&error)),
        Err(help) => {
            show(&help.to_string());
            return ExitCode::SUCCESS;
        }
    };
    let device = match Device::load(&options.config) {
        Ok(device) => device,
        Err(error) => match error.downcast_ref::<NoConfigDirectory>() {
            Some(missing) => return usage_error(&missing.to_string()),
            None => return failure(&error),
        },
    };
    match prepare(options, device) {
        Ok(run) => run.dispatch(),
        Err(usage) => usage_error(&usage),
    }
}

/// The grammar of the command line.
pub fn command() -> clap::Command {
    Options::command()
}

/// The usage and one line, as the original's option parser writes it. Exit status 2.
fn usage_error(text: &str) -> ExitCode {
    eprintln!(
        "{}\nsystem-image-cli: error: {text}",
        Options::command().render_usage()
    );
    ExitCode::from(2)
}

/// What the option parser says is wrong, without the usage, which stands before it.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

/// Prints a result. A reader that has gone away has seen what it wanted.
fn show(text: &str) {
    let mut out = stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The whole chain of causes. Exit status 1.
fn failure(error: &anyhow::Error) -> ExitCode {
    eprint!(
        "{}",
        system_image_report::describe(error, hint(error).as_deref())
    );
    ExitCode::FAILURE
}

/// What the person at the keyboard can do about it.
fn hint(error: &anyhow::Error) -> Option<String> {
    let own = error.chain().find_map(|cause| {
        let config = cause.downcast_ref().map(BadConfig::hint);
        let room = || cause.downcast_ref().map(NoRoom::hint);
        let name = || Some(cause.downcast_ref::<BadName>()?.hint().to_owned());
        config.or_else(room).or_else(name)
    });
    own.or_else(|| session::hint(error))
}

/// Everything that one run works with.
struct Run {
    options: Options,
    device: Device,
    name: Option<DeviceName>,
    filter: Option<Filter>,
    meters: Meters,
    log: Arc<Log>,
}

/// Applies the options to the configuration, in the original's order.
fn prepare(options: Options, mut device: Device) -> Result<Run, String> {
    let parsed = |error: &dyn std::fmt::Display| error.to_string();
    let filter = options.filter.as_deref().map(str::parse).transpose();
    let filter: Option<Filter> =
        filter.map_err(|error: system_image_planner::FilterError| parsed(&error))?;
    let system = &device.config.system;
    let log = Arc::new(Log::open(
        &system.logfile,
        system.loglevel.main,
        options.verbose,
    ));

    let service = &mut device.config.service;
    if let Some(channel) = options.channel.as_ref().or(options.switch.as_ref()) {
        service.channel = channel.clone();
    }
    if let Some(build) = &options.build {
        let number = build.trim().parse::<ImageVersion>();
        service.build_number =
            number.map_err(|_| format!("-b/--build requires an integer: {build}"))?;
    } else if options.switch.is_some() {
        service.build_number = ImageVersion::NONE;
    }
    if options.device.is_some() {
        service.device.clone_from(&options.device);
    }
    let mut meters = Vec::new();
    if !options.info && !options.list_channels {
        for name in &options.progress {
            meters.push(name.parse::<Meter>().map_err(|error| error.to_string())?);
        }
    }
    let name = device.name();
    let meters = Meters::new(meters, Arc::clone(&log));
    Ok(Run {
        options,
        device,
        name,
        filter,
        meters,
        log,
    })
}

impl Run {
    fn dispatch(self) -> ExitCode {
        if self.options.info {
            self.info();
            return ExitCode::SUCCESS;
        }
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return failure(&error.into()),
        };
        let (what, result) = runtime.block_on(async {
            if self.options.list_channels {
                ("channel search", self.list_channels().await)
            } else if self.options.dry_run {
                ("dry-run", self.dry_run().await)
            } else {
                ("update", self.update_unless_interrupted().await)
            }
        });
        // A download that was given up may still be writing its last buffer.
        runtime.shutdown_background();
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                self.log.error(&format!("{error:#}"));
                if self.meters.is_json() {
                    let line = serde_json::json!({"type": "error", "msg": format!("{error:#}")});
                    show(&format!("{line}\n"));
                }
                let summary = format!("Exception occurred during {what}; see log file for details");
                failure(&error.context(summary))
            }
        }
    }

    /// Section 2.4. No network.
    fn info(&self) {
        let service = &self.device.config.service;
        let mut text = format!(
            "current build number: {}\ndevice name: {}\nchannel: {}\n",
            service.build_number,
            self.name.as_ref().map_or("?", DeviceName::as_str),
            service.channel
        );
        if let Some(target) = &service.channel_target {
            text += &format!("alias: {target}\n");
        }
        text += &format!("last update: {}\n", self.device.last_update());
        for (key, value) in service.version_detail.to_map().iter().rev() {
            text += &format!("version {key}: {value}\n");
        }
        show(&text);
    }

    /// Section 2.5.
    async fn list_channels(&self) -> anyhow::Result<()> {
        let (server, name) = self.connect()?;
        let facts = self.facts(name);
        let session = with_fresh_keys(&self.log, async |fresh| {
            Session::open(&server, facts, fresh).await
        })
        .await?;
        let mut text = "Available channels:\n".to_owned();
        for (name, channel) in &session.channels.0 {
            text += &match &channel.alias {
                Some(target) => format!("    {name} (alias for: {target})\n"),
                None => format!("    {name}\n"),
            };
        }
        show(&text);
        Ok(())
    }

    /// Section 2.5.
    async fn dry_run(&self) -> anyhow::Result<()> {
        let (server, name) = self.connect()?;
        let facts = self.facts(name);
        with_fresh_keys(&self.log, async |fresh| {
            let mut session = Session::open(&server, facts, fresh).await?;
            let found = session.device_index(&server, facts).await?;
            let (plan, start) = self.plan(&found)?;
            match &plan.decision {
                Ok(route) => {
                    let switch = start.switch.map(|(old, new)| format!(" ({old} -> {new})"));
                    let switch = switch.unwrap_or_default();
                    let phase = plan.phase.map(|(_, at)| format!("Target phase: {at}%\n"));
                    let phase = phase.unwrap_or_default();
                    show(&format!("Upgrade path is {route}{switch}\n{phase}"));
                }
                Err(_) => show("Already up-to-date\n"),
            }
            Ok(())
        })
        .await
    }

    /// Updates until the user presses Ctrl-C, which is no failure (section 2.3).
    async fn update_unless_interrupted(&self) -> anyhow::Result<()> {
        let interrupted = pin!(tokio::signal::ctrl_c());
        // The first of the two is looked at first.
        match select(interrupted, pin!(self.update())).await {
            Either::Left((signal, _)) => {
                signal.context("cannot wait for Ctrl-C")?;
                self.meters.end();
                self.log.info("interrupted");
                eprintln!("interrupted: what has been received is kept, the next run goes on");
                Ok(())
            }
            Either::Right((result, _)) => result,
        }
    }

    /// Check, download, prepare, apply.
    async fn update(&self) -> anyhow::Result<()> {
        let (server, name) = self.connect()?;
        let facts = self.facts(name);
        let config = &self.device.config;
        let prepared = with_fresh_keys(&self.log, async |fresh| {
            let mut session = Session::open(&server, facts, fresh).await?;
            let found = session.device_index(&server, facts).await?;
            let (plan, _) = self.plan(&found)?;
            let Ok(route) = &plan.decision else {
                return Ok(false);
            };
            let (chain, log) = (&session.chain, &*self.log);
            let files = found.files(route)?;
            update::fetch(&server, chain, &files, config, &self.meters, log).await?;
            log.info("preparing recovery");
            handover::prepare(config, route, &files, found.has_keyring, log)?;
            Ok::<_, Failure>(true)
        })
        .await?;
        // The last moment at which Ctrl-C can be heard.
        tokio::task::yield_now().await;
        if prepared && !self.options.no_apply {
            self.log.info("applying");
            apply(&config.hooks.apply)?;
        }
        Ok(())
    }

    fn connect(&self) -> anyhow::Result<(Server, &DeviceName)> {
        let name = self.name.as_ref().ok_or_else(|| {
            anyhow!("the device's name is not known: set `device` in `[service]` or give --device")
        })?;
        Ok((Server::new(&self.device.config, name)?, name))
    }

    fn facts<'a>(&'a self, device: &'a DeviceName) -> Facts<'a> {
        Facts {
            config: &self.device.config,
            device,
            now: device::clock(),
            log: &self.log,
        }
    }

    fn plan<'a>(&self, found: &'a DeviceIndex) -> anyhow::Result<(Plan<'a>, Start)> {
        let service = &self.device.config.service;
        let given = self.options.build.is_some() || self.options.switch.is_some();
        let target = service.channel_target.as_ref();
        let start = Start::decide(service.build_number, given, target, found.alias.as_ref());
        let phase = match self.options.percentage {
            Some(percentage) => PhaseSource::Override(Percentage::clamped(percentage)),
            None => PhaseSource::Machine {
                channel: phase_channel(
                    found.alias.as_ref().map(AsRef::as_ref),
                    target.map(AsRef::as_ref),
                ),
                machine_id: device::machine_id().context("cannot read the machine's id")?,
            },
        };
        let request = Request {
            installed: start.version,
            filter: self.filter,
            cap: self.options.maximage,
            phase,
        };
        let plan = system_image_planner::plan(&found.outline, &request);
        for candidate in plan.candidates.iter().rev() {
            let (score, route) = (candidate.score, &candidate.route);
            self.log.debug(&format!(
                "candidate {route}: score {score}, {}",
                candidate.verdict
            ));
        }
        match &plan.decision {
            Ok(route) => self.log.info(&format!("Upgrade path is {route}")),
            Err(why) => self.log.info(&format!("Already up-to-date: {why}")),
        }
        Ok((plan, start))
    }
}

/// Runs the apply hook: normally the reboot into the recovery, where the upgrader runs.
fn apply(hook: &HookName) -> anyhow::Result<()> {
    match hook {
        HookName::Noop => Ok(()),
        HookName::Reboot => {
            let program = "/sbin/reboot";
            let status = Command::new(program)
                .args(["-f", "recovery"])
                .status()
                .with_context(|| format!("cannot run `{program}`"))?;
            if status.success() {
                return Ok(());
            }
            Err(anyhow!("`{program} -f recovery` failed: {status}"))
        }
        other => Err(anyhow!("there is no apply hook `{other}`")),
    }
}

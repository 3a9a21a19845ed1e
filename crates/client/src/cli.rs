//! `system-image-cli`: the options of the original, their order and their exit codes (client
//! spec, section 2), and what we add beside them.

mod options;
pub(crate) mod report;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};
use system_image_bus::{Kernel, Network};
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_planner::Filter;
use zbus::Connection;

use self::options::Options;
use crate::apply::Reset;
use crate::automatic;
use crate::check::{Checked, Outcome, Wish};
use crate::client::Client;
use crate::device::{self, BadConfig, Device, NoConfigDirectory};
use crate::log::Log;
use crate::meter::{Meter, Meters};
use crate::power::{self, TooEmpty};
use crate::preflight;
use crate::session;
use crate::settings::Settings;
use crate::state::Installed;
use crate::transfer::{Canceled, Control, Event, ManagerError, Wanted, Way, unless_canceled};
use crate::update::{BadName, NoRoom};

/// Exit status of a preflight that found something.
const NOT_READY: u8 = 3;

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
    if options.skip_gpg_verification {
        eprintln!(
            "WARNING: All GPG signature verifications have been disabled.\n\
             Your upgrades are INSECURE."
        );
    }
    let reset = match &options {
        options if options.factory_reset => Some(Reset::Factory),
        options if options.production_reset => Some(Reset::Production),
        _ => None,
    };
    let done = if let Some(kind) = reset {
        let log = Log::open(
            &device.config.system.logfile,
            device.config.system.loglevel.main,
            0,
        );
        Client::new(device, Arc::new(log)).reset(kind)
    } else {
        match settings(&options, &device) {
            None => {
                return match prepare(options, device) {
                    Ok(run) => run.dispatch(),
                    Err(usage) => usage_error(&usage),
                };
            }
            Some(Err(usage)) => return usage_error(&usage),
            Some(Ok(done)) => done,
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
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

/// Prints a result for machines: an object with the number of its schema.
fn show_json(name: &str, value: &impl serde::Serialize) {
    show(&format!("{}\n", report::json(name, value)));
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
pub fn hint(error: &anyhow::Error) -> Option<String> {
    let own = error.chain().find_map(|cause| {
        let config = cause.downcast_ref().map(BadConfig::hint);
        let room = || cause.downcast_ref().map(NoRoom::hint);
        let name = || Some(cause.downcast_ref::<BadName>()?.hint().to_owned());
        let manager = || Some(cause.downcast_ref::<ManagerError>()?.hint().to_owned());
        let power = || Some(cause.downcast_ref::<TooEmpty>()?.hint().to_owned());
        let first = config.or_else(room).or_else(name);
        first.or_else(manager).or_else(power)
    });
    own.or_else(|| session::hint(error))
}

/// Section 2.7. None if no settings are asked for; an error is one of usage.
fn settings(options: &Options, device: &Device) -> Option<Result<anyhow::Result<()>, String>> {
    let kinds = [
        options.show_settings,
        !options.set.is_empty(),
        !options.get.is_empty(),
        !options.del.is_empty(),
    ];
    match kinds.iter().filter(|asked| **asked).count() {
        0 => return None,
        1 => {}
        _ => return Some(Err("Cannot mix and match settings arguments".to_owned())),
    }
    let mut pairs = Vec::new();
    for pair in &options.set {
        match pair.split_once('=') {
            Some(pair) => pairs.push(pair),
            None => return Some(Err(format!("--set takes KEY=VAL, not: {pair}"))),
        }
    }
    let settings = Settings::at(&device.config.system.settings_db);
    let run = || {
        if options.show_settings {
            let all = settings.all()?;
            if options.json {
                let all: serde_json::Map<String, Value> =
                    (all.into_iter().map(|(key, value)| (key, value.into()))).collect();
                show_json("settings", &all);
                return Ok(());
            }
            for (key, value) in all {
                show(&format!("{key}={value}\n"));
            }
        }
        for (key, value) in pairs {
            settings.set(key, value)?;
        }
        for key in &options.get {
            show(&format!("{}\n", settings.get(key)?));
        }
        options.del.iter().try_for_each(|key| settings.delete(key))
    };
    Some(Ok(run()))
}

/// Everything that one run works with.
struct Run {
    options: Options,
    client: Client,
    wish: Wish,
    meters: Meters,
}

/// Applies the options to the configuration, in the original's order.
fn prepare(options: Options, device: Device) -> Result<Run, String> {
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

    let mut client = Client::new(device, Arc::clone(&log));
    client.trust_anybody = options.skip_gpg_verification;
    // What `--info` tells is what is installed.
    if !options.info {
        client.follow_choice();
    }
    if let Some(channel) = options.channel.as_ref().or(options.switch.as_ref()) {
        client.device.config.service.channel = channel.clone();
    }
    if let Some(build) = &options.build {
        let number = build.trim().parse::<ImageVersion>();
        client.start_from(number.map_err(|_| format!("-b/--build requires an integer: {build}"))?);
    } else if options.switch.is_some() {
        client.start_from(ImageVersion::NONE);
    }
    if let Some(name) = &options.device {
        client.device.config.service.device = Some(name.clone());
        client.name = Some(name.clone());
    }
    let mut meters = Vec::new();
    if !options.info && !options.list_channels {
        for name in &options.progress {
            meters.push(name.parse::<Meter>().map_err(|error| error.to_string())?);
        }
    }
    let wish = Wish {
        build_given: client.build_given,
        filter,
        cap: options.maximage,
        percentage: options.percentage.map(Percentage::clamped),
        mobile_data: options.override_gsm,
        explain: options.explain,
    };
    let meters = Meters::new(meters, log);
    client.meters = Some(meters.clone());
    Ok(Run {
        options,
        client,
        wish,
        meters,
    })
}

impl Run {
    fn dispatch(self) -> ExitCode {
        if self.options.info {
            self.info();
            return ExitCode::SUCCESS;
        }
        if (self.options.history || self.options.status)
            && let Err(error) = self.client.state.readable()
        {
            return failure(&error);
        }
        if self.options.history {
            self.history();
            return ExitCode::SUCCESS;
        }
        if self.options.status {
            self.status();
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
            let options = &self.options;
            if options.preflight {
                ("preflight", Ok(self.preflight().await))
            } else if options.list_channels {
                ("channel search", self.list_channels().await)
            } else if options.plan || options.explain {
                ("dry-run", self.look_closer().await)
            } else if options.dry_run {
                ("dry-run", self.dry_run().await)
            } else if options.apply {
                ("update", self.apply().await)
            } else if options.automatic {
                ("update", self.automatic().await)
            } else {
                ("update", self.update_unless_interrupted().await)
            }
        });
        // A download that was given up may still be writing its last buffer.
        runtime.shutdown_background();
        match result {
            Ok(code) => code,
            Err(error) => self.failure(what, error),
        }
    }

    /// The original's line first, then what it left to the log (section 2.3).
    fn failure(&self, what: &str, error: anyhow::Error) -> ExitCode {
        self.client.log.error(&format!("{error:#}"));
        if self.meters.is_json() {
            let text = Value::from(format!("{error:#}"));
            show(&format!("{{\"type\": \"error\", \"msg\": {text}}}\n"));
        }
        let summary = format!("Exception occurred during {what}; see log file for details");
        let error = error.context(summary);
        let text = system_image_report::describe(&error, hint(&error).as_deref());
        eprint!("{}", text.strip_prefix("error: ").unwrap_or(&text));
        ExitCode::FAILURE
    }

    /// Section 2.4. No network.
    fn info(&self) {
        let info = report::Info::of(&self.client);
        if self.options.json {
            show_json("info", &info);
        } else {
            show(&info.to_text());
        }
    }

    fn history(&self) {
        let history = self.client.state.history();
        if self.options.json {
            show_json("history", &history);
        } else {
            show(&report::history(&history));
        }
    }

    fn status(&self) {
        self.settle();
        let status = report::Status::of(&self.client);
        if self.options.json {
            show_json("status", &status);
        } else {
            show(&status.to_text());
        }
    }

    async fn preflight(&self) -> ExitCode {
        self.settle();
        let bus = device::system_bus(&self.client.log).await;
        let found = preflight::look(&self.client, bus.as_ref()).await;
        let ready = found.iter().all(|finding| !finding.stops());
        if self.options.json {
            show_json("preflight", &json!({"ready": ready, "findings": found}));
        } else {
            show(&report::preflight(&found));
        }
        if ready {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(NOT_READY)
        }
    }

    /// Section 2.5.
    async fn list_channels(&self) -> anyhow::Result<ExitCode> {
        let channels = self.client.channels().await?;
        if self.options.json {
            show_json(
                "channels",
                &report::channels(&channels, self.client.name.as_ref()),
            );
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = "Available channels:\n".to_owned();
        for (name, channel) in &channels.0 {
            text += &match &channel.alias {
                Some(target) => format!("    {name} (alias for: {target})\n"),
                None => format!("    {name}\n"),
            };
        }
        show(&text);
        Ok(ExitCode::SUCCESS)
    }

    /// Section 2.5. What the server does not have is no error here, and told on the side.
    async fn dry_run(&self) -> anyhow::Result<ExitCode> {
        let checked = self.client.check(&self.wish).await?;
        if self.options.json {
            show_json("check", &report::check(&checked)?);
            return Ok(ExitCode::SUCCESS);
        }
        warn(&checked);
        let Some(update) = checked.update() else {
            show("Already up-to-date\n");
            return Ok(ExitCode::SUCCESS);
        };
        let switch = (update.switch.as_ref()).map(|(old, new)| format!(" ({old} -> {new})"));
        let switch = switch.unwrap_or_default();
        let phase = (update.phase).map(|phase| format!("Target phase: {}%\n", phase.percentage));
        let phase = phase.unwrap_or_default();
        show(&format!(
            "Upgrade path is {}{switch}\n{phase}",
            update.route()
        ));
        Ok(ExitCode::SUCCESS)
    }

    /// What an update would take, and why it is this one.
    async fn look_closer(&self) -> anyhow::Result<ExitCode> {
        let checked = self.client.check(&self.wish).await?;
        if let Outcome::NotOffered(error) = checked.outcome {
            return Err(error.into());
        }
        let plan = (self.options.plan)
            .then(|| report::Plan::of(&self.client, &checked))
            .transpose()?;
        if self.options.json {
            let mut found = report::check(&checked)?;
            if let Some(plan) = plan {
                found["plan"] = serde_json::to_value(plan)?;
            }
            show_json("check", &found);
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(plan) = plan {
            show(&plan.to_text());
        }
        if let Some(explanation) = checked.explanation {
            show(&explanation.to_text());
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Updates until the user presses Ctrl-C, which is no failure (section 2.3).
    async fn update_unless_interrupted(&self) -> anyhow::Result<ExitCode> {
        let (handle, control) = Control::new();
        let interrupted = tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                handle.want(Wanted::Cancel);
            }
            // Whoever steers stays, or nobody could go on.
            std::future::pending::<()>().await;
        });
        let updated = self.update(control).await;
        interrupted.abort();
        match updated {
            Err(error) if error.is::<Canceled>() => {
                self.client.log.info("interrupted");
                eprintln!("interrupted: what has been received is kept, the next run goes on");
                Ok(ExitCode::SUCCESS)
            }
            updated => updated,
        }
    }

    /// Check, download, prepare, apply.
    async fn update(&self, control: Control) -> anyhow::Result<ExitCode> {
        self.settle();
        let mut client = self.client.clone();
        let checked = unless_canceled(control.clone(), client.check_and_note(&self.wish)).await?;
        // A channel that the device cannot follow would keep it from every update.
        if self.options.switch.is_some() && !matches!(checked.outcome, Outcome::NotOffered(_)) {
            let service = &client.device.config.service;
            let (channel, build) = (service.channel.clone(), service.build_number);
            client.choose(Some(&channel), Some(build))?;
        }
        if checked.update().is_none() {
            warn(&checked);
            if self.options.json {
                show_json("check", &report::check(&checked)?);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let bus = device::system_bus(&client.log).await;
        let downloader = client.device.config.downloader;
        let way = Way::choose(bus.as_ref(), downloader, &client.log).await;
        let on_event = &mut |event| match event {
            Event::Started(total) => self.meters.begin("downloading", total),
            Event::Progress(now) => self.meters.step(now.received, now.total),
            Event::Paused | Event::Resumed => {}
        };
        // It listens to the control itself: a download manager must be told to stop.
        let prepared = client
            .prepare(&self.wish, Some(checked), &way, control.clone(), on_event)
            .await;
        self.meters.end();
        let update = prepared?;
        // The last moment at which Ctrl-C can be heard.
        tokio::task::yield_now().await;
        control.check()?;
        if self.options.json {
            show_json("update", &update);
        }
        if update.is_some() && !self.options.no_apply {
            apply(&client, bus.as_ref()).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What settings and configuration allow without being asked; one line says what was done, or
    /// why not.
    async fn automatic(&self) -> anyhow::Result<ExitCode> {
        self.settle();
        let done = self.unasked().await?;
        self.client.log.info(&done);
        if self.options.json {
            show_json("automatic", &json!({ "done": done }));
        } else {
            show(&format!("{done}\n"));
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn unasked(&self) -> anyhow::Result<String> {
        let client = &self.client;
        let (settings, rules) = (&client.settings, client.device.config.automatic);
        let now = jiff::Zoned::now().datetime();
        if let Err(why) = automatic::held(&settings.get(automatic::HOLD)?, now) {
            return Ok(why.to_string());
        }
        let checked = client.check_and_note(&self.wish).await?;
        let Some(update) = checked.update() else {
            warn(&checked);
            return Ok("no update".to_owned());
        };
        let version = update.version;
        let found = Installed {
            channel: client.device.config.service.channel.clone(),
            build: version,
        };
        let seen = client.state.seen(&found, device::clock())?;
        if let Err(why) = automatic::deferred(rules, version.get(), seen, device::clock()) {
            return Ok(why.to_string());
        }
        let bus = device::system_bus(&client.log).await;
        let network = Network::now(bus.as_ref(), &Kernel::default()).await;
        if let Err(why) = automatic::download(settings.auto_download()?, network) {
            return Ok(format!("version {version} is there: {why}"));
        }
        let way = Way::choose(bus.as_ref(), client.device.config.downloader, &client.log).await;
        let prepared = client
            .prepare(
                &self.wish,
                Some(checked),
                &way,
                Control::none(),
                &mut |_| (),
            )
            .await?;
        let Some(prepared) = prepared else {
            return Ok("no update".to_owned());
        };
        let version = prepared.version;
        if let Err(why) = automatic::apply(rules, now) {
            return Ok(format!("version {version} is prepared: {why}"));
        }
        if let Err(why) = power::check(bus.as_ref(), settings).await {
            return Ok(format!("version {version} is prepared: {why:#}"));
        }
        apply(client, bus.as_ref()).await?;
        Ok(format!("version {version} is handed over"))
    }

    /// Applies what was prepared before.
    async fn apply(&self) -> anyhow::Result<ExitCode> {
        self.settle();
        let bus = device::system_bus(&self.client.log).await;
        apply(&self.client, bus.as_ref()).await?;
        Ok(ExitCode::SUCCESS)
    }

    /// How the last update ended is noted; that it cannot be is no reason to stop.
    fn settle(&self) {
        if let Err(error) = self.client.settle() {
            self.client.log.error(&format!("{error:#}"));
        }
    }
}

/// Applies the prepared update, once it is verified again and there is enough in the battery.
async fn apply(client: &Client, bus: Option<&Connection>) -> anyhow::Result<()> {
    let prepared = client.prepared()?;
    let prepared = prepared.ok_or_else(|| anyhow!("no update is prepared"))?;
    power::check(bus, &client.settings).await?;
    client.apply(&prepared)
}

/// Tells on the side what the original left to the log.
fn warn(checked: &Checked) {
    if let Outcome::NotOffered(error) = &checked.outcome {
        eprintln!("warning: {error}\nhint: {}", error.hint());
    }
}

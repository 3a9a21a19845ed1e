//! What the device says of itself (client spec, sections 3 and 5).

use std::fs;
use std::io;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use system_image_formats::config::{
    ClientConfig, ConfigError, HookName, Surroundings, loading_order,
};
use system_image_formats::ini::{Ini, KeyCase};
use system_image_formats::name::DeviceName;
use tokio::time::timeout;
use zbus::Connection;

use crate::log::Log;

/// Where machine ids are, the first that exists counts.
const MACHINE_IDS: [&str; 2] = ["/var/lib/dbus/machine-id", "/etc/machine-id"];

/// Touched by the upgrader when it has applied an update.
const LAST_UPDATE: &str = "/userdata/.last_update";

/// Seconds that the hardware clock is behind, on devices that cannot set it.
const CLOCK_OFFSET: &str = "/data/time/timekeep";

/// How long the message bus may take to greet.
const BUS_ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// The directory named on the command line is none.
#[derive(Debug, thiserror::Error)]
#[error("\nConfiguration directory not found: {0}")]
pub struct NoConfigDirectory(pub Utf8PathBuf);

/// The files of the directory are readable, and do not add up to a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration in `{directory}` cannot be used")]
pub struct BadConfig {
    directory: Utf8PathBuf,
    files: Vec<String>,
    source: ConfigError,
}

impl BadConfig {
    /// One line for the person at the keyboard.
    pub fn hint(&self) -> String {
        let files = self.files.join(", ");
        format!("of its files {files} the last one that sets a key counts")
    }
}

/// The configuration and the files that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The checked configuration.
    pub config: ClientConfig,
    fragments: Vec<Utf8PathBuf>,
}

impl Device {
    /// Reads a configuration directory.
    pub fn load(directory: &Utf8Path) -> anyhow::Result<Self> {
        if !directory.is_dir() {
            bail!(NoConfigDirectory(directory.to_owned()));
        }
        let unreadable = || format!("cannot read `{directory}`");
        let mut names = Vec::new();
        for entry in fs::read_dir(directory).with_context(unreadable)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry.with_context(unreadable)?.file_name().into_string());
        }
        let names = loading_order(names);
        let fragments: Vec<_> = names.iter().map(|name| directory.join(name)).collect();
        let parsed = fragments
            .iter()
            .map(|path| {
                let bytes = fs::read(path).with_context(|| format!("cannot read `{path}`"))?;
                Ini::parse(&bytes, KeyCase::Fold).with_context(|| format!("cannot use `{path}`"))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let around = Surroundings {
            home: std::env::var("HOME").ok().map(Utf8PathBuf::from),
            working_directory: std::env::current_dir()
                .ok()
                .and_then(|path| path.try_into().ok())
                .unwrap_or_else(|| Utf8PathBuf::from("/")),
        };
        let config = ClientConfig::from_fragments(parsed, &around).map_err(|source| BadConfig {
            directory: directory.to_owned(),
            files: names,
            source,
        })?;
        Ok(Self { config, fragments })
    }

    /// The configured name, else what the device hook finds, if it finds one.
    pub fn name(&self) -> Option<DeviceName> {
        if let Some(name) = &self.config.service.device {
            return Some(name.clone());
        }
        let HookName::SystemProperty = self.config.hooks.device else {
            return None;
        };
        ask("getprop", &["ro.product.device"]).or_else(|| ask("device-info", &["get", "name"]))
    }

    /// When the device was last updated, in local time, or `Unknown`.
    pub fn last_update(&self) -> String {
        let modified = |path: &Utf8Path| fs::symlink_metadata(path)?.modified();
        let time = modified(Utf8Path::new(LAST_UPDATE)).ok().or_else(|| {
            self.fragments
                .iter()
                .filter_map(|path| modified(path).ok())
                .max()
        });
        let shown = time.and_then(|time| {
            let time = Timestamp::try_from(time).ok()?;
            Some(local_time(time.as_second() + clock_offset()))
        });
        shown.unwrap_or_else(|| "Unknown".into())
    }
}

fn ask(program: &str, arguments: &[&str]) -> Option<DeviceName> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().parse().ok())?
}

/// Unix seconds as the original shows times: local, without saying so.
pub fn local_time(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = time.to_zoned(TimeZone::system());
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn clock_offset() -> i64 {
    let text = fs::read_to_string(CLOCK_OFFSET).unwrap_or_default();
    text.lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .unwrap_or(0)
}

/// The system's message bus; none where there is none, or it does not answer.
pub async fn system_bus(log: &Log) -> Option<Connection> {
    match timeout(BUS_ANSWERS_WITHIN, Connection::system()).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            log.debug(&format!("no message bus: {error}"));
            None
        }
        Err(_) => {
            log.error("the message bus does not answer");
            None
        }
    }
}

/// The machine's id, which is its place in rollouts.
pub fn machine_id() -> io::Result<String> {
    for path in MACHINE_IDS {
        match fs::read_to_string(path) {
            Ok(text) => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "No machine-id file found",
    ))
}

/// The clock, in Unix seconds.
pub fn clock() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

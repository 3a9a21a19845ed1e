//! The server's configuration (server spec, section 12): the original's file as it is, and beside it
//! `config.d` with as many files as one likes, for instance one per channel.
//!
//! In: the texts of the files. Out: a checked [`Config`]. Keys of our own are told as such.

mod channel;
mod mirror;
mod source;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;

use camino::Utf8Path;
use system_image_delta_build::Times;
use system_image_durable::present;
use system_image_formats::channel_ini::{Port, PortError};
use system_image_formats::ini::{Ini, IniError, KeyCase};
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{ChannelName, NameError};

pub use self::channel::{ChannelConfig, FileRule};
pub use self::mirror::Mirror;
pub use self::source::{Cdimage, Download, Import, Source, SourceError};

/// Level of `xz` when the configuration names none: 8 MiB of dictionary, which is also what the
/// device needs to unpack. Level 9 needs 64 MiB there for a few percent.
const DEFAULT_LEVEL: u32 = 6;

/// Days for which a file stays after the last index that names it is gone.
const DEFAULT_GRACE: u32 = 7;

/// The checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Paths that are not where they are by default, by key; relative ones count from the server's
    /// directory.
    pub paths: BTreeMap<&'static str, String>,
    /// How devices reach the tree; version files carry it.
    pub public: Public,
    /// Level of `xz`, 0 to 9; a key of our own, `compression_level`.
    pub compression_level: u32,
    /// Whether deltas carry files of which only the time changed; a key of our own, `delta_times`.
    pub delta_times: Times,
    /// Images that are made at once; a key of our own, `jobs`. The number of cores by default.
    pub jobs: usize,
    /// Bytes of memory that all of them may use; a key of our own, `memory`.
    pub memory: u64,
    /// Days for which a file stays after no index names it; a key of our own, `grace_days`.
    pub grace_days: u32,
    /// Commands that sign instead of keys on this host, by role, or for all roles under the empty
    /// name; keys of our own, `sign_command` and `sign_command_<role>`.
    pub sign_commands: BTreeMap<String, String>,
    /// The configured channels.
    pub channels: BTreeMap<ChannelName, ChannelConfig>,
    /// The mirrors.
    pub mirrors: Vec<Mirror>,
}

/// How devices reach the published tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Public {
    fqdn: Option<String>,
    http_port: Option<Port>,
    https_port: Option<Port>,
}

impl Public {
    /// An address that is known whole.
    pub fn new(fqdn: String, payloads: Port, metadata: Port) -> Self {
        Self {
            fqdn: Some(fqdn),
            http_port: Some(payloads),
            https_port: Some(metadata),
        }
    }

    /// Host name, port for payloads, port for metadata: what every version file needs.
    pub fn get(&self) -> Result<(&str, Port, Port), ConfigError> {
        let missing = |key| ConfigError::Missing {
            section: "global".into(),
            key,
        };
        Ok((
            self.fqdn.as_deref().ok_or_else(|| missing("public_fqdn"))?,
            self.http_port.ok_or_else(|| missing("public_http_port"))?,
            self.https_port
                .ok_or_else(|| missing("public_https_port"))?,
        ))
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ConfigError {
    #[error("cannot read `{path}`")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("`{path}` is malformed")]
    Ini { path: String, source: IniError },
    #[error("`{key}` is missing in `[{section}]`")]
    Missing { section: String, key: &'static str },
    #[error("`{key}` is missing in `[{section}]`, which lists it in `files`")]
    NoFile { section: String, key: String },
    #[error("there is no section `[{0}]`")]
    NoSection(String),
    #[error("`{key}` of `[global]` cannot be `{value}`")]
    Port {
        key: &'static str,
        value: String,
        source: PortError,
    },
    #[error("`{key}` of `[{section}]` is {what}, not `{value}`")]
    Value {
        section: String,
        key: String,
        value: String,
        what: &'static str,
    },
    #[error("`{key}` of `[{section}]` names something that cannot be")]
    Name {
        section: String,
        key: String,
        source: NameError,
    },
    #[error("`{key}` of `[{section}]` cannot be used")]
    Source {
        section: String,
        key: String,
        source: SourceError,
    },
    #[error("`{key}` of `[{section}]` is not known; is it misspelt?")]
    UnknownKey { section: String, key: String },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            paths: BTreeMap::new(),
            public: Public::default(),
            compression_level: DEFAULT_LEVEL,
            delta_times: Times::default(),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            memory: 2 << 30,
            grace_days: DEFAULT_GRACE,
            sign_commands: BTreeMap::new(),
            channels: BTreeMap::new(),
            mirrors: Vec::new(),
        }
    }
}

/// The paths that the configuration may set, with the original's keys.
const PATHS: [&str; 5] = [
    "base_path",
    "gpg_key_path",
    "gpg_keyring_path",
    "publish_path",
    "state_path",
];

impl Config {
    /// Reads `etc/config` and `etc/config.d/*.conf` of the server's directory; `None` when there
    /// is no `etc/config`.
    pub fn load(directory: &Utf8Path) -> Result<Option<Self>, ConfigError> {
        let main = directory.join("etc/config");
        let Some(mut ini) = read(&main)? else {
            return Ok(None);
        };
        for place in pieces(&directory.join("etc/config.d"))? {
            if let Some(piece) = read(&place)? {
                ini.merge(piece);
            }
        }
        Self::of(&ini).map(Some)
    }

    /// Reads the text of one file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::of(&ini("etc/config", bytes)?)
    }

    fn of(ini: &Ini) -> Result<Self, ConfigError> {
        let usual = Self::default();
        let mut channels = BTreeMap::new();
        let listed = list(ini, "global", "channels");
        let listed = listed.iter().map(|name| ("channels", name.as_str()));
        // A section is enough in a file of `config.d`.
        let sections = ini
            .sections()
            .filter_map(|section| Some((section, section.strip_prefix("channel_")?)));
        for (key, name) in listed.chain(sections) {
            let parsed: ChannelName = name.parse().map_err(|source| ConfigError::Name {
                section: "global".into(),
                key: key.into(),
                source,
            })?;
            if let Entry::Vacant(channel) = channels.entry(parsed) {
                channel.insert(ChannelConfig::of(ini, name)?);
            }
        }
        let paths = PATHS
            .into_iter()
            .filter_map(|key| Some((key, text(ini, "global", key)?)));
        Ok(Self {
            paths: paths.collect(),
            public: Public {
                fqdn: text(ini, "global", "public_fqdn"),
                http_port: port(ini, "public_http_port")?,
                https_port: port(ini, "public_https_port")?,
            },
            compression_level: number(
                ini,
                "compression_level",
                usual.compression_level,
                0..=9,
                "a number from 0 to 9",
            )?,
            delta_times: delta_times(ini)?,
            jobs: number(
                ini,
                "jobs",
                u32::try_from(usual.jobs).unwrap_or(1),
                1..=1024,
                "a number from 1 to 1024",
            )? as usize,
            memory: u64::from(number(
                ini,
                "memory",
                u32::try_from(usual.memory >> 20).unwrap_or(2048),
                64..=1 << 24,
                "a number of MiB from 64",
            )?) << 20,
            grace_days: number(
                ini,
                "grace_days",
                usual.grace_days,
                0..=3650,
                "a number of days up to 3650",
            )?,
            sign_commands: ini
                .keys("global")
                .filter_map(|key| Some((key, key.strip_prefix("sign_command")?)))
                .filter_map(|(key, role)| {
                    let role = role.strip_prefix('_').unwrap_or(role);
                    Some((role.to_owned(), text(ini, "global", key)?))
                })
                .collect(),
            channels,
            mirrors: Mirror::all(ini)?,
        })
    }

    /// The command that signs for a role, if one does.
    pub fn sign_command(&self, role: KeyringType) -> Option<&str> {
        let found = self.sign_commands.get(role.as_str());
        let found = found.or_else(|| self.sign_commands.get(""));
        found.map(String::as_str)
    }

    /// How a channel is configured; one that is not is filled by hand and never expires.
    pub fn channel(&self, name: &ChannelName) -> ChannelConfig {
        self.channels.get(name).cloned().unwrap_or_default()
    }

    /// The text of a new server's file.
    pub fn to_text(&self) -> String {
        let mut text = String::from("[global]\n");
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            writeln!(text, "{key} = {value}").expect("writing to memory does not fail");
        };
        if let Ok((fqdn, http, https)) = self.public.get() {
            line("public_fqdn", &fqdn);
            line("public_http_port", &http);
            line("public_https_port", &https);
        }
        line("compression_level", &self.compression_level);
        text
    }
}

fn ini(path: &str, bytes: &[u8]) -> Result<Ini, ConfigError> {
    Ini::parse(bytes, KeyCase::Keep).map_err(|source| ConfigError::Ini {
        path: path.to_owned(),
        source,
    })
}

fn read(place: &Utf8Path) -> Result<Option<Ini>, ConfigError> {
    match present(std::fs::read(place)) {
        Ok(bytes) => bytes.map(|bytes| ini(place.as_str(), &bytes)).transpose(),
        Err(source) => Err(ConfigError::Read {
            path: place.to_string(),
            source,
        }),
    }
}

/// The files of `config.d` in the order of their names.
fn pieces(directory: &Utf8Path) -> Result<Vec<camino::Utf8PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: directory.to_string(),
        source,
    };
    let Some(entries) = present(directory.read_dir_utf8()).map_err(failed)? else {
        return Ok(Vec::new());
    };
    let mut places = Vec::new();
    for entry in entries {
        let place = entry.map_err(failed)?.into_path();
        if place.extension() == Some("conf") {
            places.push(place);
        }
    }
    places.sort();
    Ok(places)
}

/// A value without the quotes around it.
fn text(ini: &Ini, section: &str, key: &str) -> Option<String> {
    let value = ini.raw(section, key)?.trim().trim_matches('"').trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// A value with a comma and a blank in it is a list, any other one item.
fn list(ini: &Ini, section: &str, key: &str) -> Vec<String> {
    let Some(value) = text(ini, section, key) else {
        return Vec::new();
    };
    value
        .split(", ")
        .map(|item| item.trim().trim_matches('"').to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

fn port(ini: &Ini, key: &'static str) -> Result<Option<Port>, ConfigError> {
    let Some(value) = text(ini, "global", key) else {
        return Ok(None);
    };
    // The original's `0` was meant to say that there is no such port.
    if value == "0" {
        return Ok(Some(Port::Disabled));
    }
    match value.parse() {
        Ok(port) => Ok(Some(port)),
        Err(source) => Err(ConfigError::Port { key, value, source }),
    }
}

fn delta_times(ini: &Ini) -> Result<Times, ConfigError> {
    match text(ini, "global", "delta_times").as_deref() {
        None | Some("exact") => Ok(Times::Exact),
        Some("content") => Ok(Times::Ignored),
        Some(value) => Err(ConfigError::Value {
            section: "global".into(),
            key: "delta_times".into(),
            value: value.to_owned(),
            what: "`exact` or `content`",
        }),
    }
}

fn number(
    ini: &Ini,
    key: &'static str,
    usual: u32,
    range: std::ops::RangeInclusive<u32>,
    what: &'static str,
) -> Result<u32, ConfigError> {
    number_of(ini, "global", key, usual, range, what)
}

fn number_of(
    ini: &Ini,
    section: &str,
    key: &'static str,
    usual: u32,
    range: std::ops::RangeInclusive<u32>,
    what: &'static str,
) -> Result<u32, ConfigError> {
    let Some(value) = text(ini, section, key) else {
        return Ok(usual);
    };
    match value.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(ConfigError::Value {
            section: section.to_owned(),
            key: key.to_owned(),
            value,
            what,
        }),
    }
}

#[cfg(test)]
mod tests {
    use system_image_formats::name::DeviceName;

    use super::*;

    #[test]
    fn a_new_servers_file_says_what_it_was_made_from() {
        let config = Config {
            compression_level: 2,
            public: Public::new(
                "images.example.net".into(),
                Port::Number(80),
                Port::Disabled,
            ),
            ..Config::default()
        };
        assert_eq!(Config::parse(config.to_text().as_bytes()).unwrap(), config);
    }

    /// As an operator of the original has it.
    const ORIGINAL: &str = r#"[global]
base_path = /srv/system-image.example.net
channels = "daily", 24.04/stable
gpg_key_path = secret/gpg/keys/
publish_path = /srv/system-image.example.net/www/
public_fqdn = "images.example.net"
public_http_port = 0
public_https_port = 443
mirrors = a, b

[channel_daily]
type = auto
versionbase = 5
fullcount = 10
deltabase = 24.04/stable, daily
files = ubuntu, device,tango, device, keyring, version
file_ubuntu = cdimage-ubuntu;daily-preinstalled;xenial,import=any;product=touch
file_device,tango = http;https://x.example/a.tar.xz?b=c=d;name=device,monitor=https://x.example/v
file_device = remote-system-image;https://other.example;daily;device;keyring=archive-master
file_keyring = keyring;archive-master
file_version = version

[channel_24.04/stable]
type = manual

[mirror_default]
ssh_user = mirror
ssh_key = secret/ssh/mirror
ssh_port = 22
ssh_command = sync-mirror

[mirror_a]
ssh_host = a.example.net

[mirror_b]
ssh_host = b.example.net
ssh_port = 2222
"#;

    #[test]
    fn the_originals_file_is_understood() {
        let config = Config::parse(ORIGINAL.as_bytes()).unwrap();
        assert_eq!(
            config.public.get().unwrap(),
            ("images.example.net", Port::Disabled, Port::Number(443))
        );
        assert_eq!(config.paths["gpg_key_path"], "secret/gpg/keys/");
        assert_eq!(config.channels.len(), 2);
        let daily = config.channel(&"daily".parse().unwrap());
        assert!(daily.auto && daily.versionbase.get() == 5 && daily.fullcount == 10);
        assert_eq!(daily.deltabase.len(), 2);
        let names: Vec<_> = daily
            .files
            .iter()
            .map(|rule| {
                (
                    rule.name.as_str(),
                    rule.device.as_ref().map(DeviceName::as_str),
                )
            })
            .collect();
        assert_eq!(
            names,
            [
                ("ubuntu", None),
                ("device", Some("tango")),
                ("device", None),
                ("keyring", None),
                ("version", None)
            ]
        );
        assert_eq!(config.mirrors.len(), 2);
        assert_eq!(
            (config.mirrors[1].port, config.mirrors[1].user.as_str()),
            (2222, "mirror")
        );
        assert!(!config.channel(&"24.04/stable".parse().unwrap()).auto);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error = |text: &str| {
            let error = Config::parse(text.as_bytes()).unwrap_err();
            let mut text = error.to_string();
            let mut cause: &dyn std::error::Error = &error;
            while let Some(next) = cause.source() {
                text += &format!(": {next}");
                cause = next;
            }
            text
        };
        let public = Config::parse(b"[global]\n").unwrap().public;
        assert_eq!(
            public.get().unwrap_err().to_string(),
            "`public_fqdn` is missing in `[global]`"
        );
        assert!(error("[global]\npublic_https_port=x\n").contains("cannot be `x`"));
        assert!(error("[global]\ncompression_level=10\n").contains("not `10`"));
        assert!(error("[global]\ndelta_times=mostly\n").contains("`exact` or `content`"));
        assert!(error("[global]\nchannels = a\n").contains("no section `[channel_a]`"));
        assert!(error("[global]\nchannels = ../a\n").contains("cannot be"));
        let channel = |lines: &str| error(&format!("[channel_a]\n{lines}\n"));
        assert!(channel("type = sometimes").contains("not `sometimes`"));
        assert!(channel("files = x").contains("`file_x` is missing"));
        assert!(channel("files = x\nfile_x = nothing;a").contains("`nothing`"));
        assert!(channel("files = x\nfile_x = http").contains("URL"));
        assert!(channel("fullcont = 3").contains("misspelt"));
    }
}

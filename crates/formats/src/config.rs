//! The client's configuration: which files count, in which order, and what they add up to (client
//! spec, section 3).
//!
//! Three types in a row: an [`Ini`] per file as written, one [`Ini`] of them merged, and the
//! checked [`ClientConfig`], which is all that a program sees.

pub mod keys;
mod value;

use std::num::NonZeroU32;

use camino::{Utf8Path, Utf8PathBuf};

pub use self::value::{
    Downloader, HookName, Interval, LogLevel, LogLevels, Timeout, Window, YesNo,
};
use crate::channel_ini::Port;
use crate::detail::VersionDetail;
use crate::ini::{Ini, IniError, KeyCase};
use crate::name::{ChannelName, DeviceName};
use crate::version::ImageVersion;

/// The place of a file in the configuration directory: the number before the first underscore of
/// an `.ini` file's stem. `None` for a file that does not count.
///
/// Files are loaded by (number, path); later ones override earlier ones key by key.
pub fn fragment_number(file_name: &str) -> Option<i64> {
    file_name
        .strip_suffix(".ini")?
        .split_once('_')?
        .0
        .trim()
        .parse()
        .ok()
}

/// Puts the names of a configuration directory into the order of loading; others are left out.
pub fn loading_order(file_names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut numbered: Vec<_> = (file_names.into_iter())
        .filter_map(|name| fragment_number(&name).map(|number| (number, name)))
        .collect();
    numbered.sort();
    numbered.into_iter().map(|(_, name)| name).collect()
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file or a reference in it is malformed.
    #[error("the configuration is malformed")]
    Ini(#[from] IniError),
    /// A value does not fit its key.
    #[error("`{value}` does not fit `{key}` of `[{section}]`: {why}")]
    Value {
        /// The section.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// What it was given.
        value: String,
        /// What it takes.
        why: String,
    },
    /// Both ports are disabled.
    #[error("Cannot disable both http and https ports")]
    NoPort,
}

/// What a relative or `~` path of the configuration starts from.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The user's home directory, if there is one.
    pub home: Option<Utf8PathBuf>,
    /// The working directory.
    pub working_directory: Utf8PathBuf,
}

/// The checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// `[service]`: the server and what is installed.
    pub service: Service,
    /// `[system]`: the client's own files.
    pub system: System,
    /// `[gpg]`: where the keyrings are.
    pub gpg: Gpg,
    /// `[updater] cache_partition`: the drop box.
    pub cache_partition: Utf8PathBuf,
    /// `[updater] data_partition`: holds the blacklist.
    pub data_partition: Utf8PathBuf,
    /// `[updater] downloader`: what brings payloads.
    pub downloader: Downloader,
    /// `[updater] patch_memory`: MiB of memory that the upgrader has for applying patches; 0 if it
    /// takes none.
    pub patch_memory: u32,
    /// `[downloads]`: how patient to be with a server.
    pub downloads: Downloads,
    /// `[automatic]`: what is done without being asked.
    pub automatic: Automatic,
    /// `[hooks]`: replaceable parts.
    pub hooks: Hooks,
    /// `[dbus] lifetime`: idle time before the service exits.
    pub lifetime: Interval,
}

/// `[service]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Host name of the server.
    pub base: String,
    /// Port for payloads.
    pub http_port: Port,
    /// Port for metadata.
    pub https_port: Port,
    /// The channel that the device follows.
    pub channel: ChannelName,
    /// The installed version.
    pub build_number: ImageVersion,
    /// The device's name, when configured.
    pub device: Option<DeviceName>,
    /// The channel that an alias followed when the installed image was made.
    pub channel_target: Option<ChannelName>,
    /// What the installed image is made of.
    pub version_detail: VersionDetail,
}

/// `[system]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// Accepted and checked; the original used it nowhere.
    pub timeout: Interval,
    /// Where process directories are made.
    pub tempdir: Utf8PathBuf,
    /// The log file.
    pub logfile: Utf8PathBuf,
    /// How much is logged.
    pub loglevel: LogLevels,
    /// The settings database.
    pub settings_db: Utf8PathBuf,
}

/// `[gpg]`: the keyring archives; each has its signature beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpg {
    /// The trust root, installed with the device.
    pub archive_master: Utf8PathBuf,
    /// Cached image-master keyring.
    pub image_master: Utf8PathBuf,
    /// Cached image-signing keyring.
    pub image_signing: Utf8PathBuf,
    /// The device keyring of the last run.
    pub device_signing: Utf8PathBuf,
}

/// `[downloads]`, a section of ours, which the original ignores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloads {
    /// Longest time to reach a server.
    pub connect_timeout: Timeout,
    /// Longest time in which next to nothing arrives.
    pub stall_timeout: Timeout,
    /// Attempts without progress in between, the first included.
    pub attempts: NonZeroU32,
    /// Wait after the first failed attempt; it doubles with each further one.
    pub retry_wait: Interval,
}

/// `[automatic]`, a section of ours: when an update that was downloaded is applied by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Automatic {
    /// Whether at all.
    pub apply: YesNo,
    /// The part of the day in which; none for any.
    pub window: Option<Window>,
    /// How long after the device first saw the version.
    pub defer: Interval,
}

/// `[hooks]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Finds the device's name.
    pub device: HookName,
    /// Scores candidates.
    pub scorer: HookName,
    /// Runs after the command file is written.
    pub apply: HookName,
}

impl ClientConfig {
    /// Checks the files of a configuration directory, given in [`loading_order`].
    pub fn from_fragments(
        fragments: impl IntoIterator<Item = Ini>,
        around: &Surroundings,
    ) -> Result<Self, ConfigError> {
        let mut merged = Ini::empty(KeyCase::Fold);
        fragments
            .into_iter()
            .for_each(|fragment| merged.merge(fragment));
        let read = Reader {
            ini: &merged,
            around,
        };
        Ok(Self {
            service: Service {
                base: read.text("service", "base")?,
                http_port: read.value("service", "http_port")?,
                https_port: read.value("service", "https_port")?,
                channel: read.value("service", "channel")?,
                build_number: read.value("service", "build_number")?,
                device: read.optional("service", "device")?,
                channel_target: read.optional("service", "channel_target")?,
                version_detail: read.text("service", "version_detail")?.into(),
            },
            system: System {
                timeout: read.value("system", "timeout")?,
                tempdir: read.path("system", "tempdir")?,
                logfile: read.path("system", "logfile")?,
                loglevel: read.value("system", "loglevel")?,
                settings_db: read.path("system", "settings_db")?,
            },
            gpg: Gpg {
                archive_master: read.path("gpg", "archive_master")?,
                image_master: read.path("gpg", "image_master")?,
                image_signing: read.path("gpg", "image_signing")?,
                device_signing: read.path("gpg", "device_signing")?,
            },
            cache_partition: read.path("updater", "cache_partition")?,
            data_partition: read.path("updater", "data_partition")?,
            downloader: read.value("updater", "downloader")?,
            patch_memory: read.value("updater", "patch_memory")?,
            downloads: Downloads {
                connect_timeout: read.value("downloads", "connect_timeout")?,
                stall_timeout: read.value("downloads", "stall_timeout")?,
                attempts: read.value("downloads", "attempts")?,
                retry_wait: read.value("downloads", "retry_wait")?,
            },
            automatic: Automatic {
                apply: read.value("automatic", "apply")?,
                window: read.optional("automatic", "window")?,
                defer: read.value("automatic", "defer")?,
            },
            hooks: Hooks {
                device: read.value("hooks", "device")?,
                scorer: read.value("hooks", "scorer")?,
                apply: read.value("hooks", "apply")?,
            },
            lifetime: read.value("dbus", "lifetime")?,
        })
    }
}

impl Service {
    /// The URL under which metadata is fetched, without a final `/`.
    pub fn https_base(&self) -> Result<String, ConfigError> {
        match (self.http_port, self.https_port) {
            (_, Port::Number(port)) => Ok(self.url("https", 443, port)),
            (Port::Number(port), Port::Disabled) => Ok(self.url("http", 80, port)),
            (Port::Disabled, Port::Disabled) => Err(ConfigError::NoPort),
        }
    }

    /// The URL under which payloads are fetched, without a final `/`.
    pub fn http_base(&self) -> Result<String, ConfigError> {
        match (self.http_port, self.https_port) {
            (Port::Number(port), _) => Ok(self.url("http", 80, port)),
            (Port::Disabled, _) => self.https_base(),
        }
    }

    fn url(&self, scheme: &str, default: u16, port: u16) -> String {
        let base = &self.base;
        if port == default {
            format!("{scheme}://{base}")
        } else {
            format!("{scheme}://{base}:{port}")
        }
    }
}

/// Reads values of the merged configuration with their defaults.
struct Reader<'a> {
    ini: &'a Ini,
    around: &'a Surroundings,
}

impl Reader<'_> {
    fn text(&self, section: &'static str, key: &'static str) -> Result<String, ConfigError> {
        let key = keys::find(section, key);
        let default = || key.default.unwrap_or_default().to_owned();
        Ok(self.ini.get(section, key.name)?.unwrap_or_else(default))
    }

    fn value<T>(&self, section: &'static str, key: &'static str) -> Result<T, ConfigError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let value = self.text(section, key)?;
        value.parse().map_err(|why: T::Err| {
            let why = why.to_string();
            ConfigError::Value {
                section,
                key,
                value,
                why,
            }
        })
    }

    /// Empty counts as absent.
    fn optional<T>(
        &self,
        section: &'static str,
        key: &'static str,
    ) -> Result<Option<T>, ConfigError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        match self.ini.get(section, keys::find(section, key).name)? {
            Some(value) if !value.trim().is_empty() => self.value(section, key).map(Some),
            _ => Ok(None),
        }
    }

    /// A path with `~` replaced, made absolute.
    fn path(&self, section: &'static str, key: &'static str) -> Result<Utf8PathBuf, ConfigError> {
        let text = self.text(section, key)?;
        let written = Utf8Path::new(&text);
        Ok(match (written.strip_prefix("~"), &self.around.home) {
            (Ok(below), Some(home)) => home.join(below),
            _ => self.around.working_directory.join(written),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Surroundings {
        Surroundings {
            home: Some("/home/u".into()),
            working_directory: "/here".into(),
        }
    }

    fn config(texts: &[&str]) -> Result<ClientConfig, ConfigError> {
        let parsed: Result<Vec<_>, _> = texts
            .iter()
            .map(|text| Ini::parse(text.as_bytes(), KeyCase::Fold))
            .collect();
        ClientConfig::from_fragments(parsed?, &around())
    }

    #[test]
    fn files_are_loaded_by_number_then_name() {
        let names = [
            "10_b.ini",
            "10_a.ini",
            "9_b.ini",
            "abc.ini",
            "99.ini",
            "x_1.ini",
            "50_a.cfg",
            "00_default.ini",
            "-1_x.ini",
        ];
        assert_eq!(
            loading_order(names.map(str::to_owned)),
            [
                "-1_x.ini",
                "00_default.ini",
                "9_b.ini",
                "10_a.ini",
                "10_b.ini"
            ]
        );
    }

    #[test]
    fn an_empty_configuration_has_the_specified_defaults() {
        let config = config(&[]).unwrap();
        assert_eq!(config.service.channel.as_str(), "daily");
        assert_eq!(config.service.build_number, ImageVersion::NONE);
        assert_eq!(config.service.device, None);
        assert_eq!(config.cache_partition, "/android/cache/recovery");
        assert_eq!(config.hooks.apply, HookName::Reboot);
        assert_eq!(config.downloader, Downloader::Auto);
        let automatic = config.automatic;
        assert_eq!((automatic.apply, automatic.window), (YesNo(false), None));
        assert_eq!(automatic.defer.as_secs(), 0);
        assert_eq!(config.lifetime.as_secs(), 600);
        assert_eq!(config.downloads.stall_timeout.duration().as_secs(), 60);
        assert_eq!(config.downloads.attempts.get(), 5);
        assert_eq!(
            config.service.https_base().unwrap(),
            "https://system-image.ubports.com"
        );
    }

    #[test]
    fn the_files_of_a_device_override_one_another() {
        let client = "[service]\nbase: old\nchannel: old\n[updater]\ncache_partition: ~/cache\n[system]\ntempdir: tmp\n";
        let channel = "[service]\nbase: images.example.net\nhttp_port: 8080\nhttps_port: disabled\n\
                       channel: 24.04/stable\ndevice: \nbuild_number: 7\nversion_detail: a=1\n";
        let config = config(&[client, channel]).unwrap();
        assert_eq!(config.service.channel.as_str(), "24.04/stable");
        assert_eq!(
            config.service.https_base().unwrap(),
            "http://images.example.net:8080"
        );
        assert_eq!(
            config.service.http_base().unwrap(),
            "http://images.example.net:8080"
        );
        assert_eq!(config.service.device, None);
        assert_eq!(config.cache_partition, "/home/u/cache");
        assert_eq!(config.system.tempdir, "/here/tmp");
    }

    #[test]
    fn the_payload_url_falls_back_to_the_metadata_url() {
        let config =
            config(&["[service]\nbase: x\nhttp_port: disabled\nhttps_port: 8443\n"]).unwrap();
        assert_eq!(config.service.http_base().unwrap(), "https://x:8443");
        let neither =
            super::tests::config(&["[service]\nhttp_port: disabled\nhttps_port: DISABLE\n"])
                .unwrap();
        assert!(matches!(
            neither.service.https_base(),
            Err(ConfigError::NoPort)
        ));
    }

    #[test]
    fn each_key_of_the_table_is_read() {
        // For each kind of value one that is no default, or none at all.
        let values = [
            "7",
            "/x",
            "a.b",
            "2m",
            "debug",
            "yes",
            "manual",
            "01:00-02:00",
            "a=b",
        ];
        let usual = config(&[]).unwrap();
        for section in keys::SECTIONS {
            for key in section.keys {
                let is_read = values.iter().any(|value| {
                    let text = format!("[{}]\n{}: {value}\n", section.name, key.name);
                    config(&[&text]).map_or(true, |config| config != usual)
                });
                assert!(is_read, "[{}] {}", section.name, key.name);
            }
        }
    }

    #[test]
    fn a_bad_value_is_told_with_its_key() {
        for (text, key) in [
            ("[service]\nhttp_port: x", "http_port"),
            ("[service]\nbuild_number: -1", "build_number"),
            ("[service]\nchannel: ../x", "channel"),
            ("[system]\ntimeout: 10", "timeout"),
            ("[system]\nloglevel: loud", "loglevel"),
            ("[hooks]\napply: Noop", "apply"),
            ("[downloads]\nconnect_timeout: 0s", "connect_timeout"),
            ("[downloads]\nattempts: 0", "attempts"),
            ("[updater]\ndownloader: curl", "downloader"),
            ("[automatic]\napply: maybe", "apply"),
            ("[automatic]\nwindow: at night", "window"),
            ("[automatic]\ndefer: 3", "defer"),
            ("[dbus]\nlifetime: 1H", "lifetime"),
        ] {
            let error = config(&[text]).unwrap_err();
            assert!(
                matches!(&error, ConfigError::Value { key: found, .. } if *found == key),
                "{error}"
            );
        }
    }
}

//! The upgrader's settings: `upgrader.toml`.
//!
//! In: the file's text. Out: checked [`Settings`]; the rest of the program sees nothing else.
//! What the original guessed from the recovery it ran in is written down here instead.

use camino::Utf8PathBuf;
use serde::Deserialize;
use system_image_delta::{Limits, Privileges};
use system_image_formats::name::{DeviceName, NameError};

/// Where the settings are unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/system-image/upgrader.toml";

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The trust root: the archive-master keyring, part of the recovery.
    pub archive_master: Utf8PathBuf,
    /// The device's name; keyrings for other models are refused.
    pub device: DeviceName,
    /// Where the client left the files that the command file names.
    pub drop_box: Utf8PathBuf,
    /// The user data partition: blacklist and time of the last update.
    pub data: Utf8PathBuf,
    /// Where the outcome is written for the running system to read.
    pub result: Utf8PathBuf,
    /// Where the system is.
    pub system: SystemAt,
    /// What this process may do to the system's files.
    pub privileges: Privileges,
    /// What an archive may cost.
    pub limits: Limits,
}

/// Where the system is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemAt {
    /// In a directory: formatting empties it, mounting finds it.
    Directory(Utf8PathBuf),
    /// On a block device with an ext4 file system.
    Device {
        /// The block device.
        device: Utf8PathBuf,
        /// The directory that it is mounted on meanwhile.
        mountpoint: Utf8PathBuf,
    },
}

/// Why settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, a key that does not exist, a missing one or a value of the wrong type.
    #[error("not as `upgrader.toml` must be")]
    Form(#[from] toml::de::Error),
    /// The device's name is none.
    #[error("`device`")]
    Device(#[from] NameError),
    /// A relative path: its meaning would depend on who starts the program.
    #[error("`{key}` must be an absolute path, not `{path}`")]
    Relative {
        /// The setting.
        key: &'static str,
        /// Its value.
        path: Utf8PathBuf,
    },
    /// Neither or both places for the system.
    #[error("`[system]` needs either `directory`, or `device` and `mountpoint`")]
    System,
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    archive_master: Option<Utf8PathBuf>,
    device: String,
    drop_box: Utf8PathBuf,
    data: Utf8PathBuf,
    result: Option<Utf8PathBuf>,
    system: WrittenSystem,
    #[serde(default)]
    limits: WrittenLimits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSystem {
    directory: Option<Utf8PathBuf>,
    device: Option<Utf8PathBuf>,
    mountpoint: Option<Utf8PathBuf>,
    #[serde(default)]
    privileges: WrittenPrivileges,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenPrivileges {
    #[default]
    Root,
    User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLimits {
    archive_bytes: Option<u64>,
    archive_members: Option<u64>,
}

impl Settings {
    /// Reads the text of a configuration file.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let written: Written = toml::from_str(text)?;
        let drop_box = absolute("drop_box", written.drop_box)?;
        let beside = || {
            drop_box
                .parent()
                .unwrap_or(&drop_box)
                .join("system-image-result.json")
        };
        let system = match written.system {
            WrittenSystem {
                directory: Some(path),
                device: None,
                mountpoint: None,
                ..
            } => SystemAt::Directory(absolute("directory", path)?),
            WrittenSystem {
                directory: None,
                device: Some(device),
                mountpoint: Some(path),
                ..
            } => SystemAt::Device {
                device: absolute("device", device)?,
                mountpoint: absolute("mountpoint", path)?,
            },
            _ => return Err(ConfigError::System),
        };
        let archive_master = written
            .archive_master
            .unwrap_or_else(|| "/etc/system-image/archive-master.tar.xz".into());
        let usual = Limits::default();
        Ok(Self {
            archive_master: absolute("archive_master", archive_master)?,
            device: written.device.parse()?,
            data: absolute("data", written.data)?,
            result: absolute("result", written.result.unwrap_or_else(beside))?,
            system,
            privileges: match written.system.privileges {
                WrittenPrivileges::Root => Privileges::Root,
                WrittenPrivileges::User => Privileges::User,
            },
            limits: Limits {
                bytes: written.limits.archive_bytes.unwrap_or(usual.bytes),
                members: written.limits.archive_members.unwrap_or(usual.members),
                ..usual
            },
            drop_box,
        })
    }
}

fn absolute(key: &'static str, path: Utf8PathBuf) -> Result<Utf8PathBuf, ConfigError> {
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(ConfigError::Relative { key, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"
        device = "tango"
        drop_box = "/cache/recovery"
        data = "/data"
        [system]
        directory = "/cache/system"
    "#;

    #[test]
    fn the_smallest_file_has_the_usual_places() {
        let settings = Settings::parse(SMALLEST).unwrap();
        assert_eq!(
            settings.archive_master,
            "/etc/system-image/archive-master.tar.xz"
        );
        assert_eq!(settings.result, "/cache/system-image-result.json");
        assert_eq!(settings.system, SystemAt::Directory("/cache/system".into()));
        assert_eq!(settings.privileges, Privileges::Root);
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_it() {
        let with = |from: &str, to: &str| {
            let error = Settings::parse(&SMALLEST.replace(from, to)).unwrap_err();
            std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string)
        };
        for (from, to, want) in [
            ("data =", "dta =", "dta"),
            ("device = \"tango\"", "", "device"),
            ("device = \"tango\"", "device = 7", "string"),
            ("device = \"tango\"", "device = \"../x\"", "../x"),
            ("\"/data\"", "\"data\"", "absolute"),
            ("directory", "dir", "dir"),
            (
                "directory = \"/cache/system\"",
                "device = \"/dev/x\"",
                "mountpoint",
            ),
            ("[system]", "[system]\nprivileges = \"all\"", "all"),
            ("[system]", "[limits]\nbytes = 1\n[system]", "bytes"),
        ] {
            let got = with(from, to);
            assert!(got.contains(want), "{to}: {got}");
        }
    }
}

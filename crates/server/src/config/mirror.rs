//! The mirrors: hosts that are told to pull after a change (server spec, section 19.1).

use camino::Utf8PathBuf;
use system_image_formats::ini::Ini;

use super::{ConfigError, list, text};

/// A host that pulls the tree, and how to tell it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mirror {
    /// Its host name.
    pub host: String,
    /// The user to log in as.
    pub user: String,
    /// The private key to log in with; relative to the server's directory.
    pub key: Utf8PathBuf,
    /// The port of its `sshd`.
    pub port: u16,
    /// What to run there.
    pub command: String,
}

impl Mirror {
    /// All mirrors, in order of host name.
    pub(super) fn all(ini: &Ini) -> Result<Vec<Self>, ConfigError> {
        let mut mirrors = list(ini, "global", "mirrors")
            .iter()
            .map(|name| Self::of(ini, name))
            .collect::<Result<Vec<_>, _>>()?;
        mirrors.sort();
        Ok(mirrors)
    }

    fn of(ini: &Ini, name: &str) -> Result<Self, ConfigError> {
        let section = format!("mirror_{name}");
        let missing = |section: &str, key| ConfigError::Missing {
            section: section.to_owned(),
            key,
        };
        let value = |key| {
            text(ini, &section, key)
                .or_else(|| text(ini, "mirror_default", key))
                .ok_or_else(|| missing("mirror_default", key))
        };
        let port = value("ssh_port")?;
        let Ok(port) = port.parse() else {
            return Err(ConfigError::Value {
                section,
                key: "ssh_port".into(),
                value: port,
                what: "a port number",
            });
        };
        Ok(Self {
            host: text(ini, &section, "ssh_host").ok_or_else(|| missing(&section, "ssh_host"))?,
            user: value("ssh_user")?,
            key: value("ssh_key")?.into(),
            port,
            command: value("ssh_command")?,
        })
    }
}

//! The server's configuration file, `etc/config` (server spec, section 12).
//!
//! So far only what publishing by hand needs of it: the public name and ports that version files
//! carry, and how hard payloads are compressed. Other keys are left to the importer.

use std::fmt::Write as _;

use system_image_formats::channel_ini::{Port, PortError};
use system_image_formats::ini::{Ini, IniError, KeyCase};

/// Level of `xz` when the configuration names none: 8 MiB of dictionary, which is also what the
/// device needs to unpack. Level 9 needs 64 MiB there for a few percent.
const DEFAULT_LEVEL: u32 = 6;

/// The checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Host name that devices use.
    pub public_fqdn: String,
    /// Port for payloads that devices use.
    pub http_port: Port,
    /// Port for metadata that devices use.
    pub https_port: Port,
    /// Level of `xz`, 0 to 9; a key of our own, `compression_level`.
    pub compression_level: u32,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ConfigError {
    #[error("it is malformed")]
    Ini(#[from] IniError),
    #[error("`{0}` is missing in `[global]`")]
    Missing(&'static str),
    #[error("`{key}` of `[global]` cannot be `{value}`")]
    Port {
        key: &'static str,
        value: String,
        source: PortError,
    },
    #[error("`compression_level` of `[global]` is a number from 0 to 9, not `{0}`")]
    Level(String),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            public_fqdn: "localhost".into(),
            http_port: Port::Number(8080),
            https_port: Port::Disabled,
            compression_level: DEFAULT_LEVEL,
        }
    }
}

impl Config {
    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let ini = Ini::parse(bytes, KeyCase::Keep)?;
        let text = |key| {
            ini.raw("global", key)
                .map(|value| value.trim_matches('"').to_owned())
        };
        let port = |key: &'static str| {
            let value = text(key).ok_or(ConfigError::Missing(key))?;
            // The original's `0` was meant to say that there is no such port.
            if value == "0" {
                return Ok(Port::Disabled);
            }
            value
                .parse()
                .map_err(|source| ConfigError::Port { key, value, source })
        };
        Ok(Self {
            public_fqdn: text("public_fqdn").ok_or(ConfigError::Missing("public_fqdn"))?,
            http_port: port("public_http_port")?,
            https_port: port("public_https_port")?,
            compression_level: match text("compression_level") {
                None => DEFAULT_LEVEL,
                Some(value) => match value.parse() {
                    Ok(level @ 0..=9) => level,
                    _ => return Err(ConfigError::Level(value)),
                },
            },
        })
    }

    /// A file that says the same, for a new server.
    pub fn to_text(&self) -> String {
        let mut text = String::from("[global]\n");
        let lines = [
            ("public_fqdn", self.public_fqdn.clone()),
            ("public_http_port", self.http_port.to_string()),
            ("public_https_port", self.https_port.to_string()),
            ("compression_level", self.compression_level.to_string()),
        ];
        for (key, value) in lines {
            writeln!(text, "{key} = {value}").expect("writing to memory does not fail");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_servers_file_says_what_it_was_made_from() {
        let config = Config {
            compression_level: 2,
            ..Config::default()
        };
        assert_eq!(Config::parse(config.to_text().as_bytes()).unwrap(), config);
    }

    #[test]
    fn the_originals_spelling_is_understood() {
        let text = "[global]\npublic_fqdn = \"images.example.net\"\npublic_http_port = 0\n\
                    public_https_port = 443\nchannels = a, b\n[channel_a]\nfiles = x\n";
        let config = Config::parse(text.as_bytes()).unwrap();
        assert_eq!(config.public_fqdn, "images.example.net");
        assert_eq!(
            (config.http_port, config.https_port),
            (Port::Disabled, Port::Number(443))
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error = |text: &str| Config::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error("[global]\n"),
            "`public_fqdn` is missing in `[global]`"
        );
        let ports = "[global]\npublic_fqdn=x\npublic_http_port=80\npublic_https_port=";
        assert!(error(&format!("{ports}x\n")).contains("cannot be `x`"));
        assert!(error(&format!("{ports}443\ncompression_level=10\n")).contains("not `10`"));
    }
}

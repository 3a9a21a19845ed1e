//! `channel.ini`: what the version tarball tells the installed system of itself (server spec,
//! section 8.1).

use std::fmt;
use std::str::FromStr;

use crate::detail::VersionDetail;
use crate::ini::{Ini, IniError, KeyCase};
use crate::name::{ChannelName, DeviceName};
use crate::version::ImageVersion;

/// A port of the server as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The server has no such port.
    Disabled,
    /// Its number.
    Number(u16),
}

/// The text is neither a port number nor `disabled`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a port is a number from 0 to 65535 or `disabled`")]
pub struct PortError;

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "disabled" | "disable" => Ok(Self::Disabled),
            number => number.parse().map(Self::Number).map_err(|_| PortError),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("disabled"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// The content of `channel.ini`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelIni {
    /// Host name of the server.
    pub base: String,
    /// Its port for payloads.
    pub http_port: Port,
    /// Its port for metadata.
    pub https_port: Port,
    /// The channel.
    pub channel: ChannelName,
    /// The device.
    pub device: DeviceName,
    /// The installed version.
    pub build_number: ImageVersion,
    /// The channel that an alias followed when the image was made.
    pub channel_target: Option<ChannelName>,
    /// What the image is made of.
    pub version_detail: VersionDetail,
}

/// Why a `channel.ini` cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ChannelIniError {
    #[error("not a configuration file")]
    Ini(#[from] IniError),
    #[error("`{0}` is missing in `[service]`")]
    Missing(&'static str),
    #[error("`{key}` of `[service]` cannot be `{value}`")]
    Value { key: &'static str, value: String },
}

impl ChannelIni {
    /// The exact bytes to write, in the order that the original writes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!(
            "[service]\nbase: {}\nhttp_port: {}\nhttps_port: {}\nchannel: {}\ndevice: {}\nbuild_number: {}\n",
            self.base,
            self.http_port,
            self.https_port,
            self.channel,
            self.device,
            self.build_number
        );
        if let Some(target) = &self.channel_target {
            text += &format!("channel_target: {target}\n");
        }
        if !self.version_detail.is_empty() {
            // The reader replaces `%(…)s` and refuses a lone `%`.
            text += &format!(
                "version_detail: {}\n",
                self.version_detail.as_str().replace('%', "%%")
            );
        }
        text.into_bytes()
    }

    /// Reads the file of an installed or mounted system.
    pub fn parse(bytes: &[u8]) -> Result<Self, ChannelIniError> {
        let ini = Ini::parse(bytes, KeyCase::Fold)?;
        Ok(Self {
            base: required(&ini, "base")?,
            http_port: required(&ini, "http_port")?,
            https_port: required(&ini, "https_port")?,
            channel: required(&ini, "channel")?,
            device: required(&ini, "device")?,
            build_number: required(&ini, "build_number")?,
            channel_target: optional(&ini, "channel_target")?,
            version_detail: optional(&ini, "version_detail")?.unwrap_or_default(),
        })
    }
}

fn optional<T: FromStr>(ini: &Ini, key: &'static str) -> Result<Option<T>, ChannelIniError> {
    ini.get("service", key)?
        .map(|value| {
            value
                .parse()
                .map_err(|_| ChannelIniError::Value { key, value })
        })
        .transpose()
}

fn required<T: FromStr>(ini: &Ini, key: &'static str) -> Result<T, ChannelIniError> {
    optional(ini, key)?.ok_or(ChannelIniError::Missing(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_specified_bytes() {
        let text = "[service]\nbase: images.example.net\nhttp_port: 80\nhttps_port: disabled\n\
                    channel: devel\ndevice: bravo\nbuild_number: 3\nchannel_target: 24.04/daily\n\
                    version_detail: tag=50%%,version=3\n";
        let read = ChannelIni::parse(text.as_bytes()).unwrap();
        assert_eq!(read.version_detail.as_str(), "tag=50%,version=3");
        assert_eq!(read.https_port, Port::Disabled);
        assert_eq!(String::from_utf8(read.to_bytes()).unwrap(), text);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        assert!(matches!(
            ChannelIni::parse(b"[service]\n"),
            Err(ChannelIniError::Missing("base"))
        ));
        let wrong = ChannelIni::parse(b"[service]\nbase: x\nhttp_port: 70000\n").unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "`http_port` of `[service]` cannot be `70000`"
        );
    }
}

//! `keyring.json`: what a keyring archive says of itself (server spec, section 10.3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json;
use crate::name::DeviceName;

/// What the keys of a keyring may sign (server spec, section 10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyringType {
    /// The trust root, installed with the device: signs `archive-master` and `image-master`.
    ArchiveMaster,
    /// Signs `image-signing` and `blacklist`.
    ImageMaster,
    /// Signs channels, indexes, payloads and `device-signing`.
    ImageSigning,
    /// A third party's key for one device's index and payloads.
    DeviceSigning,
    /// Keys that are refused everywhere.
    Blacklist,
}

impl KeyringType {
    /// Every type, in the order of the chain of trust.
    pub const ALL: [Self; 5] = [
        Self::ArchiveMaster,
        Self::ImageMaster,
        Self::ImageSigning,
        Self::DeviceSigning,
        Self::Blacklist,
    ];

    /// The name used in `keyring.json` and in file names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ArchiveMaster => "archive-master",
            Self::ImageMaster => "image-master",
            Self::ImageSigning => "image-signing",
            Self::DeviceSigning => "device-signing",
            Self::Blacklist => "blacklist",
        }
    }

    /// The keyring whose keys must have signed a keyring of this type.
    pub const fn signer(self) -> Self {
        match self {
            Self::ArchiveMaster | Self::ImageMaster => Self::ArchiveMaster,
            Self::ImageSigning | Self::Blacklist => Self::ImageMaster,
            Self::DeviceSigning => Self::ImageSigning,
        }
    }
}

impl fmt::Display for KeyringType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no keyring type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no such keyring type; there are archive-master, image-master, image-signing, device-signing and blacklist"
)]
pub struct UnknownKeyringType;

impl FromStr for KeyringType {
    type Err = UnknownKeyringType;

    fn from_str(text: &str) -> Result<Self, UnknownKeyringType> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(UnknownKeyringType)
    }
}

/// The content of `keyring.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyringInfo {
    /// What its keys may sign.
    #[serde(rename = "type")]
    pub kind: KeyringType,
    /// Unix seconds, UTC, after which the keyring is refused; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<i64>,
    /// The only device that may use it; any device when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<DeviceName>,
    /// Keys of other writers, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl KeyringInfo {
    /// A keyring of this type without expiry, for any device.
    pub fn new(kind: KeyringType) -> Self {
        Self {
            kind,
            expiry: None,
            model: None,
            extra: Map::new(),
        }
    }

    /// Reads `keyring.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, json::JsonError> {
        json::from_slice(bytes)
    }

    /// The exact bytes to write: four blanks of indent, because old upgraders match lines
    /// (upgrader spec, section 6).
    pub fn to_bytes(&self) -> Vec<u8> {
        json::to_vec(self)
    }

    /// Whether the keyring is past its expiry at `now` (Unix seconds, UTC).
    pub fn is_expired(&self, now: i64) -> bool {
        self.expiry.is_some_and(|expiry| expiry < now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_one_member_a_line_for_readers_that_match_lines() {
        let info = KeyringInfo {
            expiry: Some(1_800_000_000),
            model: Some("tango".parse().unwrap()),
            ..KeyringInfo::new(KeyringType::DeviceSigning)
        };
        let text = "{\n    \"expiry\": 1800000000,\n    \"model\": \"tango\",\n    \"type\": \"device-signing\"\n}\n";
        assert_eq!(String::from_utf8(info.to_bytes()).unwrap(), text);
        assert_eq!(KeyringInfo::parse(text.as_bytes()).unwrap(), info);
    }

    #[test]
    fn unknown_keys_survive_and_wrong_types_are_refused() {
        let text = b"{\n    \"note\": [\n        1\n    ],\n    \"type\": \"blacklist\"\n}\n";
        assert_eq!(KeyringInfo::parse(text).unwrap().to_bytes(), text);
        for wrong in [
            "{}",
            "[]",
            "{\"type\": \"x\"}",
            "{\"type\": \"blacklist\", \"expiry\": \"1\"}",
            "",
        ] {
            assert!(KeyringInfo::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn expires_after_its_second_not_in_it() {
        let info = KeyringInfo {
            expiry: Some(100),
            ..KeyringInfo::new(KeyringType::ImageSigning)
        };
        assert!(!info.is_expired(100) && info.is_expired(101));
        assert!(!KeyringInfo::new(KeyringType::ImageSigning).is_expired(i64::MAX));
    }
}

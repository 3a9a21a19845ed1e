//! `channels.json`: which channels and devices a server has (server spec, section 4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::json::{self, JsonError};
use crate::name::{ChannelName, DeviceName, TreePath};

/// The content of `channels.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Channels(pub BTreeMap<ChannelName, Channel>);

/// One channel: a named timeline of images for its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The devices by name.
    pub devices: BTreeMap<DeviceName, DeviceEntry>,
    /// The channel that this one follows with version files of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<ChannelName>,
    /// The channel whose entry this one is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<ChannelName>,
    /// Not to be offered in lists.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// Keys of other writers, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One device of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEntry {
    /// Path of the device's index.
    pub index: TreePath,
    /// The device-signing keyring, where the device has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<SignedPath>,
    /// The channel whose index is pointed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<ChannelName>,
    /// Keys of other writers, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A file of the tree and its detached signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedPath {
    /// The file.
    pub path: TreePath,
    /// Its signature.
    pub signature: TreePath,
}

impl Channel {
    /// The channel that this one, called `name`, follows as an alias or a redirect. One that is
    /// aliased to itself follows nobody (server spec, section 4).
    pub fn followed(&self, name: &ChannelName) -> Option<&ChannelName> {
        let target = self.alias.as_ref().filter(|target| *target != name);
        target.or(self.redirect.as_ref())
    }
}

impl Channels {
    /// Reads `channels.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        json::from_slice(bytes)
    }

    /// The exact bytes to publish.
    pub fn to_bytes(&self) -> Vec<u8> {
        json::to_vec(self)
    }

    /// The channel of this name.
    pub fn get(&self, name: &ChannelName) -> Option<&Channel> {
        self.0.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of server spec, section 23.
    const EXAMPLE: &str = include_str!("../tests/data/channels.json");

    #[test]
    fn the_worked_example_survives_byte_for_byte() {
        let channels = Channels::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(channels.to_bytes()).unwrap(), EXAMPLE);
        let legacy = channels.get(&"legacy".parse().unwrap()).unwrap();
        assert!(legacy.hidden && legacy.redirect.is_none());
        let tango = &legacy.devices[&"tango".parse().unwrap()];
        assert_eq!(tango.redirect.as_ref().unwrap().as_str(), "24.04/stable");
        assert_eq!(
            tango.keyring.as_ref().unwrap().path.relative(),
            "24.04/stable/tango/device.tar.xz"
        );
    }

    #[test]
    fn a_channel_that_is_aliased_to_itself_follows_nobody() {
        let text = br#"{"a": {"alias": "a", "devices": {}}, "b": {"alias": "a", "devices": {}},
            "c": {"redirect": "a", "devices": {}}, "d": {"devices": {}}}"#;
        let channels = Channels::parse(text).unwrap();
        let followed: Vec<_> = channels
            .0
            .iter()
            .map(|(name, channel)| channel.followed(name).map(ChannelName::as_str))
            .collect();
        assert_eq!(followed, [None, Some("a"), Some("a"), None]);
    }

    #[test]
    fn unknown_keys_survive_at_every_level() {
        let text = br#"{"c": {"devices": {"d": {"index": "/c/d/index.json", "x": {"b": 1, "a": [null]}}}, "y": "\u00e4"}}"#;
        let channels = Channels::parse(text).unwrap();
        assert_eq!(Channels::parse(&channels.to_bytes()).unwrap(), channels);
        let written = String::from_utf8(channels.to_bytes()).unwrap();
        assert!(
            written.contains("\"x\": {") && written.contains("\"y\": \"\\u00e4\""),
            "{written}"
        );
    }

    #[test]
    fn what_makes_the_file_unusable_is_refused() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"c": {}}"#,
            r#"{"c": {"devices": {}, "hidden": "yes"}}"#,
            r#"{"c": {"devices": {"d": {"index": "/../x"}}}}"#,
            r#"{"../c": {"devices": {}}}"#,
            r#"{"c": {"devices": {"d/e": {"index": "/x"}}}}"#,
        ] {
            assert!(Channels::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}

//! Who changed what, and when: one line of JSON per change in `state/history.jsonl`.
//!
//! A record for people. Nothing is decided by it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};

use anyhow::Context;
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use system_image_durable::present;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;

use crate::root::Root;

/// A change that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What was done, e.g. `publish` or `phase`.
    pub action: String,
    /// The channel that it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<ImageVersion>,
    /// What else there is to say.
    #[serde(default, flatten)]
    pub more: BTreeMap<String, Value>,
}

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in Unix seconds.
    pub time: i64,
    /// Who: the user behind `sudo`, else the one that ran the command.
    pub by: String,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl Entry {
    /// A change that was made just now, at `time`.
    pub fn new(time: i64, event: &Event) -> Self {
        Self {
            time,
            by: user(),
            event: event.clone(),
        }
    }
}

impl Event {
    /// An event of this kind.
    pub fn new(action: &str) -> Self {
        Self {
            action: action.to_owned(),
            ..Self::default()
        }
    }

    /// In this channel.
    #[must_use]
    pub fn channel(mut self, channel: &ChannelName) -> Self {
        self.channel = Some(channel.to_string());
        self
    }

    /// For this device.
    #[must_use]
    pub fn device(mut self, device: &DeviceName) -> Self {
        self.device = Some(device.to_string());
        self
    }

    /// Of this image.
    #[must_use]
    pub fn version(mut self, version: ImageVersion) -> Self {
        self.version = Some(version);
        self
    }

    /// With one thing more.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }
}

/// The history of one server.
#[derive(Clone, Debug)]
pub struct History(Utf8PathBuf);

impl History {
    /// Of the server in `root`.
    pub fn of(root: &Root) -> Self {
        Self(root.state().join("history.jsonl"))
    }

    /// Adds a line.
    pub fn append(&self, entry: &Entry) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .with_context(|| format!("cannot write the history `{}`", self.0))?;
        file.write_all(&line)
            .with_context(|| format!("cannot write the history `{}`", self.0))
    }

    /// All lines, oldest first. One that a crash cut off is left out.
    pub fn read(&self) -> anyhow::Result<Vec<Entry>> {
        let failed = || format!("cannot read the history `{}`", self.0);
        let Some(file) = present(File::open(&self.0)).with_context(failed)? else {
            return Ok(Vec::new());
        };
        let mut entries = Vec::new();
        for line in BufReader::new(file).lines() {
            entries.extend(serde_json::from_str(&line.with_context(failed)?));
        }
        Ok(entries)
    }
}

fn user() -> String {
    let of = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    let number = || format!("uid {}", rustix::process::getuid().as_raw());
    of("SUDO_USER")
        .or_else(|| of("USER"))
        .unwrap_or_else(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_half_a_line_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let place = Utf8PathBuf::from_path_buf(dir.path().join("history.jsonl")).unwrap();
        let history = History(place.clone());
        assert!(history.read().unwrap().is_empty());
        let event = Event::new("phase")
            .channel(&"a/b".parse().unwrap())
            .version(ImageVersion::new(3))
            .with("to", 20);
        history.append(&Entry::new(5, &event)).unwrap();
        let mut file = OpenOptions::new().append(true).open(&place).unwrap();
        file.write_all(b"{\"time\": 6, \"ac").unwrap();
        let read = history.read().unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].time, &read[0].event), (5, &event));
    }
}

//! What happened to the device's image: one JSON object per line, the newest last.

use std::fmt;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use system_image_durable as durable;
use system_image_formats::name::ChannelName;
use system_image_formats::version::ImageVersion;

use super::{MAX_RECORD, State};
use crate::files;

/// How many records are kept.
const KEPT: usize = 500;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// An update was downloaded, verified and written into the drop box.
    Prepared,
    /// It was handed over to the upgrader.
    Applying,
    /// It is installed.
    Installed,
    /// It could not be downloaded, or is not installed.
    Failed,
    /// Another channel was chosen.
    Switched,
    /// The user's data was wiped.
    Reset,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepared => "prepared",
            Self::Applying => "handed over",
            Self::Installed => "installed",
            Self::Failed => "failed",
            Self::Switched => "switched",
            Self::Reset => "reset",
        })
    }
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, in Unix seconds.
    pub at: i64,
    /// What happened.
    pub event: Event,
    /// The channel that it concerns.
    pub channel: ChannelName,
    /// The version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ImageVersion>,
    /// The version that it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ImageVersion>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Record {
    /// A record without a reason.
    pub fn new(
        at: i64,
        event: Event,
        channel: &ChannelName,
        moved: Option<(ImageVersion, ImageVersion)>,
    ) -> Self {
        Self {
            at,
            event,
            channel: channel.clone(),
            from: moved.map(|(from, _)| from),
            to: moved.map(|(_, to)| to),
            reason: None,
        }
    }

    /// Whether it tells the same, at whatever time.
    fn repeats(&self, other: &Self) -> bool {
        let timeless = |record: &Self| Self {
            at: 0,
            ..record.clone()
        };
        timeless(self) == timeless(other)
    }
}

impl State {
    /// The history, oldest first. Lines that are none of ours are left out.
    pub fn history(&self) -> Vec<Record> {
        let bytes = durable::read(self.path("history.jsonl"), MAX_RECORD);
        let bytes = bytes.ok().flatten().unwrap_or_default();
        bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    /// Adds to the history. What only repeats the last record takes its place.
    pub fn record(&self, record: &Record) -> anyhow::Result<()> {
        let mut history = self.history();
        if history.last().is_some_and(|last| last.repeats(record)) {
            history.pop();
        }
        let superfluous = (history.len() + 1).saturating_sub(KEPT);
        history.drain(..superfluous);
        let mut text = Vec::new();
        for record in history.iter().chain([record]) {
            serde_json::to_writer(&mut text, record).context("a record is JSON")?;
            text.push(b'\n');
        }
        files::replace(&self.path("history.jsonl"), &text)
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;

    #[test]
    fn the_history_is_bounded_and_does_not_repeat_itself() {
        let place = tempfile::tempdir().unwrap();
        let directory = Utf8PathBuf::from_path_buf(place.path().to_owned()).unwrap();
        let state = State { directory };
        let record = |at, to| {
            let moved = Some((ImageVersion::new(1), ImageVersion::new(to)));
            Record::new(at, Event::Prepared, &"a".parse().unwrap(), moved)
        };
        for at in 0..3 {
            state.record(&record(at, 2)).unwrap();
        }
        assert_eq!(state.history(), [record(2, 2)]);
        for to in 0..600 {
            state.record(&record(7, to)).unwrap();
        }
        let history = state.history();
        assert_eq!(history.len(), KEPT);
        assert_eq!(history[0].to, Some(ImageVersion::new(100)));
    }
}

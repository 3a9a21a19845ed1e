//! What the outputs beyond the original's say: for people as lines, for machines as JSON. Both come
//! from one value.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Value, json};
use system_image_formats::channels::Channels;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;
use system_image_report::Size;

use crate::check::{Checked, Outcome};
use crate::client::Client;
use crate::preflight::{Finding, Severity};
use crate::state::{self, Applying, Event, Found, Prepared, Record};
use crate::update::{self, Room};

/// A document for machines: an object with the number of its schema.
pub(crate) fn json(name: &str, value: &impl Serialize) -> String {
    format!("{:#}", json!({ "schema": 1, name: value }))
}

/// What the device is (client spec, section 2.4).
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Info {
    current_build_number: ImageVersion,
    device_name: String,
    channel: ChannelName,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<ChannelName>,
    last_update: String,
    version: BTreeMap<String, String>,
}

impl Info {
    pub(crate) fn of(client: &Client) -> Self {
        let service = &client.device.config.service;
        let version = service.version_detail.to_map().into_iter();
        Self {
            current_build_number: service.build_number,
            device_name: (client.name.as_ref())
                .map_or("?", DeviceName::as_str)
                .to_owned(),
            channel: service.channel.clone(),
            alias: service.channel_target.clone(),
            last_update: client.device.last_update(),
            version: version
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = format!(
            "current build number: {}\ndevice name: {}\nchannel: {}\n",
            self.current_build_number, self.device_name, self.channel
        );
        if let Some(target) = &self.alias {
            text += &format!("alias: {target}\n");
        }
        text += &format!("last update: {}\n", self.last_update);
        for (key, value) in self.version.iter().rev() {
            text += &format!("version {key}: {value}\n");
        }
        text
    }
}

/// What is installed, chosen and prepared, and how the last update ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    installed: state::Installed,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<state::Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<state::Checked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prepared: Option<Prepared>,
    /// What is wrong with the prepared update.
    #[serde(skip_serializing_if = "Option::is_none")]
    damaged: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applying: Option<Applying>,
    /// How the last update ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Record>,
}

impl Status {
    pub(crate) fn of(client: &Client) -> Self {
        let (prepared, damaged) = match client.prepared() {
            Ok(prepared) => (prepared, None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let state = &client.state;
        let ended = |record: &Record| matches!(record.event, Event::Installed | Event::Failed);
        Self {
            installed: client.installed.clone(),
            chosen: state.choice(&client.installed),
            checked: state.checked(),
            prepared,
            damaged,
            applying: state.applying(),
            last: state.history().into_iter().rev().find(ended),
        }
    }

    pub(crate) fn to_text(&self) -> String {
        let (channel, build) = (&self.installed.channel, self.installed.build);
        let mut text = format!("installed: version {build} of {channel}\n");
        if let Some(choice) = &self.chosen {
            let channel = choice.channel.as_ref().unwrap_or(channel);
            let from = choice.build.unwrap_or(build);
            text += &format!("chosen: {channel}, starting from version {from}\n");
        }
        text += &match &self.checked {
            None => "checked: never\n".to_owned(),
            Some(checked) => {
                let found = match &checked.found {
                    Found::Update { version, size, .. } => {
                        format!("version {version}, {} to download", Size(*size))
                    }
                    Found::UpToDate { why } => format!("no update, {why}"),
                    Found::Failed { why } => format!("failed, {why}"),
                };
                format!("checked: {}: {found}\n", time(checked.at))
            }
        };
        text += &match (&self.prepared, &self.damaged) {
            (_, Some(why)) => format!("prepared: unusable, {why}\n"),
            (None, None) => "prepared: nothing\n".to_owned(),
            (Some(prepared), None) => {
                let (version, channel) = (prepared.version, &prepared.channel);
                format!("prepared: version {version} of {channel}, every file verified\n")
            }
        };
        if let Some(applying) = &self.applying {
            let (version, at) = (applying.version, time(applying.at));
            text +=
                &format!("handed over: version {version}, {at}; the device has not restarted\n");
        }
        if let Some(last) = &self.last {
            text += &format!("last update: {}", line(last));
        }
        text
    }
}

/// The history for people, one line a record.
pub(crate) fn history(history: &[Record]) -> String {
    if history.is_empty() {
        return "nothing has happened yet\n".to_owned();
    }
    history.iter().map(line).collect()
}

fn line(record: &Record) -> String {
    let mut text = format!("{} {} {}", time(record.at), record.event, record.channel);
    if let Some(to) = record.to {
        text += &match record.from {
            Some(from) => format!(" {from} -> {to}"),
            None => format!(" {to}"),
        };
    }
    if let Some(reason) = &record.reason {
        text += &format!(": {reason}");
    }
    text + "\n"
}

/// Local time with its offset.
fn time(at: i64) -> String {
    let time = Timestamp::from_second(at).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = time.to_zoned(TimeZone::system());
    time.strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
}

/// The server's channels for machines.
pub(crate) fn channels(channels: &Channels, device: Option<&DeviceName>) -> Value {
    let one = |(name, channel): (&ChannelName, &system_image_formats::channels::Channel)| {
        json!({
            "name": name,
            "alias": channel.alias,
            "redirect": channel.redirect,
            "hidden": channel.hidden,
            "has_this_device": device.is_some_and(|name| channel.devices.contains_key(name)),
        })
    };
    channels.0.iter().map(one).collect()
}

/// What a check found, for machines.
pub(crate) fn check(checked: &Checked) -> serde_json::Result<Value> {
    let mut found = match &checked.outcome {
        Outcome::Update(update) => {
            json!({"result": "update", "update": update, "route": update.route()})
        }
        Outcome::UpToDate { why } => json!({"result": "up-to-date", "why": why}),
        Outcome::NotOffered(error) => json!({
            "result": "not-offered", "why": error.to_string(), "hint": error.hint(),
        }),
    };
    if let Some(explanation) = &checked.explanation {
        found["explanation"] = serde_json::to_value(explanation)?;
    }
    Ok(found)
}

/// What an update would take.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    /// Why there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    none: Option<String>,
    /// Bytes to download, without what is there.
    download: u64,
    /// Where room is needed, and how much.
    room: Vec<Room>,
    /// How many restarts until the last version runs.
    reboots: usize,
    /// The names and sizes of the files that are fetched now.
    files: Vec<(String, u64)>,
}

impl Plan {
    pub(crate) fn of(client: &Client, checked: &Checked) -> anyhow::Result<Self> {
        let Some(update) = checked.update() else {
            let why = match &checked.outcome {
                Outcome::UpToDate { why } => why.clone(),
                Outcome::Update(_) | Outcome::NotOffered(_) => String::new(),
            };
            return Ok(Self {
                none: Some(why),
                download: 0,
                room: Vec::new(),
                reboots: 0,
                files: Vec::new(),
            });
        };
        let config = &client.device.config;
        let (download, room) = update::foresee(&checked.chain, &update.files, config)?;
        // Each one that must be booted, and the last.
        let (_, before) = update
            .images
            .split_last()
            .unwrap_or((&update.images[0], &[]));
        let files = update.files.iter();
        Ok(Self {
            none: None,
            download,
            room: vec![room],
            reboots: before.iter().filter(|image| image.bootme).count() + 1,
            files: files
                .map(|file| (file.path.relative().to_owned(), file.size))
                .collect(),
        })
    }

    pub(crate) fn to_text(&self) -> String {
        if let Some(why) = &self.none {
            return format!("Already up-to-date: {why}\n");
        }
        let mut text = format!("to download: {}\n", Size(self.download));
        for room in &self.room {
            text += &format!(
                "room needed in {}: {}, free {}\n",
                room.directory,
                Size(room.needed),
                Size(room.available)
            );
        }
        text += &format!("restarts: {}\n", self.reboots);
        for (path, size) in &self.files {
            text += &format!("file: {path}, {}\n", Size(*size));
        }
        text
    }
}

/// The findings of a preflight, for people.
pub(crate) fn preflight(found: &[Finding]) -> String {
    let mut text = String::new();
    for finding in found {
        let mark = match finding.severity {
            Severity::Fine => "ok     ",
            Severity::Warning => "warning",
            Severity::Stops => "STOPS  ",
        };
        text += &format!("{mark} {}: {}\n", finding.what, finding.text);
        if let Some(hint) = &finding.hint {
            text += &format!("        hint: {hint}\n");
        }
    }
    text
}

//! Whatever would stop an update, looked for before it starts.

use serde::Serialize;
use system_image_formats::keyring::KeyringType;
use system_image_report::Size;

use crate::client::Client;
use crate::device;
use crate::files;

/// A clock before this is wrong: it is when this was written, in Unix seconds.
const EARLIEST: i64 = 1_763_942_400;

/// Less room than this in the drop box is told, in bytes.
const LITTLE: u64 = 256 << 20;

/// Days before a keyring's end from which on it is told.
const SOON: i64 = 30;

const DAY: i64 = 24 * 60 * 60;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Fine,
    /// An update may fail, or not start by itself.
    Warning,
    /// An update fails.
    Stops,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// How it is.
    pub text: String,
    /// What a person can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    fn new(what: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        Self {
            what,
            severity,
            text: text.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether an update fails for it.
    pub fn stops(&self) -> bool {
        self.severity == Severity::Stops
    }
}

/// Looks at everything; changes nothing but making the drop box where it is missing.
pub fn look(client: &Client) -> Vec<Finding> {
    use Severity::{Fine, Stops, Warning};
    let config = &client.device.config;
    let mut found = Vec::new();

    found.push(match &client.name {
        Some(name) => Finding::new("device", Fine, name.as_str()),
        None => Finding::new("device", Stops, "the device's name is not known")
            .hint("set `device` in `[service]`"),
    });

    let now = device::clock();
    found.push(if now < EARLIEST {
        Finding::new(
            "clock",
            Stops,
            "it is far in the past, so signatures lie in the future",
        )
        .hint("set the clock, or connect to a network that does")
    } else {
        Finding::new("clock", Fine, "plausible")
    });

    let drop_box = &config.cache_partition;
    let made = files::make_directory(drop_box);
    found.push(match made.and_then(|()| Ok(files::available(drop_box)?)) {
        Err(error) => Finding::new("drop box", Stops, format!("{error:#}"))
            .hint("make the directory, or set `cache_partition` of `[updater]`"),
        Ok(free) => {
            let text = format!("{} free in {drop_box}", Size(free));
            let severity = if free < LITTLE { Warning } else { Fine };
            Finding::new("drop box", severity, text)
        }
    });

    found.extend(client.keyrings().into_iter().map(|(kind, keyring)| {
        let what = match kind {
            KeyringType::ArchiveMaster => "trust root",
            KeyringType::ImageMaster => "image-master keyring",
            KeyringType::ImageSigning => "image-signing keyring",
            KeyringType::DeviceSigning => "device-signing keyring",
            KeyringType::Blacklist => "blacklist",
        };
        match keyring {
            Err(error) if kind == KeyringType::ArchiveMaster => {
                Finding::new(what, Stops, format!("{error:#}"))
                    .hint("put the publisher's archive-master keyring there")
            }
            // The next check fetches it.
            Err(error) => Finding::new(what, Warning, format!("{error:#}")),
            Ok(None) => Finding::new(what, Fine, "not fetched yet"),
            Ok(Some(None)) => Finding::new(what, Fine, "good, never expires"),
            Ok(Some(Some(expiry))) => {
                let days = (expiry - now) / DAY;
                let severity = if days < SOON { Warning } else { Fine };
                Finding::new(what, severity, format!("good, expires in {days} days"))
            }
        }
    }));

    found.push(match client.prepared() {
        Ok(None) => Finding::new("prepared update", Fine, "none"),
        Ok(Some(prepared)) => Finding::new(
            "prepared update",
            Fine,
            format!("version {}, every file verified", prepared.version),
        ),
        Err(error) => Finding::new("prepared update", Warning, format!("{error:#}"))
            .hint("update once more: it is replaced"),
    });
    found
}

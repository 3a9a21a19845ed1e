//! Whatever would stop an update, looked for before it starts.

use serde::Serialize;
use system_image_bus::{Battery, Kernel, Link, Network, Source};
use system_image_formats::keyring::KeyringType;
use system_image_report::Size;
use zbus::Connection;

use crate::client::Client;
use crate::device;
use crate::files;
use crate::power;
use crate::settings::AutoDownload;

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
pub async fn look(client: &Client, connection: Option<&Connection>) -> Vec<Finding> {
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

    let settings = &client.settings;
    found.push(network(
        Network::now(connection, &Kernel::default()).await,
        settings.auto_download().unwrap_or(AutoDownload::OnWifi),
    ));
    let least = settings.min_battery().unwrap_or_default();
    found.push(battery(power::now(connection).await, least));

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

/// Who says so, at the end of a finding.
fn says(source: Source, service: &str) -> String {
    match source {
        Source::Service => format!("says {service}"),
        Source::Kernel => "says the kernel".to_owned(),
    }
}

fn network(network: Network, allowed: AutoDownload) -> Finding {
    const WHAT: &str = "network";
    let link = match network.link {
        Link::Offline => "none",
        Link::Ethernet => "cable",
        Link::Wifi => "Wi-Fi",
        Link::Mobile => "mobile data",
        Link::Bluetooth => "Bluetooth",
        Link::Unknown => "of an unknown kind",
    };
    let source = says(network.source, "NetworkManager");
    if network.link == Link::Offline {
        return Finding::new(WHAT, Severity::Stops, format!("{link}, {source}"))
            .hint("connect to a network");
    }
    let metered = match network.metered {
        Some(true) => "metered",
        Some(false) => "not metered",
        None => "perhaps metered",
    };
    let text = format!("{link}, {metered}, {source}");
    if allowed == AutoDownload::OnWifi && !network.is_free() {
        return Finding::new(WHAT, Severity::Warning, text)
            .hint("updates are downloaded by themselves on a cable or Wi-Fi that costs nothing");
    }
    Finding::new(WHAT, Severity::Fine, text)
}

fn battery(battery: Option<Battery>, least: Option<u8>) -> Finding {
    const WHAT: &str = "battery";
    let Some(now) = battery else {
        return Finding::new(WHAT, Severity::Fine, "none");
    };
    let state = if now.discharging {
        "discharging"
    } else {
        "not discharging"
    };
    let text = format!("{} %, {state}, {}", now.percent, says(now.source, "UPower"));
    match power::enough(battery, least) {
        Ok(()) => Finding::new(WHAT, Severity::Fine, text),
        Err(error) => Finding::new(WHAT, Severity::Stops, error.to_string()).hint(error.hint()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_offline_stops_and_what_costs_is_told_where_it_matters() {
        use AutoDownload::{Always, OnWifi};
        use Severity::{Fine, Stops, Warning};
        let source = Source::Service;
        for (link, metered, allowed, severity, text) in [
            (
                Link::Offline,
                None,
                Always,
                Stops,
                "none, says NetworkManager",
            ),
            (
                Link::Wifi,
                Some(false),
                OnWifi,
                Fine,
                "Wi-Fi, not metered, says NetworkManager",
            ),
            (
                Link::Wifi,
                Some(true),
                OnWifi,
                Warning,
                "Wi-Fi, metered, says NetworkManager",
            ),
            (
                Link::Mobile,
                None,
                OnWifi,
                Warning,
                "mobile data, perhaps metered, says NetworkManager",
            ),
            (
                Link::Mobile,
                None,
                Always,
                Fine,
                "mobile data, perhaps metered, says NetworkManager",
            ),
        ] {
            let found = network(
                Network {
                    link,
                    metered,
                    source,
                },
                allowed,
            );
            assert_eq!((found.severity, found.text.as_str()), (severity, text));
            assert_eq!(found.hint.is_some(), severity != Fine, "{text}");
        }
    }

    #[test]
    fn a_battery_below_the_setting_stops_while_nothing_charges_it() {
        let at = |percent, discharging| Battery {
            percent,
            discharging,
            source: Source::Kernel,
        };
        let low = battery(Some(at(9, true)), Some(10));
        assert!(low.stops() && low.hint.is_some(), "{low:?}");
        let charged = battery(Some(at(9, false)), Some(10));
        assert_eq!(charged.text, "9 %, not discharging, says the kernel");
        assert!(!charged.stops() && !battery(None, Some(10)).stops());
    }
}

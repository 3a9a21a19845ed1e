//! What is done without being asked, as a timer does it: check, download where it costs nothing, and
//! apply where the configuration wants it.
//!
//! In: settings, configuration, the clock, the network. Out: yes, or the reason why not yet. What
//! follows from them is for the caller to do; it asks again each time, so nothing is remembered but
//! when a version was seen first.

use jiff::civil::{Date, DateTime};
use system_image_bus::Network;
use system_image_formats::config::Automatic;

use crate::settings::AutoDownload;

/// Until when nothing is downloaded or applied: `forever`, or a date, `YYYY-MM-DD`.
pub const HOLD: &str = "hold";

/// Why nothing more is done now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// The user holds updates back.
    #[error("updates are held back until {0}")]
    Held(String),
    /// The setting is no time.
    #[error("the setting `hold` is `forever` or a date, not `{0}`: updates are held back")]
    UnknownHold(String),
    /// The version is too young.
    #[error("version {version} is deferred for another {minutes} minutes")]
    Deferred {
        /// The version.
        version: u32,
        /// What is left.
        minutes: i64,
    },
    /// The setting says that nothing is downloaded.
    #[error("nothing is downloaded unasked: `auto_download` is 0")]
    Never,
    /// The network costs.
    #[error("nothing is downloaded unasked over this network")]
    Costs,
    /// The configuration says that nothing is applied.
    #[error("nothing is applied unasked: `apply` of `[automatic]` is `no`")]
    ApplyNever,
    /// It is not the time of the day for it.
    #[error("updates are applied between {0}")]
    Window(String),
}

/// Whether updates are held back now, in local time.
pub fn held(hold: &str, now: DateTime) -> Result<(), NotNow> {
    match hold.trim() {
        "" => Ok(()),
        "forever" => Err(NotNow::Held("that is taken back".to_owned())),
        text => match text.parse::<Date>() {
            Ok(date) if date <= now.date() => Ok(()),
            Ok(date) => Err(NotNow::Held(date.to_string())),
            Err(_) => Err(NotNow::UnknownHold(text.to_owned())),
        },
    }
}

/// Whether a version that was seen first at `seen` has been waited for long enough; Unix seconds.
pub fn deferred(rules: Automatic, version: u32, seen: i64, now: i64) -> Result<(), NotNow> {
    let wait = i64::try_from(rules.defer.as_secs()).unwrap_or(i64::MAX);
    // A clock that was put back does not make it wait for longer than it would from now.
    let left = wait.saturating_sub(now.saturating_sub(seen)).min(wait);
    if left <= 0 {
        return Ok(());
    }
    let minutes = left.div_euclid(60) + 1;
    Err(NotNow::Deferred { version, minutes })
}

/// Whether an update may be downloaded unasked.
pub fn download(setting: AutoDownload, network: Network) -> Result<(), NotNow> {
    match setting {
        AutoDownload::Never => Err(NotNow::Never),
        AutoDownload::OnWifi if !network.is_free() => Err(NotNow::Costs),
        AutoDownload::OnWifi | AutoDownload::Always => Ok(()),
    }
}

/// Whether an update may be applied unasked now, in local time.
pub fn apply(rules: Automatic, now: DateTime) -> Result<(), NotNow> {
    let (Ok(hour), Ok(minute)) = (u8::try_from(now.hour()), u8::try_from(now.minute())) else {
        return Err(NotNow::ApplyNever);
    };
    match rules.window {
        _ if !rules.apply.0 => Err(NotNow::ApplyNever),
        Some(window) if !window.contains(hour, minute) => Err(NotNow::Window(window.to_string())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use system_image_bus::{Link, Source};
    use system_image_formats::config::YesNo;

    use super::*;

    fn at(time: &str) -> DateTime {
        format!("2026-11-24T{time}").parse().unwrap()
    }

    fn rules(apply: bool, window: &str, defer: &str) -> Automatic {
        Automatic {
            apply: YesNo(apply),
            window: window.parse().ok(),
            defer: defer.parse().unwrap(),
        }
    }

    #[test]
    fn a_hold_lasts_until_its_day_begins() {
        for (hold, free) in [
            ("", true),
            ("forever", false),
            ("2026-11-25", false),
            ("2026-11-24", true),
            ("2020-01-01", true),
            ("next week", false),
        ] {
            assert_eq!(held(hold, at("12:00:00")).is_ok(), free, "{hold}");
        }
    }

    #[test]
    fn a_version_is_deferred_from_when_it_was_seen_first() {
        let rules = rules(true, "", "2h");
        for (seen, now, free) in [(0, 0, false), (0, 7199, false), (0, 7200, true)] {
            assert_eq!(deferred(rules, 5, seen, now).is_ok(), free, "{seen} {now}");
        }
        // The clock was put back by a year.
        let put_back = deferred(rules, 5, 31_536_000, 0).unwrap_err();
        assert_eq!(
            put_back,
            NotNow::Deferred {
                version: 5,
                minutes: 121
            }
        );
    }

    #[test]
    fn what_is_downloaded_unasked_follows_setting_and_network() {
        use AutoDownload::{Always, Never, OnWifi};
        for (setting, link, free) in [
            (Never, Link::Wifi, false),
            (OnWifi, Link::Wifi, true),
            (OnWifi, Link::Mobile, false),
            (OnWifi, Link::Unknown, false),
            (Always, Link::Mobile, true),
        ] {
            let (metered, source) = (None, Source::Kernel);
            let network = Network {
                link,
                metered,
                source,
            };
            assert_eq!(
                download(setting, network).is_ok(),
                free,
                "{setting:?} {link:?}"
            );
        }
    }

    #[test]
    fn updates_are_applied_unasked_only_where_that_is_wanted_and_in_the_window() {
        for (wanted, window, time, free) in [
            (false, "", "03:00:00", false),
            (true, "", "03:00:00", true),
            (true, "02:00-05:00", "03:00:00", true),
            (true, "02:00-05:00", "12:00:00", false),
        ] {
            let rules = rules(wanted, window, "0d");
            assert_eq!(apply(rules, at(time)).is_ok(), free, "{window} {time}");
        }
    }
}

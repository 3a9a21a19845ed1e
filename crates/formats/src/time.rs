//! The index's time stamp, `Mon Dec 18 08:54:59 UTC 2017` (server spec, section 5).

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// When an index was written, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GeneratedAt(Timestamp);

/// The text is not of the form `Mon Dec 18 08:54:59 UTC 2017`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time of generation has the form `Mon Dec 18 08:54:59 UTC 2017`")]
pub struct GeneratedAtError;

impl GeneratedAt {
    /// From Unix seconds; a time that no calendar shows becomes the epoch.
    pub fn from_unix(seconds: i64) -> Self {
        Self(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// In Unix seconds.
    pub fn unix(self) -> i64 {
        self.0.as_second()
    }
}

impl fmt::Display for GeneratedAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}",
            self.0
                .to_zoned(TimeZone::UTC)
                .strftime("%a %b %d %H:%M:%S UTC %Y")
        )
    }
}

impl FromStr for GeneratedAt {
    type Err = GeneratedAtError;

    fn from_str(text: &str) -> Result<Self, GeneratedAtError> {
        // Readers do not compare the day of the week with the date, so neither does this.
        let (day, rest) = text.trim().split_once(' ').ok_or(GeneratedAtError)?;
        if !DAYS.iter().any(|known| known.eq_ignore_ascii_case(day)) {
            return Err(GeneratedAtError);
        }
        strtime::parse("%b %d %H:%M:%S UTC %Y", rest.trim_start())
            .and_then(|time| time.to_datetime())
            .and_then(|time| time.to_zoned(TimeZone::UTC))
            .map(|time| Self(time.timestamp()))
            .map_err(|_| GeneratedAtError)
    }
}

impl Serialize for GeneratedAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GeneratedAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::json::parsed(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn has_the_specified_form() {
        let text = "Mon Dec 18 08:54:59 UTC 2017";
        let time: GeneratedAt = text.parse().unwrap();
        assert_eq!(time.unix(), 1_513_587_299);
        assert_eq!(time.to_string(), text);
        assert_eq!(
            GeneratedAt::from_unix(0).to_string(),
            "Thu Jan 01 00:00:00 UTC 1970"
        );
    }

    #[test]
    fn another_layout_or_zone_is_refused() {
        for text in [
            "",
            "Mon",
            "2017-12-18T08:54:59Z",
            "Mon Dec 18 08:54:59 CET 2017",
            "Mon Dec 18 08:54:59 2017",
            "Xyz Dec 18 08:54:59 UTC 2017",
            "Mon Dec 32 08:54:59 UTC 2017",
        ] {
            assert_eq!(text.parse::<GeneratedAt>(), Err(GeneratedAtError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_time_survives(seconds in 0i64..250_000_000_000) {
            let time = GeneratedAt::from_unix(seconds);
            prop_assert_eq!(time.to_string().parse::<GeneratedAt>().unwrap(), time);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<GeneratedAt>();
        }
    }
}

//! Image versions and rollout percentages: the two numbers of an image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// An image's number within its channel: growing, never reused. 0 is a device without an image.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ImageVersion(u32);

impl ImageVersion {
    /// No image at all: what a device has before its first one, and after a channel switch.
    pub const NONE: Self = Self(0);

    /// The highest version that the original client reads (client spec, section 7.2).
    pub const MAX_CLASSIC: Self = Self(65_535);

    /// The version with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether the original client reads an index with this version.
    pub const fn is_classic(self) -> bool {
        self.0 <= Self::MAX_CLASSIC.0
    }

    /// The version after this one, if there is one.
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl fmt::Display for ImageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a whole number from 0 to 4294967295.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an image version is a whole number from 0 to {}", u32::MAX)]
pub struct VersionError;

impl FromStr for ImageVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        text.trim().parse().map(Self).map_err(|_| VersionError)
    }
}

/// A share of the devices, 0 to 100: an image's rollout, or a device's place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Percentage(u8);

impl Percentage {
    /// Nobody: the image is withdrawn.
    pub const NONE: Self = Self(0);
    /// Everybody, the default.
    pub const ALL: Self = Self(100);

    /// The nearest percentage: the original clamps what it is given (client spec, section 2.1).
    pub fn clamped(number: i64) -> Self {
        Self(u8::try_from(number.clamp(0, 100)).unwrap_or(100))
    }

    /// The number, 0 to 100.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a whole number from 0 to 100.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a percentage is a whole number from 0 to 100")]
pub struct PercentageError;

impl FromStr for Percentage {
    type Err = PercentageError;

    fn from_str(text: &str) -> Result<Self, PercentageError> {
        match text.trim().parse() {
            Ok(number @ 0..=100) => Ok(Self(number)),
            _ => Err(PercentageError),
        }
    }
}

impl<'de> Deserialize<'de> for Percentage {
    /// Integer or integer text; clamped, as any number beyond the range acts like its nearest.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(i64),
            Text(String),
        }
        let number = match Form::deserialize(deserializer)? {
            Form::Number(number) => number,
            Form::Text(text) => text.trim().parse().map_err(serde::de::Error::custom)?,
        };
        Ok(Self::clamped(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_beyond_the_classic_limit_are_read_and_told_apart() {
        assert!("65535".parse::<ImageVersion>().unwrap().is_classic());
        assert!(!"65536".parse::<ImageVersion>().unwrap().is_classic());
        for text in ["", "-1", "1.0", "4294967296", "x"] {
            assert_eq!(text.parse::<ImageVersion>(), Err(VersionError), "{text}");
        }
        assert_eq!(ImageVersion::new(u32::MAX).next(), None);
    }

    #[test]
    fn percentages_in_an_index_are_integers_or_integer_text() {
        let read = |text| {
            serde_json::from_str::<Percentage>(text)
                .map(Percentage::get)
                .ok()
        };
        assert_eq!(read("40"), Some(40));
        assert_eq!(read("\"40\""), Some(40));
        assert_eq!(read("150"), Some(100));
        assert_eq!(read("-3"), Some(0));
        assert_eq!(read("\"x\""), None);
        assert_eq!(read("4.5"), None);
        assert_eq!("101".parse::<Percentage>(), Err(PercentageError));
    }
}

//! `version_detail`: what an image is made of, as `key=value` items (client spec, section 5.2).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A comma-separated list of `key=value` items, e.g. `tag=OTA-25,ubuntu=20260130,version=3`.
///
/// The text is kept as it is, because signed files carry it; the items are read from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionDetail(String);

impl VersionDetail {
    /// Whether there is no item, so that the key is left out of an index.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The items in order. Items without `=` are dropped; neither side is trimmed.
    pub fn items(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .trim()
            .split(',')
            .filter_map(|item| item.split_once('='))
    }

    /// The items by key; of several with one key the last counts.
    pub fn to_map(&self) -> BTreeMap<&str, &str> {
        self.items().collect()
    }

    /// The value of the last item with this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.items()
            .filter(|(found, _)| *found == key)
            .last()
            .map(|(_, value)| value)
    }

    /// Appends an item.
    ///
    /// # Errors
    /// [`DetailError`] when the key is empty or either side would change the list's structure.
    pub fn push(&mut self, key: &str, value: &str) -> Result<(), DetailError> {
        let breaks = |c: char| c == ',' || c.is_control();
        if key.is_empty() || key.contains('=') || key.contains(breaks) || value.contains(breaks) {
            return Err(DetailError {
                key: key.into(),
                value: value.into(),
            });
        }
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(value);
        Ok(())
    }

    /// The same list without the items of this key.
    #[must_use]
    pub fn without(&self, key: &str) -> Self {
        let kept: Vec<_> = (self.0.trim().split(','))
            .filter(|item| item.split_once('=').is_none_or(|(found, _)| found != key))
            .collect();
        Self(kept.join(","))
    }
}

/// An item that cannot stand in a version detail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{key}={value}` cannot be an item of a version detail: `,`, control characters and an empty key are not allowed"
)]
pub struct DetailError {
    key: String,
    value: String,
}

impl FromStr for VersionDetail {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.into()))
    }
}

impl From<String> for VersionDetail {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for VersionDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for VersionDetail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for VersionDetail {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_the_original_reads_it() {
        let text = "ubuntu=20250103,device=5,custom=,tag=OTA-3, x = y,junk,a=b=c";
        let detail = VersionDetail::from(text.to_owned());
        let want: BTreeMap<_, _> = [
            ("ubuntu", "20250103"),
            ("device", "5"),
            ("custom", ""),
            ("tag", "OTA-3"),
            (" x ", " y"),
            ("a", "b=c"),
        ]
        .into();
        assert_eq!(detail.to_map(), want);
        assert_eq!(detail.to_string(), text);
        assert_eq!(VersionDetail::default().items().count(), 0);
    }

    #[test]
    fn items_are_added_and_taken_out_without_touching_the_others() {
        let mut detail = VersionDetail::from("tag=OTA-1,ubuntu=3".to_owned());
        detail.push("version", "7").unwrap();
        assert_eq!(detail.as_str(), "tag=OTA-1,ubuntu=3,version=7");
        assert_eq!(detail.without("tag").as_str(), "ubuntu=3,version=7");
        for (key, value) in [
            ("", "x"),
            ("a=b", "c"),
            ("a,b", "c"),
            ("a", "b,c"),
            ("a", "b\n"),
        ] {
            assert!(detail.push(key, value).is_err(), "{key}={value}");
        }
    }
}

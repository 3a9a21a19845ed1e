//! What a caller says about a download (specification, section 16).
//!
//! Any key is kept and returned. Those that mean something are read leniently, as the original does: a
//! number may be a truth, a string a list of one word.

use std::collections::HashMap;

use camino::Utf8PathBuf;
use serde_json::{Map, Value};
use zbus::wire::{LE, serialized::Context, serialized::Data, to_bytes};
use zbus::{OwnedVariant, Variant};

/// The keys that mean something.
pub mod key {
    /// The owner, for callers that are not confined.
    pub const APP_ID: &str = "app-id";
    /// A package to be installed from the file.
    pub const CLICK_PACKAGE: &str = "click-package";
    /// Our own: how many requests bring the file at a time.
    pub const CONNECTIONS: &str = "connections";
    /// Whether compressed transfer is wanted.
    pub const DEFLATE: &str = "deflate";
    /// Whether an archive is unpacked.
    pub const EXTRACT: &str = "extract";
    /// Where the file goes.
    pub const LOCAL_PATH: &str = "local-path";
    /// Our own: further addresses of the same file.
    pub const MIRRORS: &str = "mirrors";
    /// The wanted id.
    pub const OBJECT_PATH: &str = "objectpath";
    /// A command that gets the file.
    pub const POST_DOWNLOAD_COMMAND: &str = "post-download-command";
    /// Our own: an HTTP proxy, `http://host:port`.
    pub const PROXY: &str = "proxy";
    /// Whether to show it to the user.
    pub const SHOWN: &str = "indicator-shown";
    /// Its title for the user.
    pub const TITLE: &str = "title";
}

/// The metadata of a download.
#[derive(Debug, Default)]
pub struct Metadata(HashMap<String, OwnedVariant>);

/// Largest map that is taken, in bytes on the wire.
const MAX_LEN: usize = 256 << 10;

/// Why metadata is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// It is too long.
    #[error("The metadata has more than {MAX_LEN} bytes")]
    TooLong,
    /// A value cannot be kept, such as a file descriptor.
    #[error("The metadata has a value that cannot be kept")]
    Unfit,
}

impl Metadata {
    /// From the wire.
    pub fn new(map: HashMap<String, OwnedVariant>) -> Result<Self, MetadataError> {
        let taken = Self(map);
        let has_descriptor = |value: &OwnedVariant| {
            let signature = value.value_signature().to_string();
            signature.contains('h')
        };
        if taken.0.values().any(has_descriptor) {
            return Err(MetadataError::Unfit);
        }
        match taken.to_wire() {
            None => Err(MetadataError::Unfit),
            Some(bytes) if bytes.len() > MAX_LEN => Err(MetadataError::TooLong),
            Some(_) => Ok(taken),
        }
    }

    /// The map, for the wire.
    pub fn map(&self) -> &HashMap<String, OwnedVariant> {
        &self.0
    }

    /// The same again.
    pub fn copy(&self) -> Self {
        let copied = self.0.iter().filter_map(|(key, value)| {
            // What cannot be copied was not taken.
            Some((key.clone(), value.try_clone().ok()?))
        });
        Self(copied.collect())
    }

    /// Sets a value.
    pub fn set(&mut self, key: &str, value: impl Into<Variant<'static>>) {
        if let Ok(value) = OwnedVariant::try_from(value.into()) {
            self.0.insert(key.to_owned(), value);
        }
    }

    /// Removes a value.
    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// A text; empty if there is none.
    pub fn text(&self, key: &str) -> &str {
        match self.0.get(key).map(|value| inner(value)) {
            Some(Variant::Str(text)) => text.as_str(),
            _ => "",
        }
    }

    /// A truth.
    pub fn truth(&self, key: &str) -> bool {
        match self.0.get(key).map(|value| inner(value)) {
            Some(Variant::Bool(truth)) => *truth,
            Some(Variant::Str(text)) => !matches!(text.as_str(), "" | "0" | "false"),
            Some(value) => number(value).is_some_and(|number| number != 0),
            None => false,
        }
    }

    /// A number, if it is one.
    pub fn number(&self, key: &str) -> Option<i128> {
        number(inner(self.0.get(key)?))
    }

    /// Words: a list of texts, or one text; none if there is neither.
    pub fn words(&self, key: &str) -> Option<Vec<String>> {
        match inner(self.0.get(key)?) {
            Variant::Str(word) => Some(vec![word.to_string()]),
            Variant::Array(words) => words
                .iter()
                .map(|word| match word {
                    Variant::Str(word) => Some(word.to_string()),
                    _ => None,
                })
                .collect(),
            _ => None,
        }
    }

    /// The exact destination, if one is given.
    pub fn local_path(&self) -> Option<Utf8PathBuf> {
        let text = self.text(key::LOCAL_PATH);
        (!text.is_empty()).then(|| text.into())
    }

    /// Whether the key's value, rendered as text, is this one.
    pub fn renders(&self, key: &str, text: &str) -> bool {
        match self.0.get(key).map(|value| inner(value)) {
            Some(Variant::Str(value)) => value.as_str() == text,
            Some(Variant::Bool(value)) => value.to_string() == text,
            Some(Variant::F64(value)) => value.to_string() == text,
            Some(value) => number(value).is_some_and(|number| number.to_string() == text),
            None => false,
        }
    }

    /// All of it, for the database: exactly what came.
    pub fn to_wire(&self) -> Option<Vec<u8>> {
        let bytes = to_bytes(Context::new(LE, 0), &self.0).ok()?;
        Some(bytes.bytes().to_vec())
    }

    /// Reads [`to_wire`](Self::to_wire).
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        let data = Data::new(bytes.to_vec(), Context::new(LE, 0));
        Some(Self(data.deserialize().ok()?.0))
    }

    /// The form of the original's database: a JSON object. Numbers and texts survive it, types do
    /// not.
    pub fn to_json(&self) -> String {
        let values = self.0.iter();
        let map: Map<String, Value> = values
            .map(|(key, value)| (key.clone(), json(value)))
            .collect();
        format!("{:#}", Value::Object(map))
    }

    /// Reads what the original wrote.
    pub fn from_json(text: &str) -> Option<Self> {
        let map: Map<String, Value> = serde_json::from_str(text).ok()?;
        let values = map.into_iter().filter_map(|(key, value)| {
            let value: Variant<'static> = match value {
                Value::Bool(truth) => truth.into(),
                Value::String(text) => text.into(),
                Value::Number(number) => match number.as_i64() {
                    Some(number) => number.into(),
                    None => number.as_f64()?.into(),
                },
                Value::Array(words) => {
                    let words = words.iter().map(|word| word.as_str().map(str::to_owned));
                    words.collect::<Option<Vec<_>>>()?.into()
                }
                Value::Null | Value::Object(_) => return None,
            };
            Some((key, OwnedVariant::try_from(value).ok()?))
        });
        Some(Self(values.collect()))
    }
}

/// A value in a value is what it holds.
fn inner<'v>(value: &'v Variant<'v>) -> &'v Variant<'v> {
    match value {
        Variant::Variant(value) => inner(value),
        value => value,
    }
}

fn number(value: &Variant<'_>) -> Option<i128> {
    Some(match value {
        Variant::U8(n) => (*n).into(),
        Variant::I16(n) => (*n).into(),
        Variant::U16(n) => (*n).into(),
        Variant::I32(n) => (*n).into(),
        Variant::U32(n) => (*n).into(),
        Variant::I64(n) => (*n).into(),
        Variant::U64(n) => (*n).into(),
        _ => return None,
    })
}

fn json(value: &Variant<'_>) -> Value {
    match value {
        Variant::Variant(value) => json(value),
        Variant::Bool(truth) => (*truth).into(),
        Variant::F64(number) => (*number).into(),
        Variant::U64(number) => (*number).into(),
        Variant::Str(text) => text.as_str().into(),
        Variant::ObjectPath(path) => path.as_str().into(),
        Variant::Array(values) => values.iter().map(json).collect(),
        value => match number(value).and_then(|number| i64::try_from(number).ok()) {
            Some(number) => number.into(),
            None => value.to_string().into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        let mut metadata = Metadata::default();
        metadata.set(key::TITLE, "A title");
        metadata.set(key::SHOWN, true);
        metadata.set("custom_n", 5_u32);
        metadata.set("zero", 0_i64);
        metadata.set("half", 0.5);
        metadata.set(key::POST_DOWNLOAD_COMMAND, vec!["mv", "$file", "/x"]);
        metadata
    }

    #[test]
    fn values_are_read_leniently() {
        let mut metadata = sample();
        assert_eq!(metadata.text(key::TITLE), "A title");
        assert_eq!(metadata.text("custom_n"), "");
        for (key, want) in [
            (key::SHOWN, true),
            ("custom_n", true),
            ("zero", false),
            (key::TITLE, true),
            ("none", false),
        ] {
            assert_eq!(metadata.truth(key), want, "{key}");
        }
        let command = metadata.words(key::POST_DOWNLOAD_COMMAND);
        assert_eq!(command.unwrap(), ["mv", "$file", "/x"]);
        assert_eq!(metadata.words(key::TITLE).unwrap(), ["A title"]);
        assert_eq!(metadata.words("custom_n"), None);
        assert_eq!(metadata.number("custom_n"), Some(5));
        metadata.remove(key::TITLE);
        assert_eq!(metadata.text(key::TITLE), "");
    }

    #[test]
    fn a_value_is_found_by_its_text() {
        let metadata = sample();
        for (key, text, want) in [
            ("custom_n", "5", true),
            ("custom_n", "05", false),
            (key::TITLE, "A title", true),
            (key::SHOWN, "true", true),
            ("none", "", false),
        ] {
            assert_eq!(metadata.renders(key, text), want, "{key} {text}");
        }
    }

    #[test]
    fn the_database_keeps_exactly_what_came() {
        let metadata = sample();
        let again = Metadata::from_wire(&metadata.to_wire().unwrap()).unwrap();
        assert_eq!(again.map(), metadata.map());
        assert!(Metadata::from_wire(b"\xff\xff\xff\xff").is_none());
        let json = Metadata::from_json(&metadata.to_json()).unwrap();
        assert_eq!(json.number("custom_n"), Some(5));
        assert_eq!(json.words(key::POST_DOWNLOAD_COMMAND).unwrap().len(), 3);
    }

    #[test]
    fn absurd_metadata_is_not_taken() {
        let long = HashMap::from([(
            "x".to_owned(),
            OwnedVariant::try_from(Variant::from("x".repeat(MAX_LEN))).unwrap(),
        )]);
        assert_eq!(Metadata::new(long).unwrap_err(), MetadataError::TooLong);
    }
}

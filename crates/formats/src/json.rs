//! The one JSON form of every published file (server spec, section 3).
//!
//! Keys sorted by code point, four blanks of indent, `": "`, pure ASCII with `\uXXXX`, one final
//! newline: equal data gives equal bytes, on our server and on the original's.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{DeserializeOwned, DeserializeSeed, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Largest JSON file that is read, in bytes: an index of 5,000 images with ten deltas and ten
/// files each has about 150 MB.
pub const MAX_LEN: usize = 256 << 20;

/// Why a JSON file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or not of the form that the file must have.
    #[error("not as specified")]
    Form(#[source] serde_json::Error),
    /// The document could not be read to its end.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// More than [`MAX_LEN`] bytes.
    #[error("{0} bytes of JSON are more than any index has")]
    TooLong(usize),
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() {
            Self::Read(error.into())
        } else {
            Self::Form(error)
        }
    }
}

/// Reads one JSON document. Nesting deeper than 128 levels is refused by the parser.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    seeded(bytes, PhantomData)
}

/// Reads one JSON document with what `seed` knows.
pub(crate) fn seeded<'de, S: DeserializeSeed<'de>>(
    bytes: &'de [u8],
    seed: S,
) -> Result<S::Value, JsonError> {
    if bytes.len() > MAX_LEN {
        return Err(JsonError::TooLong(bytes.len()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Reads a string straight into what it stands for, without a copy in between: an index has tens
/// of thousands of them.
pub(crate) fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct Text<T>(PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(PhantomData))
}

/// The published bytes of a value.
pub fn to_vec<T: Serialize>(value: &T) -> Vec<u8> {
    // Through `Value`, whose objects are sorted maps.
    let value: Value = serde_json::to_value(value).expect("our types have text keys only");
    let mut out = Vec::new();
    let formatter = Published(PrettyFormatter::with_indent(b"    "));
    value
        .serialize(&mut Serializer::with_formatter(&mut out, formatter))
        .expect("writing to memory does not fail");
    out.push(b'\n');
    out
}

/// The pretty form with everything beyond ASCII escaped.
struct Published<'a>(PrettyFormatter<'a>);

impl Formatter for Published<'_> {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut units = [0; 2];
        for c in fragment.chars() {
            // The original's writer leaves DEL as it is: it is ASCII and no JSON control.
            if c.is_ascii() {
                writer.write_all(&[c as u8])?;
            } else {
                for unit in c.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn has_the_specified_bytes() {
        let value = json!({
            "b": [], "a": {}, "é": "ä\u{1f600}\n\"\\\u{7f}/", "c": [1, {"z": true, "y": null}],
        });
        let want = concat!(
            "{\n",
            "    \"a\": {},\n",
            "    \"b\": [],\n",
            "    \"c\": [\n",
            "        1,\n",
            "        {\n",
            "            \"y\": null,\n",
            "            \"z\": true\n",
            "        }\n",
            "    ],\n",
            "    \"\\u00e9\": \"\\u00e4\\ud83d\\ude00\\n\\\"\\\\\u{7f}/\"\n",
            "}\n",
        );
        assert_eq!(String::from_utf8(to_vec(&value)).unwrap(), want);
    }

    proptest! {
        #[test]
        fn any_text_survives_and_is_ascii(text in any::<String>()) {
            let bytes = to_vec(&json!({ text.as_str(): text }));
            prop_assert!(bytes.is_ascii());
            prop_assert_eq!(from_slice::<Value>(&bytes).unwrap(), json!({ text.as_str(): text }));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = from_slice::<Value>(&bytes);
        }
    }
}

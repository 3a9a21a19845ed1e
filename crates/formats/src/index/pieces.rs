//! Takes the images out of an index that comes as a stream, so that each of them can be read from
//! memory, which the parser does several times faster than from a stream.
//!
//! In: bytes. Out: the images one after another, and the rest of the document with `null` for each.
//! Nothing but the depth is checked here: both go to the parser, and what is no JSON as a whole is
//! none in its pieces either, because nothing that stands beside `null` makes another token of it.
//! Rest and image together are never larger than the document.

use std::io::{BufRead, BufReader, Read};
use std::ops::Range;

use serde::de::Error as _;

use crate::json::{self, JsonError};

/// Read from a stream at a time, in bytes.
const BUFFER: usize = 64 << 10;

/// The key of the list that is taken apart.
const IMAGES: &str = "images";

/// Depth within the document and the list.
const IN_LIST: u32 = 2;

/// Objects and lists within one another that the parser reads in a whole document.
const DEEPEST: u32 = 127;

/// What is left where an image was.
const HOLE: &[u8] = b"null";

/// Gives each object or list in the document's list of images to `image`, with its place in bytes
/// from the start, and returns the rest.
pub(super) fn split(
    document: impl Read,
    mut image: impl FnMut(u64, &[u8]) -> Result<(), JsonError>,
) -> Result<Vec<u8>, JsonError> {
    let mut document = BufReader::with_capacity(BUFFER, document);
    let mut splitter = Splitter::default();
    loop {
        let chunk = document.fill_buf().map_err(JsonError::Read)?;
        let len = chunk.len();
        if len == 0 {
            // An image without an end has left a list without one.
            return Ok(splitter.rest);
        }
        splitter.feed(chunk, &mut image)?;
        document.consume(len);
    }
}

#[derive(Debug, Default)]
struct Splitter {
    /// Bytes before the chunk.
    before: u64,
    /// Objects and lists that are open.
    depth: u32,
    text: Text,
    /// Where the last string at the top is, in the rest: the key of what comes next.
    key: Range<usize>,
    /// Whether the list of images is open.
    in_images: bool,
    /// Where the image that is open begins in the document.
    open: Option<u64>,
    /// What earlier chunks had of it.
    image: Vec<u8>,
    rest: Vec<u8>,
}

/// Whether a string is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Closed,
    Open,
    /// And the next byte means something else.
    Escaped,
}

impl Splitter {
    fn feed(
        &mut self,
        chunk: &[u8],
        image: &mut impl FnMut(u64, &[u8]) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        // What is before `from` has been kept, what is before `at` has been looked at.
        let (mut from, mut at) = (0, 0);
        while let Some(skipped) = self.skip(&chunk[at..]) {
            at += skipped;
            let byte = chunk[at];
            match (self.text, byte) {
                (Text::Escaped, _) => self.text = Text::Open,
                (Text::Open, b'\\') => self.text = Text::Escaped,
                (Text::Open, _) => {
                    self.text = Text::Closed;
                    if self.depth == 1 {
                        self.key.end = self.rest.len() + (at - from) + 1;
                    }
                }
                (Text::Closed, b'"') => {
                    self.text = Text::Open;
                    if self.depth == 1 {
                        self.key.start = self.rest.len() + (at - from);
                    }
                }
                (Text::Closed, b'{' | b'[') => {
                    if self.depth == DEEPEST {
                        return Err(serde_json::Error::custom("nested too deeply").into());
                    }
                    if self.depth == 1 {
                        self.rest.extend_from_slice(&chunk[from..at]);
                        from = at;
                        self.in_images = byte == b'[' && self.key_is_images();
                    } else if self.depth == IN_LIST && self.in_images {
                        self.rest.extend_from_slice(&chunk[from..at]);
                        self.rest.extend_from_slice(HOLE);
                        from = at;
                        self.open = Some(self.before + at as u64);
                    }
                    self.depth += 1;
                }
                (Text::Closed, _) => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == IN_LIST
                        && let Some(start) = self.open.take()
                    {
                        let end = &chunk[from..=at];
                        if self.image.is_empty() {
                            image(start, end)?;
                        } else {
                            self.image.extend_from_slice(end);
                            image(start, &self.image)?;
                            self.image.clear();
                        }
                        from = at + 1;
                    }
                }
            }
            at += 1;
        }
        let kept = match self.open {
            Some(_) => &mut self.image,
            None => &mut self.rest,
        };
        kept.extend_from_slice(&chunk[from..]);
        self.before += chunk.len() as u64;
        Ok(())
    }

    /// How many bytes come before the next one that means something.
    fn skip(&self, bytes: &[u8]) -> Option<usize> {
        match self.text {
            Text::Closed => bytes.iter().position(|byte| is_structure(*byte)),
            Text::Open => memchr::memchr2(b'"', b'\\', bytes),
            Text::Escaped => (!bytes.is_empty()).then_some(0),
        }
    }

    fn key_is_images(&self) -> bool {
        let key = self.rest.get(self.key.clone()).unwrap_or_default();
        json::from_slice::<String>(key).is_ok_and(|key| key == IMAGES)
    }
}

const fn is_structure(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let len = buffer.len().min(1);
            self.0.read(&mut buffer[..len])
        }
    }

    fn pieces(document: impl Read) -> (String, Vec<(usize, String)>) {
        let mut images = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let rest = split(document, |start, image| {
            images.push((usize::try_from(start).unwrap(), text(image)));
            Ok(())
        });
        (text(&rest.unwrap()), images)
    }

    #[test]
    fn images_are_taken_out_of_their_list_and_of_no_other() {
        for (document, rest, images) in [
            ("", "", &[][..]),
            (
                r#"{"images": [{"b": [1]}, 2, [3]], "b": [{}]}"#,
                r#"{"images": [null, 2, null], "b": [{}]}"#,
                &[r#"{"b": [1]}"#, "[3]"],
            ),
            (
                r#"{"im\u0061ges":[{"}":"\\\"]"}]}"#,
                r#"{"im\u0061ges":[null]}"#,
                &[r#"{"}":"\\\"]"}"#],
            ),
            (
                r#"{"a": {"images": [{}]}, "images": {"a": [{}]}}"#,
                r#"{"a": {"images": [{}]}, "images": {"a": [{}]}}"#,
                &[],
            ),
            (
                r#"{"x":"\"images\"", "images\"":[{}]}"#,
                r#"{"x":"\"images\"", "images\"":[{}]}"#,
                &[],
            ),
            (r#"{"images": [{"b": "c"#, r#"{"images": [null"#, &[]),
            ("]]}{[[1]]", "]]}{[[1]]", &[]),
        ] {
            let (found, taken) = pieces(document.as_bytes());
            assert_eq!(found, rest, "{document}");
            let texts: Vec<_> = taken.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(texts, images, "{document}");
            for (start, text) in &taken {
                assert!(document[*start..].starts_with(text), "{document}");
            }
            assert_eq!(pieces(Trickle(document.as_bytes())), (found, taken));
        }
    }
}

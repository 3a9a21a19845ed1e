//! The headers of partial content: `Content-Range`, and what identifies a file's version.

/// The answer to a request for the rest of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The whole file's size; unknown if the server writes `*`.
    pub(crate) total: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes 5-9/10`; nothing if it is not of that form or contradicts itself.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let parsed = Self {
            first: number(first)?,
            last: number(last)?,
            total: match total {
                "*" => None,
                total => Some(number(total)?),
            },
        };
        let fits = parsed.total.is_none_or(|total| parsed.last < total);
        (parsed.first <= parsed.last && fits).then_some(parsed)
    }

    /// Whether this is the rest of the file from `offset` to its end.
    pub(crate) fn is_rest_from(&self, offset: u64) -> bool {
        self.first == offset && self.total.is_none_or(|total| self.last == total - 1)
    }
}

/// Digits only: the standard parser takes a sign too.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// What says that a file on the server is still the one that a download began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Validator {
    /// A strong entity tag: the same tag means the same bytes.
    Etag(String),
    /// A modification time: two versions within one second have the same, so it is good enough
    /// only where a digest is checked in the end.
    Modified(String),
}

impl Validator {
    /// Longest text that is kept; a server has no reason for more.
    const MAX_LEN: usize = 1024;

    /// The best that an answer's headers offer. A weak tag does not promise equal bytes.
    pub(crate) fn from_headers(etag: Option<&str>, modified: Option<&str>) -> Option<Self> {
        let sensible = |text: &&str| {
            let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            !text.is_empty() && text.len() <= Self::MAX_LEN && printable
        };
        let strong = etag
            .filter(sensible)
            .filter(|tag| tag.starts_with('"') && tag.len() > 2);
        let etag = strong.map(|tag| Self::Etag(tag.to_owned()));
        etag.or_else(|| {
            modified
                .filter(sensible)
                .map(|time| Self::Modified(time.to_owned()))
        })
    }

    /// The value of `If-Range`.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Etag(text) | Self::Modified(text) => text,
        }
    }

    /// One line of the side file.
    pub(crate) fn to_line(&self) -> String {
        match self {
            Self::Etag(tag) => format!("etag {tag}"),
            Self::Modified(time) => format!("modified {time}"),
        }
    }

    /// Reads [`to_line`](Self::to_line).
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        match line.split_once(' ')? {
            ("etag", tag) => Self::from_headers(Some(tag), None),
            ("modified", time) => Self::from_headers(None, Some(time)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_consistent_content_range_is_read() {
        let range = |first, last, total| Some(ContentRange { first, last, total });
        for (text, want) in [
            ("bytes 5-9/10", range(5, 9, Some(10))),
            ("bytes 5-9/*", range(5, 9, None)),
            ("bytes 0-0/1", range(0, 0, Some(1))),
            ("bytes 5-9/9", None),
            ("bytes 9-5/10", None),
            ("bytes */10", None),
            ("bytes 5-/10", None),
            ("bytes +5-9/10", None),
            ("bytes 5-9", None),
            ("items 5-9/10", None),
            ("bytes 5-99999999999999999999/*", None),
            ("", None),
        ] {
            assert_eq!(ContentRange::parse(text), want, "{text}");
        }
    }

    #[test]
    fn the_rest_of_a_file_begins_where_we_are_and_ends_where_it_does() {
        for (text, offset, want) in [
            ("bytes 5-9/10", 5, true),
            ("bytes 5-9/*", 5, true),
            ("bytes 5-8/10", 5, false),
            ("bytes 4-9/10", 5, false),
            ("bytes 6-9/10", 5, false),
        ] {
            let range = ContentRange::parse(text).unwrap();
            assert_eq!(range.is_rest_from(offset), want, "{text}");
        }
    }

    #[test]
    fn a_strong_tag_goes_before_a_time_and_a_weak_one_is_none() {
        let etag = |tag: &str| Some(Validator::Etag(tag.to_owned()));
        let modified = |time: &str| Some(Validator::Modified(time.to_owned()));
        let long = format!("\"{}\"", "x".repeat(2000));
        for (tag, time, want) in [
            (Some("\"a\""), Some("Mon"), etag("\"a\"")),
            (Some("W/\"a\""), Some("Mon"), modified("Mon")),
            (Some("W/\"a\""), None, None),
            (Some("\"\u{1}\""), Some("Mon"), modified("Mon")),
            (Some(&long[..]), None, None),
            (Some("\"\""), None, None),
            (None, Some(""), None),
            (None, None, None),
        ] {
            assert_eq!(Validator::from_headers(tag, time), want, "{tag:?} {time:?}");
        }
    }

    proptest! {
        #[test]
        fn no_range_panics(text in "bytes [0-9*/-]{0,30}|\\PC{0,30}") {
            let _ = ContentRange::parse(&text).map(|range| range.is_rest_from(5));
        }

        #[test]
        fn a_validator_survives_its_side_file(tag in "\"[ -~]{1,20}\"") {
            let validator = Validator::Etag(tag);
            prop_assert_eq!(Validator::from_line(&validator.to_line()), Some(validator));
        }
    }
}

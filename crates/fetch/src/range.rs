//! The headers of partial content: `Content-Range`, and what identifies a file's version.

use std::time::Duration;

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

/// The size of a file that a refused range tells: `bytes */10`.
pub(crate) fn unsatisfied(text: &str) -> Option<u64> {
    number(text.strip_prefix("bytes ")?.trim().strip_prefix("*/")?)
}

/// What says that a file on the server is still the one that a download began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Validator {
    /// A strong entity tag: the same tag means the same bytes.
    Etag(String),
    /// A modification time that was over when the server answered: the same time means the same
    /// bytes (RFC 9110, 8.8.2.2).
    Settled(String),
    /// Another modification time. Two versions within one second have the same, so it is good
    /// enough only where a digest is checked in the end.
    Modified(String),
}

impl Validator {
    /// Longest text that is kept; a server has no reason for more.
    const MAX_LEN: usize = 1024;

    /// The best that an answer's headers offer: `ETag`, `Last-Modified` and `Date`. A weak tag does
    /// not promise equal bytes.
    pub(crate) fn from_headers(
        etag: Option<&str>,
        modified: Option<&str>,
        date: Option<&str>,
    ) -> Option<Self> {
        let strong = |tag: &&str| tag.starts_with('"') && tag.len() > 2;
        if let Some(tag) = etag.filter(sensible).filter(strong) {
            return Some(Self::Etag(tag.to_owned()));
        }
        let modified = modified.filter(sensible)?;
        let kept = modified.to_owned();
        let settled = date.is_some_and(|date| is_later(date, modified));
        Some(if settled {
            Self::Settled(kept)
        } else {
            Self::Modified(kept)
        })
    }

    /// Whether it alone proves that two answers have the same bytes.
    pub(crate) fn is_strong(&self) -> bool {
        matches!(self, Self::Etag(_) | Self::Settled(_))
    }

    /// The value of `If-Range`, which takes nothing weak (RFC 9110, 13.1.5).
    pub(crate) fn if_range(&self) -> Option<&str> {
        self.is_strong().then(|| self.text())
    }

    /// Whether another answer is about the same version, as far as the two can be compared.
    pub(crate) fn agrees(&self, other: &Self) -> Option<bool> {
        let comparable = matches!(self, Self::Etag(_)) == matches!(other, Self::Etag(_));
        comparable.then(|| self.text() == other.text())
    }

    fn text(&self) -> &str {
        match self {
            Self::Etag(text) | Self::Settled(text) | Self::Modified(text) => text,
        }
    }

    /// One line of the side file.
    pub(crate) fn to_line(&self) -> String {
        let kind = match self {
            Self::Etag(_) => "etag",
            Self::Settled(_) => "settled",
            Self::Modified(_) => "modified",
        };
        format!("{kind} {}", self.text())
    }

    /// Reads [`to_line`](Self::to_line).
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let (kind, text) = line.split_once(' ')?;
        let text = Some(text).filter(sensible)?;
        match kind {
            "etag" => Self::from_headers(Some(text), None, None),
            "settled" => Some(Self::Settled(text.to_owned())),
            "modified" => Some(Self::Modified(text.to_owned())),
            _ => None,
        }
    }
}

fn sensible(text: &&str) -> bool {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    !text.is_empty() && text.len() <= Validator::MAX_LEN && printable
}

/// Whether an answer was made at least one second after its file was changed.
fn is_later(date: &str, modified: &str) -> bool {
    let (Ok(date), Ok(modified)) = (
        httpdate::parse_http_date(date.trim()),
        httpdate::parse_http_date(modified.trim()),
    ) else {
        return false;
    };
    let between = date.duration_since(modified);
    between.is_ok_and(|between| between >= Duration::from_secs(1))
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
    fn a_refused_range_tells_the_size() {
        for (text, want) in [
            ("bytes */10", Some(10)),
            ("bytes  */0", Some(0)),
            ("bytes */*", None),
            ("bytes 0-9/10", None),
            ("bytes */-1", None),
            ("", None),
        ] {
            assert_eq!(unsatisfied(text), want, "{text}");
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
            let got = Validator::from_headers(tag, time, Some("Mon"));
            assert_eq!(got, want, "{tag:?} {time:?}");
        }
    }

    #[test]
    fn a_time_is_strong_when_its_second_was_over() {
        let time = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (date, strong) in [
            (Some("Sun, 06 Nov 1994 08:49:38 GMT"), true),
            (Some("Sun, 06 Nov 1994 08:49:37 GMT"), false),
            (Some("Sun, 06 Nov 1994 08:49:36 GMT"), false),
            (Some("later"), false),
            (None, false),
        ] {
            let got = Validator::from_headers(None, Some(time), date).unwrap();
            assert_eq!(got.is_strong(), strong, "{date:?}");
            assert_eq!(got.if_range(), strong.then_some(time), "{date:?}");
        }
    }

    #[test]
    fn versions_are_compared_where_both_say_the_same_kind_of_thing() {
        let etag = |text: &str| Validator::Etag(text.to_owned());
        let settled = |text: &str| Validator::Settled(text.to_owned());
        let modified = |text: &str| Validator::Modified(text.to_owned());
        for (a, b, want) in [
            (etag("a"), etag("a"), Some(true)),
            (etag("a"), etag("b"), Some(false)),
            (etag("a"), settled("a"), None),
            (settled("a"), modified("a"), Some(true)),
            (settled("a"), settled("b"), Some(false)),
        ] {
            assert_eq!((a.agrees(&b), b.agrees(&a)), (want, want), "{a:?} {b:?}");
        }
    }

    proptest! {
        #[test]
        fn no_range_panics(text in "bytes [0-9*/-]{0,30}|\\PC{0,30}") {
            let _ = ContentRange::parse(&text).map(|range| range.is_rest_from(5));
            let _ = unsatisfied(&text);
        }

        #[test]
        fn a_validator_survives_its_side_file(text in "\"[ -~]{1,20}\"") {
            for kind in [Validator::Etag, Validator::Settled, Validator::Modified] {
                let validator = kind(text.clone());
                prop_assert_eq!(Validator::from_line(&validator.to_line()), Some(validator));
            }
        }
    }
}

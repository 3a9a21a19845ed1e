//! Says what an answer's head means for a download, wherever that stands.
//!
//! In: the head, what is here already and what is known of it. Out: a verdict. Two answers are put
//! together only if something proves that they are of one version: the digest in the end, or
//! a strong validator.

use reqwest::header::{
    CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED,
};
use reqwest::{Response, StatusCode};

use crate::disposition;
use crate::headers::text;
use crate::range::{ContentRange, Validator, unsatisfied};
use crate::side::Known;
use crate::sink::Position;

/// Longest type of content that is kept, in bytes.
const MAX_TYPE: usize = 200;

/// What an answer's head says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) len: Option<u64>,
    pub(crate) validator: Option<Validator>,
    pub(crate) range: Option<ContentRange>,
    /// The size that a refused range tells.
    pub(crate) unsatisfied: Option<u64>,
    pub(crate) content_type: Option<String>,
    pub(crate) name: Option<String>,
    /// `Content-Encoding`, unless it says that there is none.
    pub(crate) encoding: Option<String>,
}

impl Head {
    pub(crate) fn of(response: &Response) -> Self {
        let headers = response.headers();
        let range = text(headers, &CONTENT_RANGE);
        let disposition = headers.get(CONTENT_DISPOSITION);
        let kept = |kind: &&str| kind.len() <= MAX_TYPE;
        Self {
            status: response.status(),
            len: response.content_length(),
            validator: Validator::from_headers(
                text(headers, &ETAG),
                text(headers, &LAST_MODIFIED),
                text(headers, &DATE),
            ),
            range: range.and_then(ContentRange::parse),
            unsatisfied: range.and_then(unsatisfied),
            content_type: text(headers, &CONTENT_TYPE).filter(kept).map(str::to_owned),
            name: disposition.and_then(|value| disposition::file_name(value.as_bytes())),
            encoding: text(headers, &CONTENT_ENCODING)
                .map(str::to_ascii_lowercase)
                .filter(|coding| coding != "identity"),
        }
    }

    /// What is to be known of a file that begins with this answer.
    pub(crate) fn known(&self, url: &str, total: Option<u64>) -> Known {
        Known {
            url: url.to_owned(),
            validator: self.validator.clone(),
            total,
            content_type: self.content_type.clone(),
            name: self.name.clone(),
            ..Known::default()
        }
    }
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the file from its beginning.
    Whole { total: Option<u64> },
    /// It is what is missing.
    Rest { total: Option<u64> },
    /// What is here is the whole file.
    Complete,
    /// The file is empty.
    Empty,
    /// There is no such range: ask for the whole file.
    Again,
    /// It is a part of a file, but nothing proves that it fits what is here.
    Mixed,
    /// It brings no file.
    Refused,
}

/// What is asked for, as far as answers are judged by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Whether the digest decides in the end.
    pub(crate) digest: bool,
    /// Whether an answer without content is an empty file.
    pub(crate) empty: bool,
}

/// Judges the answer to a request for what is missing.
pub(crate) fn judge(head: &Head, position: &Position, asked: Asked) -> Verdict {
    let (here, known) = (position.len, &position.known);
    match head.status {
        StatusCode::OK => Verdict::Whole { total: head.len },
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED if asked.empty => Verdict::Empty,
        StatusCode::PARTIAL_CONTENT if here > 0 => {
            let rest = head.range.filter(|range| {
                range.is_rest_from(here)
                    && head
                        .len
                        .is_none_or(|len| len == range.last - range.first + 1)
                    && same_total(known.total, range.total)
            });
            // A part of unknown extent may be any part.
            let total = rest.and_then(|rest| rest.total.or(known.total));
            if rest.is_some()
                && is_same_version(head, known, asked)
                && (total.is_some() || asked.digest)
            {
                Verdict::Rest { total }
            } else {
                Verdict::Mixed
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE if here > 0 => {
            let proved = asked.digest || known.validator.as_ref().is_some_and(Validator::is_strong);
            let fits = head.unsatisfied == Some(here) && same_total(known.total, Some(here));
            if proved && fits && agrees(head, known) != Some(false) {
                Verdict::Complete
            } else {
                Verdict::Again
            }
        }
        _ => Verdict::Refused,
    }
}

/// Whether a partial answer is of the version that the beginning is of. A server that does not know
/// `If-Range` may send the rest of another one.
pub(crate) fn is_same_version(head: &Head, known: &Known, asked: Asked) -> bool {
    let strong = known.validator.as_ref().is_some_and(Validator::is_strong);
    match agrees(head, known) {
        Some(agrees) => agrees && (strong || asked.digest),
        None => asked.digest,
    }
}

fn agrees(head: &Head, known: &Known) -> Option<bool> {
    known.validator.as_ref()?.agrees(head.validator.as_ref()?)
}

fn same_total(known: Option<u64>, told: Option<u64>) -> bool {
    known.is_none() || told.is_none() || known == told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A validator as in a side file.
    fn of(line: &str) -> Option<Validator> {
        Validator::from_line(line)
    }

    fn head(status: u16, range: &str, validator: Option<Validator>) -> Head {
        Head {
            status: StatusCode::from_u16(status).unwrap(),
            validator,
            range: ContentRange::parse(range),
            unsatisfied: unsatisfied(range),
            ..Head::default()
        }
    }

    fn at(len: u64, total: Option<u64>, validator: Option<Validator>) -> Position {
        Position {
            len,
            known: Known {
                validator,
                total,
                ..Known::default()
            },
            complete: false,
        }
    }

    const DIGEST: Asked = Asked {
        digest: true,
        empty: false,
    };
    const NOTHING: Asked = Asked {
        digest: false,
        empty: true,
    };

    #[test]
    fn a_part_is_joined_only_where_something_proves_that_it_fits() {
        let rest = Verdict::Rest { total: Some(10) };
        let ten = Some(10);
        for (asked, known, range, told, want) in [
            (
                NOTHING,
                of("etag \"a\""),
                "bytes 5-9/10",
                of("etag \"a\""),
                rest,
            ),
            (
                NOTHING,
                of("settled Mon"),
                "bytes 5-9/10",
                of("modified Mon"),
                rest,
            ),
            (DIGEST, None, "bytes 5-9/10", None, rest),
            (DIGEST, of("etag \"a\""), "bytes 5-9/10", None, rest),
            (
                DIGEST,
                of("modified Mon"),
                "bytes 5-9/10",
                of("etag \"a\""),
                rest,
            ),
            (
                DIGEST,
                of("etag \"a\""),
                "bytes 5-9/10",
                of("etag \"b\""),
                Verdict::Mixed,
            ),
            (
                NOTHING,
                of("etag \"a\""),
                "bytes 5-9/10",
                of("etag \"b\""),
                Verdict::Mixed,
            ),
            (
                NOTHING,
                of("etag \"a\""),
                "bytes 5-9/10",
                None,
                Verdict::Mixed,
            ),
            (
                NOTHING,
                of("etag \"a\""),
                "bytes 5-9/10",
                of("settled Mon"),
                Verdict::Mixed,
            ),
            (
                NOTHING,
                of("modified Mon"),
                "bytes 5-9/10",
                of("modified Mon"),
                Verdict::Mixed,
            ),
            (NOTHING, None, "bytes 5-9/10", None, Verdict::Mixed),
            (DIGEST, None, "bytes 4-9/10", None, Verdict::Mixed),
            (DIGEST, None, "bytes 5-8/10", None, Verdict::Mixed),
            (DIGEST, None, "bytes 5-10/11", None, Verdict::Mixed),
            (DIGEST, None, "", None, Verdict::Mixed),
        ] {
            let got = judge(
                &head(206, range, told.clone()),
                &at(5, ten, known.clone()),
                asked,
            );
            assert_eq!(got, want, "{known:?} {range} {told:?}");
        }
    }

    #[test]
    fn a_part_of_unknown_extent_needs_a_total_or_a_digest() {
        let open = head(206, "bytes 5-9/*", of("etag \"a\""));
        for (asked, total, want) in [
            (NOTHING, Some(10), Verdict::Rest { total: Some(10) }),
            (NOTHING, None, Verdict::Mixed),
            (DIGEST, None, Verdict::Rest { total: None }),
        ] {
            assert_eq!(
                judge(&open, &at(5, total, of("etag \"a\"")), asked),
                want,
                "{total:?}"
            );
        }
        let mut lying = head(206, "bytes 5-9/10", of("etag \"a\""));
        lying.len = Some(4);
        assert_eq!(
            judge(&lying, &at(5, None, of("etag \"a\"")), DIGEST),
            Verdict::Mixed
        );
    }

    #[test]
    fn a_refused_range_may_say_that_all_is_here() {
        for (asked, known, total, range, told, want) in [
            (DIGEST, None, None, "bytes */5", None, Verdict::Complete),
            (
                NOTHING,
                of("etag \"a\""),
                None,
                "bytes */5",
                None,
                Verdict::Complete,
            ),
            (
                NOTHING,
                of("settled Mon"),
                None,
                "bytes */5",
                None,
                Verdict::Complete,
            ),
            (
                NOTHING,
                of("modified Mon"),
                None,
                "bytes */5",
                None,
                Verdict::Again,
            ),
            (
                DIGEST,
                of("etag \"a\""),
                None,
                "bytes */5",
                of("etag \"b\""),
                Verdict::Again,
            ),
            (
                DIGEST,
                of("etag \"a\""),
                Some(6),
                "bytes */5",
                None,
                Verdict::Again,
            ),
            (DIGEST, None, None, "bytes */4", None, Verdict::Again),
            (DIGEST, None, None, "", None, Verdict::Again),
        ] {
            let got = judge(&head(416, range, told), &at(5, total, known.clone()), asked);
            assert_eq!(got, want, "{known:?} {range}");
        }
    }

    #[test]
    fn other_answers_are_whole_or_empty_or_none() {
        let whole = Verdict::Whole { total: None };
        for (status, here, asked, want) in [
            (200, 0, DIGEST, whole),
            (200, 5, DIGEST, whole),
            (204, 0, NOTHING, Verdict::Empty),
            (304, 5, NOTHING, Verdict::Empty),
            (204, 0, DIGEST, Verdict::Refused),
            (304, 0, DIGEST, Verdict::Refused),
            (206, 0, DIGEST, Verdict::Refused),
            (416, 0, DIGEST, Verdict::Refused),
            (201, 0, NOTHING, Verdict::Refused),
            (404, 5, DIGEST, Verdict::Refused),
        ] {
            let got = judge(
                &head(status, "bytes 0-9/10", None),
                &at(here, None, None),
                asked,
            );
            assert_eq!(got, want, "{status}");
        }
    }
}

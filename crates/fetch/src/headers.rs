//! Headers of requests that callers give, and of answers.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::FetchError;

/// What says which bytes are wanted and in which form, and what concerns one connection only, is
/// for the engine to say.
const OURS: [&str; 12] = [
    "range",
    "if-range",
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The headers that a caller gives, except ours.
pub(crate) fn given(headers: &[(String, String)]) -> Result<HeaderMap, FetchError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let wrong = || FetchError::Header { name: name.clone() };
        let key: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        if !OURS.contains(&key.as_str()) {
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong())?;
            map.insert(key, value);
        }
    }
    Ok(map)
}

/// A header of an answer, if it is text.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_left_out_in_any_case_and_the_last_of_a_name_counts() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let got = given(&[
            pair("range", "bytes=5-"),
            pair("Accept-ENCODING", "gzip"),
            pair("Content-Length", "5"),
            pair("user-agent", "a"),
            pair("User-Agent", "ä"),
            pair("Cookie", "a=b"),
        ]);
        let got = got.unwrap();
        assert_eq!(got.len(), 2);
        assert_eq!(got["User-Agent"].as_bytes(), "ä".as_bytes());
        assert_eq!(got["cookie"], "a=b");
    }

    #[test]
    fn what_would_break_a_request_is_refused() {
        for (name, value) in [("a b", "x"), ("", "x"), ("x", "a\r\nb: c"), ("x", "\0")] {
            let refused = given(&[(name.to_owned(), value.to_owned())]).unwrap_err();
            let told = matches!(&refused, FetchError::Header { name: told } if told == name);
            assert!(told, "{refused:?}");
        }
    }
}

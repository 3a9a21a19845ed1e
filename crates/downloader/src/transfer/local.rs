//! Sources that need no network: `data:` URLs (RFC 2397) and files (specification, sections 5 and 16).

use camino::Utf8PathBuf;
use percent_encoding::percent_decode;

/// What a `data:` URL holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The suffix of a file of its type.
    pub suffix: &'static str,
}

/// The `data:` URL in a text; some clients put `http://host/` before it.
pub fn data_url(text: &str) -> Option<&str> {
    if is_data(text) {
        return Some(text);
    }
    let rest = text.strip_prefix("http://")?;
    let (_, path) = rest.split_once('/')?;
    is_data(path).then_some(path)
}

fn is_data(text: &str) -> bool {
    text.get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case("data:"))
}

/// Decodes a `data:` URL; nothing if it is malformed.
pub fn decode(url: &str) -> Option<Data> {
    let (head, content) = url.get(5..)?.split_once(',')?;
    let mut parts = head.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let is_base64 = parts.any(|part| part.eq_ignore_ascii_case("base64"));
    let bytes: Vec<u8> = percent_decode(content.as_bytes()).collect();
    let bytes = if is_base64 { base64(&bytes)? } else { bytes };
    let suffix = suffix(kind);
    Some(Data { bytes, suffix })
}

/// Base64, with or without padding; white space does not count.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let text: Vec<u8> = text
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    GeneralPurpose::new(&base64::alphabet::STANDARD, config)
        .decode(text)
        .ok()
}

/// The usual suffix of a type's files. Whatever is not named is text, as RFC 2397 has it.
fn suffix(kind: &str) -> &'static str {
    const KNOWN: [(&str, &str); 14] = [
        ("application/gzip", "gz"),
        ("application/json", "json"),
        ("application/pdf", "pdf"),
        ("application/zip", "zip"),
        ("audio/mpeg", "mp3"),
        ("audio/ogg", "ogg"),
        ("image/gif", "gif"),
        ("image/jpeg", "jpg"),
        ("image/png", "png"),
        ("image/svg+xml", "svg"),
        ("image/webp", "webp"),
        ("text/css", "css"),
        ("text/html", "html"),
        ("video/mp4", "mp4"),
    ];
    let known = KNOWN
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(kind));
    match known {
        Some((_, suffix)) => suffix,
        None if kind.is_empty()
            || kind
                .get(..5)
                .is_some_and(|k| k.eq_ignore_ascii_case("text/")) =>
        {
            "txt"
        }
        None => "bin",
    }
}

/// The path of a `file:` URL on this machine.
pub fn file_path(url: &url::Url) -> Option<Utf8PathBuf> {
    if url.scheme() != "file" {
        return None;
    }
    Utf8PathBuf::from_path_buf(url.to_file_path().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_decoded_as_rfc_2397_says() {
        for (url, bytes, suffix) in [
            ("data:image/png;base64,iVBORw==", &b"\x89PNG"[..], "png"),
            ("data:;base64,aGk=", b"hi", "txt"),
            ("data:;base64,aGk", b"hi", "txt"),
            ("data:text/plain,a%20b", b"a b", "txt"),
            ("data:,", b"", "txt"),
            ("data:text/plain;charset=utf-8;base64,aGk%3D", b"hi", "txt"),
            ("DATA:application/x-any,%00", b"\0", "bin"),
        ] {
            let data = decode(url).unwrap();
            assert_eq!((&data.bytes[..], data.suffix), (bytes, suffix), "{url}");
        }
        for url in ["data:", "data:text/plain", "data:;base64,!!!"] {
            assert_eq!(decode(url), None, "{url}");
        }
    }

    #[test]
    fn data_is_found_behind_a_host_too() {
        for (text, want) in [
            ("data:,x", Some("data:,x")),
            ("http://host/data:,x", Some("data:,x")),
            ("http://host/x", None),
            ("https://host/data:,x", None),
            ("dat", None),
        ] {
            assert_eq!(data_url(text), want, "{text}");
        }
    }
}

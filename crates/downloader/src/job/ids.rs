//! Object paths and ids (specification, section 2).

use std::fmt::Write as _;

use rustix::rand::{GetRandomFlags, getrandom};
use system_image_bus::download::Family;

/// Longest id that a caller may choose, in bytes.
const MAX_LEN: usize = 128;

/// A new id: a random UUID of version 4, in lower-case hex without dashes.
pub fn random() -> String {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        // It waits for the kernel's pool at most once, at boot, and can be interrupted only then.
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether a caller may choose this id: an element of an object path, and not an absurd one.
pub fn is_element(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !id.is_empty() && id.len() <= MAX_LEN && id.bytes().all(fits)
}

/// An application's id as an element of a path: letters and digits stay, another byte becomes `_`
/// and its two hex digits.
pub fn escape(application: &str) -> String {
    let mut text = String::with_capacity(application.len());
    for byte in application.bytes() {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "_{byte:02x}");
        }
    }
    text
}

/// The part of an object's path that both families share: `<id>`, or `<application>/<id>` for a
/// confined one, so that rules can keep each to its own.
pub fn tail(confined: Option<&str>, id: &str) -> String {
    match confined {
        Some(application) => format!("{}/{id}", escape(application)),
        None => id.to_owned(),
    }
}

/// The whole path.
pub fn path(family: Family, tail: &str) -> String {
    format!("{}/{tail}", family.path())
}

/// Which family a path is of, and the rest of it.
pub fn split(path: &str) -> Option<(Family, &str)> {
    Family::ALL.into_iter().find_map(|family| {
        let tail = path.strip_prefix(family.path())?.strip_prefix('/')?;
        Some((family, tail))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_random_uuid_without_dashes() {
        let (one, other) = (random(), random());
        assert_ne!(one, other);
        assert_eq!(one.len(), 32);
        assert_eq!(one.as_bytes()[12], b'4', "{one}");
        assert!(is_element(&one));
    }

    #[test]
    fn a_chosen_id_is_an_element_of_a_path() {
        for (id, want) in [
            ("a_1", true),
            ("", false),
            ("a/b", false),
            ("a-b", false),
            ("ä", false),
            (&"x".repeat(128), true),
            (&"x".repeat(129), false),
        ] {
            assert_eq!(is_element(id), want, "{id}");
        }
    }

    #[test]
    fn a_confined_caller_has_a_subtree_of_its_own() {
        let tail = tail(Some("com.example.app_app_1.0"), "f7");
        assert_eq!(tail, "com_2eexample_2eapp_5fapp_5f1_2e0/f7");
        let path = path(Family::Lomiri, &tail);
        assert_eq!(path, format!("/com/lomiri/applications/download/{tail}"));
        assert_eq!(split(&path), Some((Family::Lomiri, &tail[..])));
        assert_eq!(split("/com/lomiri/applications/downloads"), None);
    }
}

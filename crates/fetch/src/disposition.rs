//! The name that a server gives to a file: the header `Content-Disposition` (RFC 6266), as servers
//! write it, right and wrong.
//!
//! What comes out is one element of a path and no more: whoever joins it to a directory stays in it.

use percent_encoding::percent_decode_str;

/// Longest name, in bytes: with the suffixes that are appended to it, a file system takes it.
const MAX_LEN: usize = 200;

/// Longest ending that is kept of a name that is too long, in bytes.
const MAX_ENDING: usize = 20;

/// The file name in a header's value; none if it names none that is good.
pub(crate) fn file_name(header: &[u8]) -> Option<String> {
    // Nobody says which encoding it is: nothing else is valid UTF-8 by accident.
    let text = match std::str::from_utf8(header) {
        Ok(text) => text.to_owned(),
        Err(_) => latin1(header),
    };
    let (mut plain, mut extended) = (None, None);
    for (name, value) in parameters(&text) {
        match name.as_str() {
            "filename" => plain = plain.or_else(|| tidy(&value)),
            "filename*" => extended = extended.or_else(|| tidy(&decoded(&value)?)),
            _ => {}
        }
    }
    extended.or(plain)
}

/// The parameters of a value: lower-case names, and values without quotes. The type in front of
/// them has no `=`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let (mut parameters, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let end = rest.find(['=', ';']).unwrap_or(rest.len());
        let name = rest[..end].trim().to_ascii_lowercase();
        if !rest[end..].starts_with('=') {
            rest = rest.get(end + 1..).unwrap_or_default();
            continue;
        }
        let (value, after) = value(&rest[end + 1..]);
        parameters.push((name, value));
        rest = after;
    }
    parameters
}

/// One value, to the next `;` outside of quotes, and what comes then.
fn value(text: &str) -> (String, &str) {
    let (mut value, mut quoted) = (String::new(), false);
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => quoted = !quoted,
            ';' if !quoted => return (value, &text[at + 1..]),
            // Only these two are escaped in practice; other backslashes are of a path.
            '\\' if quoted => match chars.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, '"')) => {}
                Some(_) | None => value.push('\\'),
            },
            char => value.push(char),
        }
    }
    (value, "")
}

/// An extended value (RFC 8187): encoding, language, percent-encoded bytes.
fn decoded(value: &str) -> Option<String> {
    let mut parts = value.trim().splitn(3, '\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = percent_decode_str(text);
    if charset.eq_ignore_ascii_case("utf-8") {
        Some(bytes.decode_utf8().ok()?.into_owned())
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Some(latin1(&bytes.collect::<Vec<_>>()))
    } else {
        None
    }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The last element of a path with its white space tidied; none if nothing is left that could be
/// a file's name.
fn tidy(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let visible = last.replace(|char: char| char.is_control() && !char.is_whitespace(), "");
    let tidied = visible.split_whitespace().collect::<Vec<_>>().join(" ");
    let name = shortened(tidied);
    (!matches!(name.as_str(), "" | "." | "..")).then_some(name)
}

/// A name that is too long loses the end of its stem, not its ending.
fn shortened(name: String) -> String {
    if name.len() <= MAX_LEN {
        return name;
    }
    let dot = name.rfind('.').unwrap_or(name.len());
    let ending = Some(&name[dot..]).filter(|ending| ending.len() <= MAX_ENDING);
    let ending = ending.unwrap_or_default();
    let mut stem = MAX_LEN - ending.len();
    while !name.is_char_boundary(stem) {
        stem -= 1;
    }
    format!("{}{ending}", name[..stem].trim_end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_servers_write_them() {
        for (header, want) in [
            ("attachment; filename=x.zip", Some("x.zip")),
            ("attachment; filename=\"x.zip\"", Some("x.zip")),
            (
                "ATTACHMENT ; FileName = \" a \t b.zip \" ; size=5",
                Some("a b.zip"),
            ),
            ("filename=x", Some("x")),
            ("inline; filename=a b.txt; x=y", Some("a b.txt")),
            // What the original did not understand.
            ("attachment; filename=\"a=b;c.zip\"", Some("a=b;c.zip")),
            ("attachment; filename=\"a \\\"b\\\".zip\"", Some("a b.zip")),
            ("attachment; x=\"filename=no\"; filename=yes", Some("yes")),
            // Only the last element counts.
            ("attachment; filename=../../x", Some("x")),
            ("attachment; filename=\"C:\\dir\\x.exe\"", Some("x.exe")),
            ("attachment; filename=\"/etc/passwd\"", Some("passwd")),
            ("attachment; filename=\"a\\\\b\"", Some("b")),
            ("attachment; filename*=UTF-8''..%2f..%2Fx", Some("x")),
            // The extended form goes first where it is good.
            (
                "attachment; filename=\"e.txt\"; filename*=UTF-8''%e2%82%ac.txt",
                Some("€.txt"),
            ),
            (
                "attachment; filename*=iso-8859-1'en'%A3.txt; filename=x",
                Some("£.txt"),
            ),
            ("attachment; filename*=utf-8''%ff; filename=x", Some("x")),
            ("attachment; filename*=koi8-r''x; filename=y", Some("y")),
            ("attachment; filename*=x; filename=y", Some("y")),
            ("attachment; filename=a; filename=b", Some("a")),
            ("attachment; filename=\"\"; filename=b", Some("b")),
            ("attachment; filename=\"unclosed; x", Some("unclosed; x")),
            ("attachment; filename=a\u{7}\u{1b}b", Some("ab")),
            // None of these is a file's name.
            ("attachment", None),
            ("", None),
            (";;=;", None),
            ("attachment; filename=", None),
            ("attachment; filename=\"  \"", None),
            ("attachment; filename=..", None),
            ("attachment; filename=a/", None),
            ("attachment; filename=\" . \"", None),
        ] {
            assert_eq!(file_name(header.as_bytes()).as_deref(), want, "{header}");
        }
        assert_eq!(file_name(b"x; filename=\xe4.txt").as_deref(), Some("ä.txt"));
    }

    #[test]
    fn a_name_that_is_too_long_keeps_its_ending() {
        let long = format!("filename={}.tar.gz", "ä".repeat(300));
        let name = file_name(long.as_bytes()).unwrap();
        assert!(name.len() <= MAX_LEN && name.ends_with("ä.gz"), "{name}");
        let long = format!("filename=a.{}", "b".repeat(300));
        assert_eq!(file_name(long.as_bytes()).unwrap().len(), MAX_LEN);
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_is_one_element_of_a_path_or_nothing(
            header in "(attachment)?;? ?(filename\\*?=)?(\"|utf-8'')?[a./\\\\\";= %\u{0}-\u{20}äÿ2fF]{0,40}"
        ) {
            if let Some(name) = file_name(header.as_bytes()) {
                prop_assert!(!matches!(name.as_str(), "" | "." | ".."), "{name:?}");
                prop_assert!(!name.contains(['/', '\\']) && !name.contains(char::is_control));
                prop_assert!(name.len() <= MAX_LEN && name.trim() == name);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(header in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = file_name(&header);
        }

        #[test]
        fn a_quoted_name_comes_through(name in "[a-z0-9;=,' ()äß.]{1,40}x") {
            let want = name.split_whitespace().collect::<Vec<_>>().join(" ");
            let header = format!("attachment; filename=\"{name}\"");
            prop_assert_eq!(file_name(header.as_bytes()), Some(want));
        }
    }
}

//! An error's whole chain as text.

use std::io;

/// The lines to print for `error`: `error: …`, a `caused by: …` for each cause, and `hint: …` if
/// the program has one for it or the cause is one that every program knows.
pub fn describe(error: &anyhow::Error, hint: Option<&str>) -> String {
    let mut text = String::new();
    let mut last = String::new();
    for cause in error.chain() {
        let line = printable(&cause.to_string());
        // Some libraries repeat their cause as their own text.
        if line == last {
            continue;
        }
        text += if text.is_empty() {
            "error: "
        } else {
            "caused by: "
        };
        text += &line;
        text.push('\n');
        last = line;
    }
    let common = || {
        error
            .chain()
            .find_map(|cause| common_hint(cause.downcast_ref()?))
    };
    if let Some(hint) = hint.or_else(common) {
        text += &format!("hint: {hint}\n");
    }
    text
}

fn common_hint(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space and run the same command again")
        }
        io::ErrorKind::PermissionDenied => Some("run this as the user that owns the file, or root"),
        io::ErrorKind::ReadOnlyFilesystem => Some("mount the file system read-write"),
        _ => None,
    }
}

/// The text without control characters: parts of it may come from a network.
pub fn printable(text: &str) -> String {
    text.trim()
        .chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_chain_is_one_line_a_cause_and_a_hint() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Err::<(), _>(full)
            .context("cannot write \u{1b}[2Jx")
            .unwrap_err();
        assert_eq!(
            describe(&error, None),
            "error: cannot write \u{fffd}[2Jx\ncaused by: no storage space\n\
             hint: free some space and run the same command again\n"
        );
        assert!(describe(&error, Some("do this")).ends_with("hint: do this\n"));
    }
}

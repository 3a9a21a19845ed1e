//! Names that cannot escape: channels, devices, slots, files of the drop box, paths of the tree.
//!
//! In: text from a signed file, a command line or a configuration. Out: a newtype that may be
//! joined to a root or put into a URL without a further check. Nothing here touches a disk.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest accepted name in bytes: what a directory entry or an index may sensibly hold.
const MAX_LEN: usize = 1024;

/// Longest name of a slot in bytes: a boot loader's environment has little room.
const MAX_SLOT_LEN: usize = 16;

/// Why a text is no name of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {article} {kind}: {why}")]
pub struct NameError {
    article: &'static str,
    kind: &'static str,
    text: String,
    why: &'static str,
}

impl NameError {
    fn new(article: &'static str, kind: &'static str, text: &str, why: &'static str) -> Self {
        // A hostile name may be megabytes long; an error message must not be.
        let text = text
            .chars()
            .take(80)
            .flat_map(char::escape_default)
            .collect();
        Self {
            article,
            kind,
            text,
            why,
        }
    }
}

/// Letters and digits of any script: the phasing rule is specified for `kanal-ä` too.
fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '~')
}

/// Whether a byte is a character that every kind of name may have, which nearly all are: looked up,
/// as a large tree has hundreds of megabytes of names.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        plain[byte as usize] =
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'~');
        byte += 1;
    }
    plain
};

fn check_part(part: &str, fits: impl Fn(char) -> bool) -> Result<(), &'static str> {
    match part {
        "" => Err("a part of it is empty"),
        "." | ".." => Err("`.` and `..` are not allowed"),
        _ if part.bytes().all(|byte| PLAIN[usize::from(byte)]) => Ok(()),
        _ if !part.chars().all(fits) => Err("it has a character that is not allowed"),
        _ => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $article:literal, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text, exactly as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                if text.len() > MAX_LEN {
                    return Err(NameError::new($article, $kind, text, "it is too long"));
                }
                check(text)
                    .map(|()| Self(text.into()))
                    .map_err(|why| NameError::new($article, $kind, text, why))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::json::parsed(deserializer)
            }
        }
    };
}

name! {
    /// A channel's name, e.g. `24.04/stable`: parts of letters, digits, `.`, `_`, `-`, `+`, `~`.
    ///
    /// No part is empty, `.` or `..`, so joining a name to a root cannot leave that root.
    ChannelName, "a", "channel name",
    |text| text.split('/').try_for_each(|part| check_part(part, is_name_char))
}

name! {
    /// A device's (model's) name within a channel, e.g. `tango`: one part, as in [`ChannelName`].
    DeviceName, "a", "device name", |text| check_part(text, is_name_char)
}

name! {
    /// A plain file name of the drop box: printable, without `/`, `\` or blanks.
    ///
    /// The command file separates words by blanks and its oldest readers eat backslashes, so a
    /// name with either cannot be written there (upgrader spec, section 3).
    FileName, "a", "file name",
    |text| check_part(text, |c| !c.is_control() && !c.is_whitespace() && !matches!(c, '/' | '\\'))
}

name! {
    /// A path of the published tree, e.g. `/pool/ubuntu-….tar.xz` (server spec, section 2).
    ///
    /// Written with one leading `/`; a missing one is accepted and kept. No part is empty, `.` or
    /// `..`, so joining it to the tree's root or the server's base URL stays below that.
    TreePath, "a", "path of the tree",
    |text| {
        let below = text.strip_prefix('/').unwrap_or(text);
        let fits = |c: char| !c.is_control() && !matches!(c, '\\' | '?' | '#' | '%' | ':');
        below.split('/').try_for_each(|part| check_part(part, fits))
    }
}

name! {
    /// A slot's name, e.g. `a`: ASCII lower-case letters, digits, `-`, `_`; at most 16 bytes.
    ///
    /// It is a value of boot loaders' variables, a part of file names on FAT and a word of their
    /// scripts, so no quoting is ever needed.
    SlotName, "a", "slot name",
    |text| match text {
        "" => Err("it is empty"),
        _ if text.len() > MAX_SLOT_LEN => Err("it is too long"),
        _ if text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) => Ok(()),
        _ => Err("it has a character that is not allowed"),
    }
}

impl ChannelName {
    /// The name's first part, which is the directory below the tree's root.
    pub fn first_part(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }
}

impl TreePath {
    /// The path below the tree's root, without the leading `/`.
    pub fn relative(&self) -> &str {
        self.0.strip_prefix('/').unwrap_or(&self.0)
    }

    /// The last component: the local name of a downloaded file (client spec, section 9.7).
    ///
    /// # Errors
    /// When that component has a blank or another character that no command file can carry.
    pub fn file_name(&self) -> Result<FileName, NameError> {
        self.0.rsplit('/').next().unwrap_or(&self.0).parse()
    }

    /// The same path with `suffix` appended, e.g. `.asc`.
    ///
    /// # Errors
    /// When the result is no path, for instance because `suffix` holds a control character.
    pub fn with_suffix(&self, suffix: &str) -> Result<Self, NameError> {
        format!("{}{suffix}", self.0).parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn channel_names_of_real_trees_are_accepted() {
        for name in [
            "stable",
            "24.04/stable",
            "ubports-touch/16.04/devel",
            "20.04/arm64/android9/devel",
            "kanal-ä",
        ] {
            assert_eq!(name.parse::<ChannelName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_would_leave_a_root_are_refused() {
        for name in [
            "", ".", "..", "/", "a//b", "/a", "a/", "a/../b", "a/.", "a b", "a\nb", "a\0",
        ] {
            assert!(name.parse::<ChannelName>().is_err(), "{name:?}");
            assert!(name.parse::<DeviceName>().is_err(), "{name:?}");
            assert!(name.parse::<FileName>().is_err(), "{name:?}");
        }
        for path in [
            "",
            "/",
            "//a",
            "/a/",
            "/a//b",
            "/../a",
            "/a/..",
            "/a/./b",
            "http://x/y",
            "/a?b",
        ] {
            assert!(path.parse::<TreePath>().is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_slot_is_a_short_word_that_no_boot_loader_has_to_quote() {
        for name in ["a", "b", "system-2", "_", "0123456789abcdef"] {
            assert_eq!(name.parse::<SlotName>().unwrap().as_str(), name);
        }
        for name in [
            "",
            "A",
            "a b",
            "a.b",
            "a/b",
            "a+3",
            "\u{e4}",
            "0123456789abcdefg",
        ] {
            assert!(name.parse::<SlotName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_path_of_the_tree_gives_its_local_file_name() {
        let path: TreePath = "/pool/ubuntu-0a.tar.xz".parse().unwrap();
        assert_eq!(path.file_name().unwrap().as_str(), "ubuntu-0a.tar.xz");
        assert_eq!(
            path.with_suffix(".asc").unwrap().as_str(),
            "/pool/ubuntu-0a.tar.xz.asc"
        );
        assert_eq!(path.relative(), "pool/ubuntu-0a.tar.xz");
        assert!(
            "/pool/with blank"
                .parse::<TreePath>()
                .unwrap()
                .file_name()
                .is_err()
        );
    }

    #[test]
    fn an_error_never_repeats_a_hostile_text_whole() {
        let error = "x\u{1b}[31m "
            .repeat(100_000)
            .parse::<DeviceName>()
            .unwrap_err()
            .to_string();
        assert!(error.len() < 2000 && !error.contains('\u{1b}'), "{error}");
    }

    proptest! {
        #[test]
        fn joining_any_accepted_name_stays_below_the_root(text in "\\PC{0,40}|[./a-c]{0,12}") {
            let accepted = [
                text.parse::<ChannelName>().map(|n| n.as_str().to_owned()).ok(),
                text.parse::<DeviceName>().map(|n| n.as_str().to_owned()).ok(),
                text.parse::<FileName>().map(|n| n.as_str().to_owned()).ok(),
                text.parse::<TreePath>().map(|n| n.relative().to_owned()).ok(),
            ];
            for name in accepted.into_iter().flatten() {
                let joined = std::path::Path::new("/root").join(&name);
                let plain = joined.components().all(|c| {
                    matches!(c, std::path::Component::RootDir | std::path::Component::Normal(_))
                });
                prop_assert!(plain);
                prop_assert!(joined.starts_with("/root") && joined != std::path::Path::new("/root"));
            }
        }
    }
}

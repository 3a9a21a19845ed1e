//! The side file, `NAME.part.info`: what is known of the bytes in a part, so that another process,
//! or the same device after a power cut, can say which of them are good.
//!
//! The first line is the address; then come lines of a word and its value, in any order. What is
//! not understood is skipped. A side file that is missing or torn says nothing, and then only a
//! digest can use the part.

use std::fs::File;
use std::io::{self, Read};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Mode, OFlags};
use system_image_durable as durable;

use crate::range::Validator;

/// Longest side file that is read, in bytes.
const MAX_LEN: u64 = 16 << 10;

/// Changes with every boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is known of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Where it came from.
    pub(crate) url: String,
    /// Which version it is of.
    pub(crate) validator: Option<Validator>,
    /// The size of the whole file, as the server tells it.
    pub(crate) total: Option<u64>,
    /// What the server says that the file is.
    pub(crate) content_type: Option<String>,
    /// How the server calls the file.
    pub(crate) name: Option<String>,
    /// As many bytes survive a power cut.
    pub(crate) synced: u64,
    /// The boot in which it was written; none where the system does not tell.
    pub(crate) boot: Option<String>,
}

impl Known {
    /// Bytes of a part that are good as far as the disk is concerned: what was written before
    /// a power cut and not synced may be anything.
    pub(crate) fn trusted(&self, on_disk: u64, boot: Option<&str>) -> u64 {
        match (&self.boot, boot) {
            (Some(then), Some(now)) if then == now => on_disk,
            _ => on_disk.min(self.synced),
        }
    }

    fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.url);
        if let Some(validator) = &self.validator {
            text += &format!("{}\n", validator.to_line());
        }
        let number = |number: u64| Some(number.to_string());
        for (word, value) in [
            ("total", self.total.and_then(number)),
            ("type", self.content_type.clone()),
            ("name", self.name.clone()),
            ("synced", number(self.synced)),
            ("boot", self.boot.clone()),
        ] {
            if let Some(value) = value.filter(|value| !value.contains(['\n', '\r'])) {
                text += &format!("{word} {value}\n");
            }
        }
        text
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut known = Self {
            url: lines.next()?.to_owned(),
            ..Self::default()
        };
        for line in lines {
            let Some((word, value)) = line.split_once(' ') else {
                continue;
            };
            match word {
                "total" => known.total = value.parse().ok(),
                "type" => known.content_type = Some(value.to_owned()),
                "name" => known.name = Some(value.to_owned()),
                "synced" => known.synced = value.parse().ok()?,
                "boot" => known.boot = Some(value.to_owned()),
                _ => known.validator = Validator::from_line(line).or(known.validator),
            }
        }
        Some(known)
    }
}

/// The file itself. It goes before the bytes that it describes are changed and comes after, so that
/// it never describes others.
#[derive(Debug)]
pub(crate) struct Side(Utf8PathBuf);

impl Side {
    /// The side file of a part.
    pub(crate) fn of(part: &Utf8Path) -> Self {
        Self(format!("{part}.info").into())
    }

    pub(crate) fn read(&self) -> Option<Known> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(self.0.as_std_path(), flags, Mode::empty()).ok()?;
        let mut text = String::new();
        File::from(file)
            .take(MAX_LEN)
            .read_to_string(&mut text)
            .ok()?;
        Known::from_text(&text)
    }

    /// Writes it. Nothing is lost that was not: of a download that has just begun, no byte survives
    /// a power cut either.
    pub(crate) fn write(&self, known: &Known) -> io::Result<()> {
        durable::remove(&self.0)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let file = rustix::fs::open(self.0.as_std_path(), flags, mode)?;
        io::Write::write_all(&mut File::from(file), known.to_text().as_bytes())
    }

    /// Replaces it such that a power cut leaves the old one or the new one.
    pub(crate) fn replace(&self, known: &Known) -> io::Result<()> {
        durable::replace(&self.0, known.to_text().as_bytes(), 0o644)
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        durable::remove(&self.0)
    }
}

/// Names this boot of the system.
pub(crate) fn boot() -> Option<String> {
    let text = durable::read(BOOT_ID, 100).ok()??;
    let id = String::from_utf8(text).ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full() -> Known {
        Known {
            url: "http://host/file".into(),
            validator: Some(Validator::Etag("\"1\"".into())),
            total: Some(10),
            content_type: Some("application/zip".into()),
            name: Some("a b.zip".into()),
            synced: 5,
            boot: Some("b".into()),
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_understood_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let part = Utf8Path::from_path(dir.path()).unwrap().join("file.part");
        let side = Side::of(&part);
        assert_eq!(side.read(), None);
        side.write(&full()).unwrap();
        assert_eq!(side.read(), Some(full()));
        let other = Known {
            url: "http://host/other".into(),
            ..Known::default()
        };
        side.replace(&other).unwrap();
        assert_eq!(side.read(), Some(other.clone()));
        side.remove().unwrap();
        side.remove().unwrap();

        let text = "http://host/other\nnew thing\n\nx\n";
        assert_eq!(Known::from_text(text), Some(other));
        assert_eq!(Known::from_text(""), None);
    }

    #[test]
    fn after_another_boot_only_synced_bytes_are_trusted() {
        let known = full();
        assert_eq!(known.trusted(9, Some("b")), 9);
        for boot in [Some("c"), None] {
            assert_eq!(known.trusted(9, boot), 5, "{boot:?}");
            assert_eq!(known.trusted(3, boot), 3, "{boot:?}");
        }
        let nobody_tells = Known {
            boot: None,
            ..full()
        };
        assert_eq!(nobody_tells.trusted(9, None), 5);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,20}\n(synced|total|etag|boot)? ?\\PC{0,20}") {
            let _ = Known::from_text(&text);
        }

        #[test]
        fn what_a_server_says_cannot_add_a_line(name in "[a-z\n\r]{0,9}") {
            let known = Known { name: Some(name), ..full() };
            let read = Known::from_text(&known.to_text()).unwrap();
            prop_assert_eq!(Known { name: None, ..read }, Known { name: None, ..full() });
        }
    }
}

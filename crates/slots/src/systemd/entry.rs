//! An entry of the boot loader's menu, as the Boot Loader Specification has it: its file name with a
//! counter, the lines that sort it, and the order itself.
//!
//! In: a name and a text. Out: an [`Entry`], and the name and text of its next form.

use std::cmp::Ordering;
use std::fs;

use camino::Utf8Path;
use system_image_durable as durable;
use system_image_formats::name::SlotName;

use crate::error::{self, BootError};

/// What names of our entries begin with.
const PREFIX: &str = "system-image-";

const SUFFIX: &str = ".conf";

/// Ours are sorted together, by their versions.
pub(super) const SORT_KEY: &str = "system-image";

/// Keys of which one must be there; the boot loader skips an entry without, such as an empty file.
const STARTS: [&str; 4] = ["linux", "efi", "uki", "uki-url"];

/// Tries to come, and tries made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counter {
    pub(super) left: u32,
    /// `None` where the name does not say; the boot loader takes it as 0.
    pub(super) made: Option<u32>,
}

impl Counter {
    /// Of an entry that is not to boot, and was not tried in vain.
    pub(super) const RESTING: Self = Self {
        left: 0,
        made: None,
    };

    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| -> Option<u32> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok())?
        };
        let (left, made) = match text.split_once('-') {
            Some((left, made)) => (left, Some(number(made)?)),
            None => (text, None),
        };
        let left = number(left)?;
        Some(Self { left, made })
    }
}

/// The name of the slot's entry with this counter.
pub(super) fn name(slot: &SlotName, counter: Option<Counter>) -> String {
    let counter = match counter {
        None => String::new(),
        Some(Counter { left, made: None }) => format!("+{left}"),
        Some(Counter {
            left,
            made: Some(made),
        }) => format!("+{left}-{made}"),
    };
    format!("{PREFIX}{slot}{counter}{SUFFIX}")
}

/// The slot and counter that a file name tells; `None` for what is no entry of a slot.
pub(super) fn parse_name(name: &str) -> Option<(SlotName, Option<Counter>)> {
    let middle = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let (slot, counter) = match middle.split_once('+') {
        Some((slot, counter)) => (slot, Some(Counter::parse(counter)?)),
        None => (middle, None),
    };
    Some((slot.parse().ok()?, counter))
}

/// The value of the first line with this key.
pub(super) fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (word, value) = line.trim().split_once([' ', '\t'])?;
        (word == key).then(|| value.trim())
    })
}

/// A file of `loader/entries` that is of a slot.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) slot: SlotName,
    pub(super) counter: Option<Counter>,
    /// Number of the change that wrote it; what is no number is before all of them.
    pub(super) version: u64,
    text: String,
}

impl Entry {
    /// `None` if the boot loader would skip the file.
    pub(super) fn new(
        name: String,
        (slot, counter): (SlotName, Option<Counter>),
        text: String,
    ) -> Option<Self> {
        STARTS.iter().find_map(|key| value(&text, key))?;
        let version = value(&text, "version").and_then(|version| version.parse().ok());
        Some(Self {
            name,
            slot,
            counter,
            version: version.unwrap_or(0),
            text,
        })
    }

    /// Which one the boot loader prefers: those without tries left are last, the highest version is
    /// first. Then come names, the last one first, and whoever has more tries left.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let left = |entry: &Self| entry.counter.map_or(u32::MAX, |counter| counter.left);
        self.is_bad()
            .cmp(&other.is_bad())
            .then_with(|| other.rank().cmp(&self.rank()))
            .then_with(|| left(other).cmp(&left(self)))
    }

    /// Whether it has no tries left.
    pub(super) fn is_bad(&self) -> bool {
        self.counter.is_some_and(|counter| counter.left == 0)
    }

    /// What decides between entries with tries left: the highest rank is first.
    pub(super) fn rank(&self) -> (u64, &SlotName) {
        (self.version, &self.slot)
    }

    /// Whether it is on trial, or has been without success.
    pub(super) fn counts(&self) -> bool {
        self.counter.is_some() && self.counter != Some(Counter::RESTING)
    }

    /// The value of the first line with this key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        value(&self.text, key)
    }

    /// Its text with this version, and with the sort key that makes the version count.
    pub(super) fn text_with(&self, version: u64) -> String {
        let is_other = |line: &&str| {
            let word = line.split_whitespace().next();
            !matches!(word, Some("version" | "sort-key"))
        };
        let mut text: String = self
            .text
            .lines()
            .filter(is_other)
            .map(|line| format!("{line}\n"))
            .collect();
        text += &format!("sort-key {SORT_KEY}\nversion {version}\n");
        text
    }

    /// Gives it the name with this counter, durably.
    pub(super) fn rename(
        &self,
        directory: &Utf8Path,
        counter: Option<Counter>,
    ) -> Result<(), BootError> {
        let new = directory.join(name(&self.slot, counter));
        let old = directory.join(&self.name);
        durable::rename(old.as_std_path(), new.as_std_path()).map_err(error::write(&new))
    }

    /// Removes it, durably.
    pub(super) fn remove(&self, directory: &Utf8Path) -> Result<(), BootError> {
        let path = directory.join(&self.name);
        fs::remove_file(&path)
            .and_then(|()| durable::sync_parent(&path))
            .map_err(error::write(&path))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, version: u64) -> Entry {
        let text = format!("title x\nversion {version}\nlinux /vmlinuz\n");
        Entry::new(name.to_owned(), parse_name(name).unwrap(), text).unwrap()
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for (name_of_file, slot, counter) in [
            ("system-image-a.conf", "a", None),
            ("system-image-a+3.conf", "a", Some((3, None))),
            ("system-image-a-1+0-3.conf", "a-1", Some((0, Some(3)))),
        ] {
            let counter = counter.map(|(left, made)| Counter { left, made });
            let (found, read) = parse_name(name_of_file).unwrap();
            assert_eq!((found.as_str(), read), (slot, counter));
            assert_eq!(name(&found, counter), name_of_file);
        }
        for other in [
            "system-image-a.conf.new",
            "system-image-.conf",
            "system-image-a+.conf",
            "system-image-a+3-.conf",
            "system-image-a+3-1-1.conf",
            "system-image-a++3.conf",
            "system-image-a+99999999999.conf",
            "debian.conf",
        ] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }

    #[test]
    fn the_order_is_that_of_the_boot_loader_specification() {
        let order = [
            entry("system-image-b+1-2.conf", 7),
            entry("system-image-d.conf", 6),
            entry("system-image-a.conf", 6),
            entry("system-image-a+2.conf", 6),
            entry("system-image-c+0-3.conf", 9),
            entry("system-image-e+0.conf", 8),
        ];
        assert!(order.is_sorted_by(|one, next| one.order(next).is_lt()));
    }

    #[test]
    fn an_entry_keeps_its_lines_and_gets_a_version() {
        let text = "title  A\nsort-key x\n# note\nversion 3\r\nlinux\t/a/vmlinuz\noptions root=x version y";
        let name = "system-image-a.conf";
        let entry = Entry::new(name.to_owned(), parse_name(name).unwrap(), text.to_owned());
        let text = entry.as_ref().unwrap().text_with(4);
        assert_eq!(entry.unwrap().version, 3);
        let wanted = "title  A\n# note\nlinux\t/a/vmlinuz\noptions root=x version y\n\
                      sort-key system-image\nversion 4\n";
        assert_eq!(text, wanted);
    }

    proptest! {
        #[test]
        fn any_text_is_an_entry_or_none(name in "system-image-[a+0-9-]{0,6}.conf", text in "\\PC*") {
            if let Some(parsed) = parse_name(&name) {
                let entry = Entry::new(name, parsed, format!("linux x\n{text}"));
                let _ = entry.unwrap().text_with(1);
            }
        }
    }
}

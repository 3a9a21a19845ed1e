//! systemd-boot: one entry for each slot, whose file name counts the tries.
//!
//! In: the mounted ESP. Out: `loader/entries/system-image-<slot>.conf`, renamed and written. The
//! boot loader sorts its entries by `version` and puts those without tries left to the end, so:
//!
//! - the default is the entry without a counter that has the highest version;
//! - a trial is an entry with a counter and a higher version; at 0 it is at the end, and the
//!   default boots;
//! - all others have lower versions, or rest: `+0` without tries made.
//!
//! A trial begins with one new name, whose version is higher than all before. Only after that is
//! on the disk, what is left of older names is tidied up; it changes nothing by then.

mod entry;

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use system_image_durable as durable;
use system_image_formats::name::SlotName;

use self::entry::{Counter, Entry};
use crate::BootControl;
use crate::boot::{Boot, Trial};
use crate::error::{self, BootError};
use crate::set::Slots;

/// Longest entry or configuration that is read, in bytes.
const MAX_LEN: usize = 64 << 10;

/// Boot control by systemd-boot.
#[derive(Debug)]
pub struct SystemdBoot {
    esp: Utf8PathBuf,
    slots: Slots,
}

impl SystemdBoot {
    /// Over the ESP, or the XBOOTLDR partition, that is mounted at `esp`, e.g. `/efi`.
    pub fn new(esp: Utf8PathBuf, slots: Vec<SlotName>) -> Self {
        Self {
            esp,
            slots: Slots::new(slots),
        }
    }

    fn directory(&self) -> Utf8PathBuf {
        self.esp.join("loader/entries")
    }

    fn load(&self) -> Result<Menu, BootError> {
        self.slots.first()?;
        let directory = self.directory();
        let reading = || error::read(&directory);
        let mut entries = Vec::new();
        for item in fs::read_dir(&directory).map_err(reading())? {
            let Ok(name) = item.map_err(reading())?.file_name().into_string() else {
                continue;
            };
            let Some(parsed) = entry::parse_name(&name) else {
                continue;
            };
            if !self.slots.iter().any(|known| *known == parsed.0) {
                continue;
            }
            let path = directory.join(&name);
            let bytes = durable::read(&path, MAX_LEN).map_err(error::read(&path))?;
            let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
            entries.extend(Entry::new(name, parsed, text));
        }
        entries.sort_by(Entry::order);
        Ok(Menu { directory, entries })
    }
}

impl BootControl for SystemdBoot {
    fn read(&self) -> Result<Boot, BootError> {
        self.load()?.boot()
    }

    fn try_out(&self, slot: &SlotName, tries: u8) -> Result<(), BootError> {
        self.slots.expect_trial(slot, tries)?;
        let menu = self.load()?;
        let boot = menu.boot()?;
        if boot.default == *slot {
            return self.abandon();
        }
        let trying = boot.clone().trying(slot, tries);
        if trying != boot {
            // Tries that have been made stay in the name: so it counts through other names than the
            // one that it follows, which a cut may have left, and never meets it.
            let made = menu.newest(slot)?.counter.and_then(|counter| counter.made);
            let counter = Counter {
                left: tries.into(),
                made,
            };
            menu.write(slot, Some(counter))?;
        }
        self.load()?.tidy(&trying)
    }

    fn confirm(&self, slot: &SlotName) -> Result<(), BootError> {
        self.slots.expect(slot)?;
        let menu = self.load()?;
        let confirmed = Boot::always(slot.clone());
        if menu.good().is_none_or(|good| good.slot != *slot) {
            let newest = menu.newest(slot)?;
            let mut others = menu.entries.iter().filter(|entry| entry.slot != *slot);
            if others.all(|other| other.version < newest.version) {
                newest.rename(&menu.directory, None)?;
            } else {
                menu.write(slot, None)?;
            }
        }
        self.load()?.tidy(&confirmed)
    }

    fn abandon(&self) -> Result<(), BootError> {
        let menu = self.load()?;
        let boot = menu.boot()?;
        menu.tidy(&Boot::always(boot.default))
    }

    fn check(&self) -> Result<(), BootError> {
        let menu = self.load()?;
        menu.boot()?;
        let of_slot = |slot| menu.newest(slot);
        let entries: Vec<_> = self.slots.iter().map(of_slot).collect::<Result<_, _>>()?;
        let set_up = |path: &Utf8Path, why| {
            let path = path.to_owned();
            BootError::SetUp { path, why }
        };
        for (place, entry) in entries.iter().enumerate() {
            if entry.value("sort-key") != Some(entry::SORT_KEY) {
                let path = menu.directory.join(&entry.name);
                return Err(set_up(&path, "its sort-key is not `system-image`"));
            }
            if entry.value("machine-id") != entries[0].value("machine-id") {
                return Err(set_up(
                    &menu.directory,
                    "not all entries have the same machine-id",
                ));
            }
            let mut others = entries[..place].iter();
            if others.any(|other| other.version == entry.version) {
                return Err(set_up(&menu.directory, "two entries have the same version"));
            }
        }
        let path = self.esp.join("loader/loader.conf");
        let bytes = durable::read(&path, MAX_LEN).map_err(error::read(&path))?;
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        match entry::value(&text, "default") {
            None | Some("system-image-*") => Ok(()),
            Some(_) => Err(set_up(&path, "its `default` is not `system-image-*`")),
        }
    }
}

/// The entries of a device's slots, in the boot loader's order: the first one boots.
#[derive(Debug)]
struct Menu {
    directory: Utf8PathBuf,
    entries: Vec<Entry>,
}

impl Menu {
    fn boot(&self) -> Result<Boot, BootError> {
        let good = self.good().ok_or_else(|| BootError::Damaged {
            path: self.directory.clone(),
            why: "no entry of a slot is without a counter",
        })?;
        // What boots before the default is on trial. If that is the default itself, what has failed is
        // at the end, with a version that would have gone before it.
        let is_other = |entry: &&Entry| entry.slot != good.slot;
        let has_failed = |entry: &&Entry| {
            is_other(entry) && entry.counts() && entry.is_bad() && entry.rank() > good.rank()
        };
        let first = self.entries.first().filter(is_other);
        let tried = first.or_else(|| self.entries.iter().find(has_failed));
        let trial = tried.and_then(|entry| {
            Some(Trial {
                slot: entry.slot.clone(),
                left: u8::try_from(entry.counter?.left).unwrap_or(u8::MAX),
            })
        });
        Ok(Boot {
            default: good.slot.clone(),
            trial,
        })
    }

    /// The entry that is the default.
    fn good(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.counter.is_none())
    }

    /// The slot's entry that was written last.
    fn newest(&self, slot: &SlotName) -> Result<&Entry, BootError> {
        let of_slot = self.entries.iter().filter(|entry| entry.slot == *slot);
        // Of equal ones the first, which is before the others in the boot loader's order.
        of_slot
            .rev()
            .max_by_key(|entry| entry.version)
            .ok_or_else(|| BootError::NoEntry {
                slot: slot.clone(),
                path: self.directory.clone(),
            })
    }

    /// The slot's entry that makes it the default, or that boots next, or was written last.
    fn current(&self, slot: &SlotName) -> Result<&Entry, BootError> {
        let mut made = self.good().into_iter().chain(self.entries.first());
        made.find(|entry| entry.slot == *slot)
            .map_or_else(|| self.newest(slot), Ok)
    }

    /// Puts the slot's entry before all others, under a name with this counter.
    fn write(&self, slot: &SlotName, counter: Option<Counter>) -> Result<(), BootError> {
        let highest = self.entries.iter().map(|entry| entry.version).max();
        let version = highest.unwrap_or(0).checked_add(1);
        let version = version.ok_or_else(|| BootError::SetUp {
            path: self.directory.clone(),
            why: "an entry has the highest version that there is",
        })?;
        let text = self.newest(slot)?.text_with(version);
        let path = self.directory.join(entry::name(slot, counter));
        // The ESP has no permissions; this is for trials elsewhere.
        durable::replace(&path, text.as_bytes(), 0o644).map_err(error::write(&path))
    }

    /// Leaves one entry of each slot, and lets those rest whose trial is not that of `boot`.
    fn tidy(&self, boot: &Boot) -> Result<(), BootError> {
        let trial = boot.trial.as_ref().map(|trial| &trial.slot);
        let mut resting = Vec::new();
        // The entries that make the state are among those that are kept.
        for entry in &self.entries {
            let kept = self.current(&entry.slot)?;
            if entry.name != kept.name {
                entry.remove(&self.directory)?;
            } else if kept.counts() && trial != Some(&kept.slot) {
                resting.push(kept);
            }
        }
        for entry in resting {
            entry.rename(&self.directory, Some(Counter::RESTING))?;
        }
        Ok(())
    }
}

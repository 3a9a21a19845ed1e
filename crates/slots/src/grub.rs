//! GRUB: variables in an environment block, which GRUB itself writes back before each try.
//!
//! In: the path of `grubenv`. Out: that file, changed. The counting is done by
//! `dist/boot/grub.cfg`; why the file is written as it is stands in
//! `docs/decisions/boot-control.md`.

mod block;
mod dialect;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use system_image_durable as durable;
use system_image_formats::name::SlotName;

use self::block::{Block, SECTOR};
use self::dialect::Dialect;
use crate::boot::Boot;
use crate::error::BootError;
use crate::set::Slots;
use crate::{BootControl, error};

/// Largest environment block that is read, in bytes; they have 1024.
const MAX_SIZE: usize = 64 << 10;

/// Boot control by GRUB.
#[derive(Debug)]
pub struct Grub {
    grubenv: Utf8PathBuf,
    slots: Slots,
    dialect: Dialect,
}

impl Grub {
    /// Over the block at `grubenv`, e.g. `/boot/grub/grubenv`, with the variables of
    /// `dist/boot/grub.cfg`: `system_image_slot`, `system_image_trial`, `system_image_left`.
    pub fn new(grubenv: Utf8PathBuf, slots: Vec<SlotName>) -> Self {
        Self {
            grubenv,
            slots: Slots::new(slots),
            dialect: Dialect::Counted,
        }
    }

    /// With the variables of devices of 2014: `snappy_mode`, `snappy_ab`, `snappy_trial_boot`.
    ///
    /// They can tell two slots apart, and say of a trial only whether it has begun: it has one try,
    /// whatever is asked for.
    pub fn classic(grubenv: Utf8PathBuf, slots: Vec<SlotName>) -> Self {
        Self {
            dialect: Dialect::Classic,
            ..Self::new(grubenv, slots)
        }
    }

    fn load(&self) -> Result<Block, BootError> {
        let path = || self.grubenv.clone();
        let bytes = durable::read(&self.grubenv, MAX_SIZE)
            .and_then(|bytes| bytes.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(|source| BootError::Read {
                path: path(),
                source,
            })?;
        Block::parse(bytes).map_err(|why| BootError::Damaged { path: path(), why })
    }

    fn store(&self, block: &Block, boot: &Boot) -> Result<(), BootError> {
        let new = block
            .with(&self.dialect.variables(boot), self.dialect.names())
            .ok_or_else(|| BootError::Full {
                path: self.grubenv.clone(),
            })?;
        write(&self.grubenv, block.bytes(), &new).map_err(error::write(&self.grubenv))
    }
}

impl BootControl for Grub {
    fn read(&self) -> Result<Boot, BootError> {
        self.dialect.boot(&self.load()?, &self.slots)
    }

    fn try_out(&self, slot: &SlotName, tries: u8) -> Result<(), BootError> {
        self.slots.expect_trial(slot, tries)?;
        let block = self.load()?;
        let boot = self.dialect.boot(&block, &self.slots)?;
        self.store(&block, &boot.trying(slot, tries))
    }

    fn confirm(&self, slot: &SlotName) -> Result<(), BootError> {
        self.slots.expect(slot)?;
        self.store(&self.load()?, &Boot::always(slot.clone()))
    }

    fn abandon(&self) -> Result<(), BootError> {
        let block = self.load()?;
        let boot = self.dialect.boot(&block, &self.slots)?;
        self.store(&block, &Boot::always(boot.default))
    }

    fn check(&self) -> Result<(), BootError> {
        self.read().map(drop)
    }
}

/// Writes `new` over `old`, so that a cut leaves one of them.
///
/// What differs in one sector is written in place: GRUB finds it there without the file system's
/// journal, which it does not replay. Anything else gets a new file.
fn write(path: &Utf8Path, old: &[u8], new: &[u8]) -> io::Result<()> {
    let differs = |place: &usize| old[*place] != new[*place];
    let places = 0..old.len();
    let (Some(first), Some(last)) = (places.clone().find(differs), places.rev().find(differs))
    else {
        return Ok(());
    };
    // Some distributions link to the block of another partition.
    let path = path.canonicalize_utf8()?;
    if first / SECTOR == last / SECTOR {
        let start = first / SECTOR * SECTOR;
        let end = new.len().min(start + SECTOR);
        let file = OpenOptions::new().write(true).open(&path)?;
        file.write_all_at(&new[start..end], start as u64)?;
        return file.sync_data();
    }
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    durable::replace(&path, new, mode)
}

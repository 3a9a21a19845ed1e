//! Power cuts: an update is recorded once, and each state is a disk as a cut may leave it.

use std::fs::{self, File};
use std::path::Path;

use anyhow::Context;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::device::Device;
use crate::record::{Choice, Record, apply};
use crate::recorder::Recorder;

/// States with a part of an epoch, for an epoch of more than one write. Most epochs are a journal's
/// transaction and hold few.
const PARTS: u32 = 32;

/// The same for an epoch of one write, which can only be torn.
const PARTS_OF_ONE: u32 = 3;

/// A cut: everything before an epoch is on the disk, and what is chosen of it.
#[derive(Clone, Copy, Debug)]
struct Cut {
    epoch: usize,
    choice: Choice,
}

/// All cuts of one recorded update.
#[derive(Debug)]
pub(crate) struct Cuts {
    record: Record,
    all: Vec<Cut>,
    seed: u64,
}

impl Cuts {
    /// Of a record. Random choices depend on `seed` and a cut's number alone.
    pub(crate) fn of(record: Record, seed: u64) -> Self {
        let mut all = Vec::new();
        let mut add = |epoch, choice| all.push(Cut { epoch, choice });
        let epochs = record.epochs().count();
        for (epoch, writes) in record.epochs().enumerate() {
            add(epoch, Choice::Nothing);
            let parts = if writes.len() == 1 {
                PARTS_OF_ONE
            } else {
                PARTS
            };
            (0..parts).for_each(|part| add(epoch, Choice::Some(part)));
        }
        // Everything of any other epoch is nothing of the next one.
        if let Some(last) = epochs.checked_sub(1) {
            add(last, Choice::Everything);
        }
        Self { record, all, seed }
    }

    /// Their number.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// What is recorded.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// A cut in words.
    pub(crate) fn describe(&self, number: usize) -> String {
        let Cut { epoch, choice } = self.all[number];
        let epochs = self.record.epochs().count();
        let writes = self.record.epochs().nth(epoch).map_or(0, <[_]>::len);
        match choice {
            Choice::Nothing => format!("power cut after flush {epoch} of {epochs}"),
            Choice::Everything => format!("power cut after everything, at flush {epochs}"),
            Choice::Some(_) => {
                format!(
                    "power cut amid the {writes} writes before flush {}",
                    epoch + 1
                )
            }
        }
    }

    /// Makes a disk, which is as it was before the update, what this cut leaves.
    pub(crate) fn cut(&self, number: usize, disk: &Path) -> anyhow::Result<()> {
        let Cut { epoch, choice } = self.all[number];
        let disk = File::options().write(true).open(disk)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ (number as u64) << 32);
        for writes in self.record.epochs().take(epoch) {
            apply(writes, Choice::Everything, &mut rng, &disk)?;
        }
        let last = self.record.epochs().nth(epoch).unwrap_or_default();
        Ok(apply(last, choice, &mut rng, &disk)?)
    }
}

/// When the storage of a recorded device writes what nobody has synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At once.
    Eager,
    /// At the end.
    Lazy,
}

/// Runs the update of a device once, undisturbed, and records its disk.
pub(crate) fn record(device: &Device, pace: Pace) -> anyhow::Result<Record> {
    let mountpoint = device.image().with_extension("recorded");
    fs::create_dir_all(&mountpoint)?;
    let recorder =
        Recorder::start(&device.image(), &mountpoint).context("cannot record a disk (FUSE)")?;
    let running = device.start_from(recorder.path())?;
    if pace == Pace::Eager {
        running.write_at_once()?;
    }
    running.recovery().upgrade_well();
    // Its file systems are put away too, as a recovery does before it starts the system.
    drop(running);
    recorder.finish().context("cannot end the recording")
}

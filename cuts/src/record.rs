//! What a disk is told to do, in order: writes, and flushes, before which they must be on it.
//!
//! A disk with a cache that loses its power has everything that was written before its last
//! flush, and of what was written since any part: whole writes or some of their first sectors,
//! whatever their order was. A later write to the same place is never overtaken by an earlier one.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rand_core::RngCore;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;

/// In a stored record, where a write would have its place on the disk: a flush.
const FLUSH: u64 = u64::MAX;

/// Bytes and their place on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) at: u64,
    pub(crate) bytes: Vec<u8>,
}

/// All that was written, by the flushes that ended each epoch; the last one has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    epochs: Vec<Vec<Written>>,
    open: Vec<Written>,
}

impl Record {
    /// Something is written.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) {
        let bytes = bytes.to_vec();
        self.open.push(Written { at, bytes });
    }

    /// All that was written has to be on the disk. A flush of nothing is none.
    pub(crate) fn flush(&mut self) {
        if !self.open.is_empty() {
            self.epochs.push(std::mem::take(&mut self.open));
        }
    }

    /// What was written between two flushes, in order; the last ones are not known to be on the
    /// disk.
    pub(crate) fn epochs(&self) -> impl Iterator<Item = &[Written]> {
        let open = (!self.open.is_empty()).then_some(&self.open);
        self.epochs.iter().chain(open).map(Vec::as_slice)
    }

    /// Stores it.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        for epoch in self.epochs() {
            for Written { at, bytes } in epoch {
                out.write_all(&at.to_le_bytes())?;
                out.write_all(&(bytes.len() as u64).to_le_bytes())?;
                out.write_all(bytes)?;
            }
            out.write_all(&FLUSH.to_le_bytes())?;
        }
        out.flush()
    }

    /// Reads what was stored.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let mut stored = BufReader::new(File::open(path)?);
        let mut record = Self::default();
        let mut number = [0; 8];
        loop {
            match stored.read_exact(&mut number) {
                Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(record),
                other => other?,
            }
            let at = u64::from_le_bytes(number);
            if at == FLUSH {
                record.flush();
                continue;
            }
            stored.read_exact(&mut number)?;
            let mut bytes = Vec::new();
            stored
                .by_ref()
                .take(u64::from_le_bytes(number))
                .read_to_end(&mut bytes)?;
            record.open.push(Written { at, bytes });
        }
    }
}

/// Which of an epoch's writes are on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// One of the many ways in between, by number.
    Some(u32),
}

/// Writes that part of an epoch to the disk.
pub(crate) fn apply(
    epoch: &[Written],
    choice: Choice,
    rng: &mut impl RngCore,
    disk: &File,
) -> io::Result<()> {
    let lengths = epoch.iter().map(|written| written.bytes.len()).collect();
    let lengths = match choice {
        Choice::Nothing => return Ok(()),
        Choice::Everything => lengths,
        Choice::Some(number) => chosen(lengths, number, rng),
    };
    for (Written { at, bytes }, len) in epoch.iter().zip(lengths) {
        disk.write_all_at(&bytes[..len], *at)?;
    }
    Ok(())
}

/// How many bytes of each write are on the disk: in the order they came up to one that is torn;
/// all without one; one alone; or whichever.
fn chosen(mut lengths: Vec<usize>, number: u32, rng: &mut impl RngCore) -> Vec<usize> {
    let one = below(lengths.len(), rng);
    match number % 4 {
        0 => {
            lengths[one + 1..].fill(0);
            lengths[one] = torn(lengths[one], rng);
        }
        1 => lengths[one] = torn(lengths[one], rng),
        2 => {
            let len = lengths[one];
            lengths.fill(0);
            lengths[one] = len;
        }
        _ => {
            for len in &mut lengths {
                *len = match rng.next_u32() % 5 {
                    0 | 1 => 0,
                    2 | 3 => *len,
                    _ => torn(*len, rng),
                };
            }
        }
    }
    lengths
}

/// A part of a write, from its beginning: nothing, or some of its sectors, not all.
fn torn(len: usize, rng: &mut impl RngCore) -> usize {
    below(len.div_ceil(SECTOR), rng) * SECTOR
}

/// A number less than `limit`, which is at least 1.
fn below(limit: usize, rng: &mut impl RngCore) -> usize {
    let limit = u64::try_from(limit).expect("64 bits are enough for a length");
    usize::try_from(rng.next_u64() % limit).expect("it is less than a length")
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn record() -> Record {
        let mut record = Record::default();
        record.write(0, &[1; 1024]);
        record.write(4096, &[2; 2048]);
        record.flush();
        record.flush();
        record.write(512, &[3; 1024]);
        record
    }

    #[test]
    fn flushes_end_epochs_and_a_flush_of_nothing_is_none() {
        let sizes: Vec<_> = record().epochs().map(<[Written]>::len).collect();
        assert_eq!(sizes, [2, 1]);
    }

    #[test]
    fn a_stored_record_has_the_same_epochs() {
        let file = tempfile::NamedTempFile::new().unwrap();
        record().save(file.path()).unwrap();
        let loaded = Record::load(file.path()).unwrap();
        assert!(loaded.epochs().eq(record().epochs()));
    }

    #[test]
    fn a_part_of_an_epoch_has_whole_sectors_of_its_writes_and_is_repeatable() {
        let lengths = vec![1024, 512, 4096, 512, 8192];
        for number in 0..200 {
            let choose = || {
                let mut rng = ChaCha8Rng::seed_from_u64(number.into());
                chosen(lengths.clone(), number, &mut rng)
            };
            let got = choose();
            assert_eq!(got, choose());
            for (got, all) in got.iter().zip(&lengths) {
                assert!(got <= all && got.is_multiple_of(SECTOR), "{got} of {all}");
            }
        }
    }

    #[test]
    fn a_later_write_to_the_same_place_wins() {
        let disk = tempfile::tempfile().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for epoch in record().epochs() {
            apply(epoch, Choice::Everything, &mut rng, &disk).unwrap();
        }
        let mut got = [0; 1536];
        disk.read_exact_at(&mut got, 0).unwrap();
        assert_eq!((got[0], got[511], got[512], got[1535]), (1, 1, 3, 3));
    }
}

//! Where the stored bytes of a member belong in its file.

use super::number;
use super::pax::decimal;

/// Most runs of data that one file may have: 2 MiB of memory.
const MAX_RUNS: usize = 1 << 17;

/// A run of stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Collects runs and checks that they ascend, do not overlap and end within the file.
#[derive(Debug, Default)]
pub(super) struct Map {
    runs: Vec<Run>,
    end: u64,
}

impl Map {
    pub(super) fn push(&mut self, offset: u64, len: u64) -> Result<(), &'static str> {
        let end = offset.checked_add(len).ok_or("sparse map")?;
        if offset < self.end || self.runs.len() == MAX_RUNS {
            return Err("sparse map");
        }
        self.end = end;
        // Writers close a map with an empty run at the end of the file.
        if len > 0 {
            self.runs.push(Run { offset, len });
        }
        Ok(())
    }

    /// Adds the pairs in `fields` of an old GNU header or one of its extensions.
    pub(super) fn push_old_gnu(&mut self, fields: &[u8]) -> Result<(), &'static str> {
        for pair in fields.chunks_exact(24) {
            // The first empty pair ends the list.
            if pair[0] == 0 && pair[12] == 0 {
                break;
            }
            let field = |from| u64::try_from(number::parse(&pair[from..from + 12])?).ok();
            self.push(
                field(0).ok_or("sparse map")?,
                field(12).ok_or("sparse map")?,
            )?;
        }
        Ok(())
    }

    /// The runs of a file of `size` bytes of which `stored` are in the archive.
    pub(super) fn finish(self, size: u64, stored: u64) -> Result<Vec<Run>, &'static str> {
        let sum: u64 = self.runs.iter().map(|run| run.len).sum();
        if self.end > size || sum != stored {
            return Err("sparse map");
        }
        Ok(self.runs)
    }
}

/// The map in front of the data in version 1.0: decimal numbers, each on its line.
#[derive(Default)]
pub(super) struct TextMap {
    count: Option<u64>,
    offset: Option<u64>,
    seen: u64,
    digits: Vec<u8>,
    pub(super) map: Map,
}

impl TextMap {
    /// Reads one block; true when the map is complete. The rest of that block is padding.
    pub(super) fn block(&mut self, block: &[u8]) -> Result<bool, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                if self.digits.len() == 20 {
                    return Err("sparse map");
                }
                self.digits.push(byte);
                continue;
            }
            let number = decimal(&self.digits).ok_or("sparse map")?;
            self.digits.clear();
            match (self.count, self.offset.take()) {
                (None, _) => self.count = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => {
                    self.map.push(offset, number)?;
                    self.seen += 1;
                }
            }
            if self.count == Some(self.seen) {
                return Ok(true);
            }
            // Empty runs are not kept, so their number is bounded here.
            if self.count > Some(MAX_RUNS as u64) {
                return Err("sparse map");
            }
        }
        Ok(false)
    }
}

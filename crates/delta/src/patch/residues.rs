//! What is added to copied bytes, so that they become those of the target.

use std::io::Read;

use crate::patch::apply::ApplyError;
use crate::patch::base::at_once;
use crate::patch::streams::{Stream, Streams};

/// Where the residues are.
#[derive(Debug, Default)]
pub(crate) struct Residues {
    /// Copied bytes before the next run of them, when that is known.
    gap: Option<u64>,
    /// Bytes that are left of the run.
    run: u64,
}

impl Residues {
    /// Adds to the next copied bytes.
    pub(crate) fn add<R: Read>(
        &mut self,
        streams: &mut Streams<R>,
        kind: u8,
        mut copied: &mut [u8],
    ) -> Result<(), ApplyError> {
        while !copied.is_empty() {
            if self.run > 0 {
                let len = at_once(self.run, copied.len());
                let (now, later) = copied.split_at_mut(len);
                add(streams, kind, now)?;
                self.run -= len as u64;
                copied = later;
                continue;
            }
            let left = match self.gap {
                Some(left) => left,
                None => streams.number(Stream::Gaps)?,
            };
            let len = at_once(left, copied.len());
            copied = &mut copied[len..];
            let left = left - len as u64;
            self.gap = Some(left);
            if left == 0 && !copied.is_empty() {
                self.run = streams.number(Stream::Runs)?;
                if self.run == 0 {
                    return Err(ApplyError::damaged("a run of residues"));
                }
                self.gap = None;
            }
        }
        Ok(())
    }
}

fn add<R: Read>(streams: &mut Streams<R>, kind: u8, bytes: &mut [u8]) -> Result<(), ApplyError> {
    let mut residues = [0; 1 << 10];
    for bytes in bytes.chunks_mut(residues.len()) {
        let residues = &mut residues[..bytes.len()];
        streams.read(Stream::Residue(kind), residues)?;
        for (byte, &residue) in bytes.iter_mut().zip(&*residues) {
            *byte = byte.wrapping_add(residue);
        }
    }
    Ok(())
}

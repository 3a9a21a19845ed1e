//! A view as the builder has it: what it shows, and its plain bytes, which are unpacked when they are
//! asked for.

use std::fs::File;
use std::io;
use std::ops::Range;

use system_image_delta::patch::{Codec, Unpacker};

use crate::patch::plan::{Side, index, read};

/// A view that copies come from.
pub(crate) struct View {
    pub(crate) side: Side,
    pub(crate) range: Range<u64>,
    pub(crate) codec: Codec,
    /// What it goes on with, if it shows several ranges as one.
    pub(crate) rest: Vec<Shown>,
    /// Its plain bytes; if it is empty, they are unpacked again each time.
    pub(crate) plain: Vec<u8>,
    pub(crate) plain_len: u64,
    /// The SHA-256 of its plain bytes, if it is proved that the codec makes the range of them.
    pub(crate) proved: Option<[u8; 32]>,
}

/// A range that a view shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) range: Range<u64>,
    pub(crate) codec: Codec,
    pub(crate) plain_len: u64,
}

impl View {
    /// All ranges in order.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let rest: u64 = self.rest.iter().map(|shown| shown.plain_len).sum();
        let first = Shown {
            range: self.range.clone(),
            codec: self.codec,
            plain_len: self.plain_len - rest,
        };
        let mut all = vec![first];
        all.extend(self.rest.iter().cloned());
        all
    }

    /// Plain bytes; `file` is the image that it shows.
    pub(crate) fn bytes(&self, file: &File, range: &Range<u64>) -> io::Result<Vec<u8>> {
        if !self.plain.is_empty() {
            return Ok(self.plain[index(range)].to_vec());
        }
        let mut bytes = Vec::new();
        let mut at = 0;
        for shown in self.shown() {
            let start = range.start.max(at);
            let end = range.end.min(at + shown.plain_len);
            if start < end {
                let part = start - at..end - at;
                bytes.append(&mut shown.bytes(file, &part)?);
            }
            at += shown.plain_len;
        }
        Ok(bytes)
    }
}

impl Shown {
    fn bytes(&self, file: &File, part: &Range<u64>) -> io::Result<Vec<u8>> {
        if self.codec == Codec::Stored {
            let start = self.range.start;
            return read(file, &(start + part.start..start + part.end));
        }
        let packed = read(file, &self.range)?;
        let mut unpacker = Unpacker::new(self.codec).map_err(io::Error::other)?;
        let mut plain = vec![0; index(&(0..self.plain_len)).end];
        let (mut took, mut made) = (0, 0);
        while made < plain.len() {
            let progress = unpacker
                .unpack(&packed[took..], &mut plain[made..])
                .map_err(io::Error::other)?;
            if progress.took == 0 && progress.made == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            took += progress.took;
            made += progress.made;
        }
        Ok(plain[index(part)].to_vec())
    }
}

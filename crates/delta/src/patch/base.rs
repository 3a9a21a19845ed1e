//! The base: read at random, and each block checked before the first byte of it is used.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use crate::patch::apply::ApplyError;
use crate::patch::header::{BlockDigest, DIGEST};

/// How much is read at once for checking, in bytes.
const CHECKED_AT_ONCE: usize = 128 << 10;

/// Bytes that are read by their place.
pub trait ReadAt {
    /// Fills `buffer` with the bytes from `offset` on.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| self.get(start..)?.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// How much of what is left is done at once, in bytes.
pub(crate) fn at_once(left: u64, most: usize) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}

/// The first bytes of a block's SHA-256.
pub(crate) fn block_digest(sha256: &[u8]) -> BlockDigest {
    let mut digest = [0; DIGEST];
    digest.copy_from_slice(&sha256[..DIGEST]);
    digest
}

/// A base that shows nothing unchecked.
pub(crate) struct Base<'a> {
    bytes: &'a dyn ReadAt,
    len: u64,
    block: u32,
    digests: Vec<Option<BlockDigest>>,
    checked: Vec<bool>,
}

impl<'a> Base<'a> {
    pub(crate) fn new(
        bytes: &'a dyn ReadAt,
        len: u64,
        block: u32,
        digests: Vec<Option<BlockDigest>>,
    ) -> Self {
        let checked = vec![false; digests.len()];
        Self {
            bytes,
            len,
            block,
            digests,
            checked,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), ApplyError> {
        let end = offset.checked_add(buffer.len() as u64);
        let end = end.filter(|&end| end <= self.len);
        let Some(end) = end else {
            return Err(ApplyError::damaged("it copies from beyond the base"));
        };
        if buffer.is_empty() {
            return Ok(());
        }
        for block in offset >> self.block..=(end - 1) >> self.block {
            self.check(block)?;
        }
        let read = self.bytes.read_exact_at(buffer, offset);
        read.map_err(ApplyError::Base)
    }

    fn check(&mut self, block: u64) -> Result<(), ApplyError> {
        let at = usize::try_from(block).expect("there are as many digests as blocks");
        if self.checked[at] {
            return Ok(());
        }
        let Some(digest) = self.digests[at] else {
            return Err(ApplyError::damaged(
                "it uses a block of the base that it does not name",
            ));
        };
        let start = block << self.block;
        let mut left = (self.len - start).min(1 << self.block);
        let mut offset = start;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHECKED_AT_ONCE];
        while left > 0 {
            let len = at_once(left, CHECKED_AT_ONCE);
            let read = self.bytes.read_exact_at(&mut buffer[..len], offset);
            read.map_err(ApplyError::Base)?;
            hash.update(&buffer[..len]);
            offset += len as u64;
            left -= len as u64;
        }
        if block_digest(&hash.finalize()) != digest {
            return Err(ApplyError::OtherBase { offset: start });
        }
        self.checked[at] = true;
        Ok(())
    }
}

//! The target as it comes: gathered into blocks, each checked before it is handed on.

use std::io;

use sha2::{Digest, Sha256};

use crate::patch::apply::ApplyError;
use crate::patch::base::{ReadAt, at_once, block_digest};
use crate::patch::header::{BlockDigest, Identity};

/// Where the target goes. What was written is read again, since later parts may be copies of
/// earlier ones.
pub trait Output: ReadAt {
    /// Takes the next checked bytes, which belong at `offset`.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

impl Output for std::fs::File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self[..].read_exact_at(buffer, offset)
    }
}

impl Output for Vec<u8> {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset != self.len() as u64 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Gathers, checks and hands on.
pub(crate) struct Blocks<'a> {
    output: &'a mut dyn Output,
    len: u64,
    digests: Vec<BlockDigest>,
    /// The block that is being gathered.
    block: Box<[u8]>,
    filled: usize,
    /// Where that block begins.
    start: u64,
    /// The digest of a whole block that is empty: much of a file system is.
    empty: Option<BlockDigest>,
    whole: Sha256,
}

impl<'a> Blocks<'a> {
    pub(crate) fn new(
        output: &'a mut dyn Output,
        len: u64,
        block: u32,
        digests: Vec<BlockDigest>,
    ) -> Self {
        let size = usize::try_from(len).unwrap_or(usize::MAX).min(1 << block);
        Self {
            output,
            len,
            digests,
            block: vec![0; size].into(),
            filled: 0,
            start: 0,
            empty: None,
            whole: Sha256::new(),
        }
    }

    /// How much there is already.
    pub(crate) fn position(&self) -> u64 {
        self.start + self.filled as u64
    }

    /// Room for the next bytes, at most `most`. It is never empty but when all is there.
    pub(crate) fn room(&mut self, most: u64) -> Result<&mut [u8], ApplyError> {
        let left = self.len - self.position();
        if most > left {
            return Err(ApplyError::damaged("it makes more than the target"));
        }
        let room = &mut self.block[self.filled..];
        let len = at_once(most, room.len());
        Ok(&mut room[..len])
    }

    /// The first `len` bytes of the room are there now.
    pub(crate) fn filled(&mut self, len: usize) -> Result<(), ApplyError> {
        self.filled += len;
        if self.filled == self.block.len() || self.position() == self.len {
            self.hand_on()?;
        }
        Ok(())
    }

    /// Takes bytes from elsewhere.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), ApplyError> {
        while !bytes.is_empty() {
            let room = self.room(bytes.len() as u64)?;
            let (now, later) = bytes.split_at(room.len());
            room.copy_from_slice(now);
            self.filled(now.len())?;
            bytes = later;
        }
        Ok(())
    }

    fn hand_on(&mut self) -> Result<(), ApplyError> {
        let bytes = &self.block[..self.filled];
        if bytes.is_empty() {
            return Ok(());
        }
        let at = usize::try_from(self.start / self.block.len() as u64);
        let at = at.expect("there are as many digests as blocks");
        let (start, wanted) = (self.start, self.digests[at]);
        let (whole, output) = (&mut self.whole, &mut *self.output);
        let empty = &mut self.empty;
        let is_whole = bytes.len() == self.block.len();
        // Hashing takes as long as all else: the whole's digest is made beside the block's.
        std::thread::scope(|scope| {
            scope.spawn(|| whole.update(bytes));
            let digest = || block_digest(&Sha256::digest(bytes));
            let digest = if is_whole && bytes.iter().all(|&byte| byte == 0) {
                *empty.get_or_insert_with(digest)
            } else {
                digest()
            };
            if digest != wanted {
                return Err(ApplyError::Wrong { offset: start });
            }
            output.write_all_at(bytes, start).map_err(ApplyError::Write)
        })?;
        self.start += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    /// Reads what there is already.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), ApplyError> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.position()) {
            return Err(ApplyError::damaged("it copies what is not there yet"));
        }
        let before = self.start.saturating_sub(offset).min(buffer.len() as u64);
        let before = usize::try_from(before).expect("it is no more than the buffer");
        let (old, new) = buffer.split_at_mut(before);
        if !old.is_empty() {
            let read = self.output.read_exact_at(old, offset);
            read.map_err(ApplyError::ReadBack)?;
        }
        if !new.is_empty() {
            let at = usize::try_from(offset + before as u64 - self.start);
            let at = at.expect("it is within the block");
            new.copy_from_slice(&self.block[at..at + new.len()]);
        }
        Ok(())
    }

    /// Ends the target; all of it must be there and right.
    pub(crate) fn finish(self, target: &Identity) -> Result<(), ApplyError> {
        if self.position() != self.len {
            return Err(ApplyError::damaged("it makes less than the target"));
        }
        if self.whole.finalize()[..] != target.sha256 {
            return Err(ApplyError::Wrong { offset: 0 });
        }
        Ok(())
    }
}

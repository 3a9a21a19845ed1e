//! The target as it comes: gathered into blocks, each checked before it is handed on. Checking and
//! writing take about as long as making, and have a thread of their own.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::patch::apply::ApplyError;
use crate::patch::base::{ReadAt, at_once, block_digest};
use crate::patch::header::{BlockDigest, Identity};

/// Where the target goes. What was written is read again, since later parts may be copies of
/// earlier ones.
pub trait Output: ReadAt + Send {
    /// Takes the next checked bytes, which belong at `offset`.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// How many bytes are there that an earlier run may have left. The target goes on behind those
    /// of them that are right.
    fn left(&self) -> io::Result<u64> {
        Ok(0)
    }

    /// Removes what was left from `offset` on.
    fn cut(&mut self, _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Output for std::fs::File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn left(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn cut(&mut self, offset: u64) -> io::Result<()> {
        self.set_len(offset)
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

    fn left(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn cut(&mut self, offset: u64) -> io::Result<()> {
        self.truncate(usize::try_from(offset).unwrap_or(usize::MAX));
        Ok(())
    }
}

/// Blocks that are in memory at once: one is gathered while the other is checked and written.
pub(crate) const AT_ONCE: u64 = 2;

/// How much is written at once, in bytes.
const WRITTEN_AT_ONCE: usize = 256 << 10;

/// What is written so far.
pub(crate) struct Written<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
}

struct State<'a> {
    output: &'a mut dyn Output,
    /// How much of the target is there.
    end: u64,
    /// Why no more will be written.
    failed: Option<ApplyError>,
    /// Whether no more will be written.
    is_over: bool,
}

impl<'a> Written<'a> {
    /// With the first `end` bytes of the target there already.
    pub(crate) fn new(output: &'a mut dyn Output, end: u64) -> Self {
        Self {
            state: Mutex::new(State {
                output,
                end,
                failed: None,
                is_over: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why no more was written.
    pub(crate) fn failure(&self) -> Option<ApplyError> {
        self.lock().failed.take()
    }

    /// Writes the next bytes if they are right; whether they are there now. Whoever wants to read waits
    /// for a piece of them at most.
    fn write(&self, bytes: &[u8], are_right: bool) -> bool {
        bytes.chunks(WRITTEN_AT_ONCE).all(|piece| {
            let mut state = self.lock();
            let offset = state.end;
            let written = if are_right {
                let written = state.output.write_all_at(piece, offset);
                written.map_err(ApplyError::Write)
            } else {
                Err(ApplyError::Wrong { offset })
            };
            match written {
                Ok(()) => state.end += piece.len() as u64,
                Err(error) => state.failed = Some(error),
            }
            let is_there = state.failed.is_none();
            drop(state);
            self.changed.notify_all();
            is_there
        })
    }

    /// Reads what was written, once it is.
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), ApplyError> {
        let end = offset + buffer.len() as u64;
        let mut state = self.lock();
        while state.end < end {
            if let Some(failed) = state.failed.take() {
                return Err(failed);
            }
            if state.is_over {
                return Err(ApplyError::Write(io::ErrorKind::BrokenPipe.into()));
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let read = state.output.read_exact_at(buffer, offset);
        read.map_err(ApplyError::ReadBack)
    }
}

/// Tells that no more will be written, even if that is for a panic: nobody waits for it then.
struct Over<'w, 'a>(&'w Written<'a>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

/// The thread that checks and writes.
pub(crate) struct Checker {
    complete: Receiver<Block>,
    empty: SyncSender<Box<[u8]>>,
}

impl Checker {
    /// Writes blocks as they come, until no more come or one is wrong.
    pub(crate) fn run(self, written: &Written<'_>, mut is_right: impl FnMut(&Block) -> bool) {
        let _over = Over(written);
        for block in &self.complete {
            if !written.write(block.bytes(), is_right(&block)) {
                break;
            }
            // Nobody waits for it when the target is complete.
            let _ = self.empty.send(block.room);
        }
    }
}

/// A block that is complete.
pub(crate) struct Block {
    room: Box<[u8]>,
    len: usize,
}

impl Block {
    fn bytes(&self) -> &[u8] {
        &self.room[..self.len]
    }
}

/// The digests that blocks must have, and their whole.
pub(crate) struct Digests<'a> {
    wanted: std::slice::Iter<'a, BlockDigest>,
    whole: Sha256,
    /// The digest of a whole block that is empty: much of a file system is.
    blank: Option<BlockDigest>,
}

impl<'a> Digests<'a> {
    /// Of the blocks behind what `whole` is of.
    pub(crate) fn new(wanted: &'a [BlockDigest], whole: Sha256) -> Self {
        Self {
            wanted: wanted.iter(),
            whole,
            blank: None,
        }
    }

    /// Whether the next block has the next digest.
    pub(crate) fn have(&mut self, block: &Block) -> bool {
        let bytes = block.bytes();
        let digest = || block_digest(&Sha256::digest(bytes));
        let is_blank = block.len == block.room.len() && bytes.iter().all(|&byte| byte == 0);
        let digest = if is_blank {
            *self.blank.get_or_insert_with(digest)
        } else {
            digest()
        };
        let is_right = self.wanted.next() == Some(&digest);
        if is_right {
            self.whole.update(bytes);
        }
        is_right
    }

    /// Whether all blocks together are the target.
    pub(crate) fn are_whole(self, target: &Identity) -> Result<(), ApplyError> {
        if self.whole.finalize()[..] == target.sha256 {
            Ok(())
        } else {
            Err(ApplyError::Wrong { offset: 0 })
        }
    }
}

/// Gathers blocks and hands them on.
pub(crate) struct Blocks<'a> {
    written: &'a Written<'a>,
    complete: SyncSender<Block>,
    empty: Receiver<Box<[u8]>>,
    len: u64,
    /// The block that is being gathered.
    block: Box<[u8]>,
    filled: usize,
    /// Where that block begins, or how much was passed over.
    start: u64,
    /// How much an earlier run left, in whole blocks.
    there: u64,
}

impl<'a> Blocks<'a> {
    /// Of a target of `len` bytes, in blocks of `block` bytes as a power of two; and who checks them.
    pub(crate) fn new(written: &'a Written<'a>, len: u64, block: u32) -> (Self, Checker) {
        let there = written.lock().end;
        let size = usize::try_from(len).unwrap_or(usize::MAX).min(1 << block);
        let (complete, completed) = mpsc::sync_channel(1);
        let (emptied, empty) = mpsc::sync_channel(2);
        for _ in 1..AT_ONCE {
            let _ = emptied.send(vec![0; size].into());
        }
        let blocks = Self {
            written,
            complete,
            empty,
            len,
            block: vec![0; size].into(),
            filled: 0,
            start: 0,
            there,
        };
        let checker = Checker {
            complete: completed,
            empty: emptied,
        };
        (blocks, checker)
    }

    /// How much there is already.
    pub(crate) fn position(&self) -> u64 {
        self.start + self.filled as u64
    }

    /// How many of the next bytes an earlier run left.
    pub(crate) fn left(&self) -> u64 {
        self.there.saturating_sub(self.position())
    }

    /// Passes over the next bytes as far as an earlier run left them, at most `most`; how many.
    pub(crate) fn pass(&mut self, most: u64) -> u64 {
        let len = self.left().min(most);
        self.start += len;
        len
    }

    /// Room for the next bytes, at most `most`, behind all that an earlier run left. It is never empty
    /// but when all is there.
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

    /// Takes bytes from elsewhere, but for those that an earlier run left.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), ApplyError> {
        let passed = self.pass(bytes.len() as u64);
        bytes = &bytes[usize::try_from(passed).expect("it is no more than there is")..];
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
        if self.filled == 0 {
            return Ok(());
        }
        let len = self.filled;
        let next = self.empty.recv().ok();
        let sent = next.map(|next| {
            let room = std::mem::replace(&mut self.block, next);
            self.complete.send(Block { room, len })
        });
        if !matches!(sent, Some(Ok(()))) {
            let failed = self.written.failure();
            return Err(failed.unwrap_or(ApplyError::damaged("it goes on behind its end")));
        }
        self.start += len as u64;
        self.filled = 0;
        Ok(())
    }

    /// Reads what an earlier run left, also what was not passed over yet.
    pub(crate) fn read_left(&self, buffer: &mut [u8], offset: u64) -> Result<(), ApplyError> {
        self.written.read(buffer, offset)
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
            self.written.read(old, offset)?;
        }
        if !new.is_empty() {
            let at = usize::try_from(offset + before as u64 - self.start);
            let at = at.expect("it is within the block");
            new.copy_from_slice(&self.block[at..at + new.len()]);
        }
        Ok(())
    }

    /// Ends the target; all of it must be there.
    pub(crate) fn finish(self) -> Result<(), ApplyError> {
        if self.position() != self.len {
            return Err(ApplyError::damaged("it makes less than the target"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that no byte arrives in.
    struct Panics;

    impl ReadAt for Panics {
        fn read_exact_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output for Panics {
        fn write_all_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
            panic!("told to")
        }
    }

    #[test]
    fn who_reads_what_was_written_does_not_wait_for_a_thread_that_panicked() {
        let digest = block_digest(&Sha256::digest([0; 1 << 12]));
        let mut output = Panics;
        let written = Written::new(&mut output, 0);
        let (mut blocks, checker) = Blocks::new(&written, 2 << 12, 12);
        let wanted = [digest; 2];
        let mut digests = Digests::new(&wanted, Sha256::new());
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| checker.run(&written, |block| digests.have(block)));
            blocks.write(&[0; 1 << 12]).unwrap();
            let read = blocks.read(&mut [0], 0);
            assert!(matches!(read, Err(ApplyError::Write(_))), "{read:?}");
            assert!(thread.join().is_err());
        });
    }
}

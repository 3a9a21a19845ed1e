//! The base: read at random, and each block checked before the first byte of it is used. Most of it is
//! used in order, so a thread can check the next blocks meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::patch::apply::ApplyError;
use crate::patch::header::{BlockDigest, DIGEST};

/// How much is read at once for checking, in bytes.
const CHECKED_AT_ONCE: usize = 128 << 10;

/// What checking takes in memory, ahead and when it is needed, in bytes.
pub(crate) const MEMORY: u64 = 2 * CHECKED_AT_ONCE as u64;

/// How many blocks are checked ahead. What was read for it should still be in the system's memory when it
/// is used.
const AHEAD: usize = 16;

/// Bytes that are read by their place.
pub trait ReadAt: Sync {
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

/// Which blocks of a base are what they should be.
pub(crate) struct Checks<'a> {
    bytes: &'a dyn ReadAt,
    len: u64,
    block: u32,
    digests: Vec<Option<BlockDigest>>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    blocks: Vec<Check>,
    /// Which block was asked for last.
    asked: Option<usize>,
    /// Whether no more will be asked for.
    is_over: bool,
}

/// How far the check of a block is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Needed,
    Underway,
    Done,
}

impl<'a> Checks<'a> {
    /// Of blocks that are taken as they are if there are no doubts.
    pub(crate) fn new(
        bytes: &'a dyn ReadAt,
        len: u64,
        block: u32,
        digests: Vec<Option<BlockDigest>>,
        has_doubts: bool,
    ) -> Self {
        let check = if has_doubts {
            Check::Needed
        } else {
            Check::Done
        };
        let progress = Progress {
            blocks: vec![check; digests.len()],
            asked: None,
            is_over: false,
        };
        Self {
            bytes,
            len,
            block,
            digests,
            progress: Mutex::new(progress),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(&self, progress: MutexGuard<'g, Progress>) -> MutexGuard<'g, Progress> {
        let waited = self.changed.wait(progress);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the blocks behind the one that was asked for last, until no more is asked for or one is
    /// wrong. Whoever asks for that one finds it out again, so that nothing depends on how fast this is.
    pub(crate) fn run_ahead(&self) {
        let mut progress = self.lock();
        while !progress.is_over {
            let next = progress.asked.and_then(|asked| {
                let end = progress.blocks.len().min(asked + AHEAD);
                let is_needed = |at: &usize| progress.blocks[*at] == Check::Needed;
                (asked..end).find(|at| is_needed(at) && self.digests[*at].is_some())
            });
            let Some(next) = next else {
                progress = self.wait(progress);
                continue;
            };
            if self.check(progress, next).is_err() {
                return;
            }
            progress = self.lock();
        }
    }

    /// Returns when a block is known to be right.
    fn ask(&self, at: usize) -> Result<(), ApplyError> {
        let mut progress = self.lock();
        progress.asked = Some(at);
        self.changed.notify_all();
        loop {
            match progress.blocks[at] {
                Check::Done => return Ok(()),
                Check::Underway => progress = self.wait(progress),
                Check::Needed => return self.check(progress, at),
            }
        }
    }

    /// Checks a block while others may ask for others.
    fn check(&self, mut progress: MutexGuard<'_, Progress>, at: usize) -> Result<(), ApplyError> {
        progress.blocks[at] = Check::Underway;
        drop(progress);
        // It is told even if reading panics.
        let mut told = Told {
            checks: self,
            at,
            check: Check::Needed,
        };
        self.compare(at)?;
        told.check = Check::Done;
        Ok(())
    }

    fn compare(&self, at: usize) -> Result<(), ApplyError> {
        let Some(digest) = self.digests[at] else {
            return Err(ApplyError::damaged(
                "it uses a block of the base that it does not name",
            ));
        };
        let start = (at as u64) << self.block;
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
        Ok(())
    }
}

/// Tells what became of the check of a block.
struct Told<'c, 'a> {
    checks: &'c Checks<'a>,
    at: usize,
    check: Check,
}

impl Drop for Told<'_, '_> {
    fn drop(&mut self) {
        self.checks.lock().blocks[self.at] = self.check;
        self.checks.changed.notify_all();
    }
}

/// A base that shows nothing unchecked.
pub(crate) struct Base<'a> {
    checks: &'a Checks<'a>,
    /// Blocks that were asked for already.
    checked: Vec<bool>,
}

impl<'a> Base<'a> {
    pub(crate) fn new(checks: &'a Checks<'a>) -> Self {
        Self {
            checked: vec![false; checks.digests.len()],
            checks,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.checks.len
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), ApplyError> {
        let end = offset.checked_add(buffer.len() as u64);
        let end = end.filter(|&end| end <= self.len());
        let Some(end) = end else {
            return Err(ApplyError::damaged("it copies from beyond the base"));
        };
        if buffer.is_empty() {
            return Ok(());
        }
        let block = self.checks.block;
        for block in offset >> block..=(end - 1) >> block {
            let at = usize::try_from(block).expect("there are as many digests as blocks");
            if !self.checked[at] {
                self.checks.ask(at)?;
                self.checked[at] = true;
            }
        }
        let read = self.checks.bytes.read_exact_at(buffer, offset);
        read.map_err(ApplyError::Base)
    }
}

impl Drop for Base<'_> {
    /// Who checks ahead ends, too.
    fn drop(&mut self) {
        self.checks.lock().is_over = true;
        self.checks.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    const BLOCK: usize = 1 << 12;

    /// A base that counts what is read of it, and panics behind its bytes.
    struct Counted {
        bytes: Vec<u8>,
        read: AtomicU64,
    }

    impl ReadAt for Counted {
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.read.fetch_add(buffer.len() as u64, Ordering::SeqCst);
            assert!(offset < self.bytes.len() as u64, "told to");
            self.bytes[..].read_exact_at(buffer, offset)
        }
    }

    fn counted(blocks: usize) -> Counted {
        Counted {
            bytes: (0..BLOCK * blocks)
                .map(|i| u8::try_from(i / 1000 % 251).unwrap())
                .collect(),
            read: AtomicU64::new(0),
        }
    }

    fn checks(base: &Counted, blocks: usize) -> Checks<'_> {
        let digest = |block: &[u8]| Some(block_digest(&Sha256::digest(block)));
        let mut digests: Vec<_> = base.bytes.chunks(BLOCK).map(digest).collect();
        digests.resize(blocks, Some([0; DIGEST]));
        Checks::new(base, (BLOCK * blocks) as u64, 12, digests, true)
    }

    /// What comes of reading all blocks in order while others are checked ahead.
    fn read(checks: &Checks<'_>, blocks: usize) -> Vec<Result<(), ApplyError>> {
        thread::scope(|scope| {
            let ahead = scope.spawn(|| checks.run_ahead());
            let mut base = Base::new(checks);
            let mut buffer = [0; BLOCK];
            let read = (0..blocks).map(|at| base.read(&mut buffer, (at * BLOCK) as u64));
            let read = read.collect();
            drop(base);
            ahead.join().unwrap();
            read
        })
    }

    #[test]
    fn each_block_is_checked_once_whoever_does_it() {
        let base = counted(100);
        let results = read(&checks(&base, 100), 100);
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(base.read.into_inner(), 2 * 100 * BLOCK as u64);
    }

    #[test]
    fn a_wrong_block_is_told_to_who_asks_for_it() {
        for wrong in [0, 1, 20, 99] {
            let mut base = counted(100);
            let mut checks = checks(&base, 100).digests;
            base.bytes[wrong * BLOCK] ^= 1;
            checks[50] = None;
            let checks = Checks::new(&base, (100 * BLOCK) as u64, 12, checks, true);
            for (at, result) in read(&checks, 100).into_iter().enumerate() {
                match result {
                    Err(ApplyError::OtherBase { offset }) => {
                        assert_eq!((at, offset), (wrong, (wrong * BLOCK) as u64));
                    }
                    Err(_) => assert_eq!(at, 50, "the patch does not name it"),
                    Ok(()) => assert!(at != wrong && at != 50),
                }
            }
        }
    }

    #[test]
    fn not_more_than_some_blocks_are_checked_ahead() {
        let base = counted(100);
        let checks = checks(&base, 100);
        thread::scope(|scope| {
            scope.spawn(|| checks.run_ahead());
            let mut reader = Base::new(&checks);
            reader.read(&mut [0], 0).unwrap();
            let mut progress = checks.lock();
            while progress.blocks[AHEAD - 1] != Check::Done {
                progress = checks.wait(progress);
            }
            let done = |check: &&Check| **check != Check::Needed;
            assert_eq!(progress.blocks.iter().filter(done).count(), AHEAD);
            drop(progress);
        });
    }

    #[test]
    fn who_waits_for_a_check_is_not_left_alone_when_it_panics() {
        let base = counted(1);
        let checks = checks(&base, 2);
        checks.lock().asked = Some(0);
        let ahead = thread::scope(|scope| scope.spawn(|| checks.run_ahead()).join());
        assert!(ahead.is_err());
        assert!(checks.lock().blocks[1] == Check::Needed);
    }
}

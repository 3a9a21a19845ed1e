//! What an earlier run left of the target: as much of it as is right.
//!
//! Nothing says how far that run came: its blocks are compared with the patch's digests. After a cut the
//! last block may be torn, and after a loss of power any may be missing.

use std::thread;

use sha2::{Digest, Sha256};

use crate::patch::apply::ApplyError;
use crate::patch::base::{at_once, block_digest};
use crate::patch::blocks::Output;
use crate::patch::header::Header;

/// The blocks that are there, up to the first that is not.
pub(crate) struct Leftover {
    /// Their length in bytes.
    pub(crate) len: u64,
    /// How many there are.
    pub(crate) blocks: usize,
    /// The digest of them as a whole, to go on with.
    pub(crate) whole: Sha256,
}

impl Leftover {
    /// Looks through an output, and removes what is behind the blocks that are right. Takes a block
    /// in memory.
    pub(crate) fn find(output: &mut dyn Output, header: &Header) -> Result<Self, ApplyError> {
        let left = output.left().map_err(ApplyError::ReadBack)?;
        let mut found = Self {
            len: 0,
            blocks: 0,
            whole: Sha256::new(),
        };
        let target = header.target.len;
        let mut block = vec![0; at_once(left.min(target), 1 << header.target_block)];
        for wanted in &header.target_digests {
            let len = at_once(target - found.len, 1 << header.target_block);
            let end = found.len + len as u64;
            // What cannot be read is written again.
            if end > left || output.read_exact_at(&mut block[..len], found.len).is_err() {
                break;
            }
            let bytes = &block[..len];
            let mut whole = found.whole.clone();
            let digest = thread::scope(|scope| {
                scope.spawn(|| whole.update(bytes));
                block_digest(&Sha256::digest(bytes))
            });
            if digest != *wanted {
                break;
            }
            found.len = end;
            found.blocks += 1;
            found.whole = whole;
        }
        if left > found.len {
            output.cut(found.len).map_err(ApplyError::Write)?;
        }
        Ok(found)
    }
}

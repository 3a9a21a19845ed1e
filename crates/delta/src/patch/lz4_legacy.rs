//! LZ4's legacy frame: blocks that know nothing of each other, packed side by side where there is
//! memory for it.

use std::collections::VecDeque;
use std::thread::{self, JoinHandle};

use lz4::block::CompressionMode;

use crate::patch::codec::CodecError;
use crate::patch::unpack::{LZ4_BLOCK, LZ4_MAGIC};

/// What packing a block takes, in bytes: the block, what it is packed to, and the library's tables.
const BLOCK_MEMORY: u64 = 2 * (LZ4_BLOCK as u64) + (512 << 10);

/// How many blocks are packed at once where there is memory.
const AT_ONCE: u64 = 2;

/// What packing takes in memory at least, in bytes.
pub(crate) const LEAST_MEMORY: u64 = BLOCK_MEMORY;

/// What packing blocks side by side takes in memory, in bytes. `None` if `len` plain bytes are a single
/// block.
pub(crate) fn memory_of_two(len: u64) -> Option<u64> {
    (len > LZ4_BLOCK as u64).then_some(AT_ONCE * BLOCK_MEMORY)
}

/// A block that a thread packs: it gives back the room of the plain bytes, and the packed ones.
type Packing = JoinHandle<Result<(Vec<u8>, Vec<u8>), CodecError>>;

/// A frame that grows.
pub(crate) struct Encoder {
    level: u8,
    has_begun: bool,
    /// The block that is being gathered.
    plain: Vec<u8>,
    /// Whether blocks are packed side by side.
    has_threads: bool,
    /// The blocks that are being packed, in order.
    packing: VecDeque<Packing>,
}

impl Encoder {
    /// With so much memory, [`LEAST_MEMORY`] or more.
    pub(crate) fn new(level: u8, memory: u64) -> Self {
        Self {
            level,
            has_begun: false,
            plain: Vec::new(),
            has_threads: memory >= AT_ONCE * BLOCK_MEMORY,
            packing: VecDeque::new(),
        }
    }

    /// Takes content and appends what is packed of it so far.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        while !bytes.is_empty() {
            if self.plain.is_empty() && self.packing.len() as u64 == AT_ONCE {
                self.plain = self.oldest(out)?;
            }
            let len = bytes.len().min(LZ4_BLOCK - self.plain.len());
            self.plain.extend_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            if self.plain.len() == LZ4_BLOCK {
                self.pack(out)?;
            }
        }
        Ok(())
    }

    /// Appends some of the rest; whether that was all of it.
    pub(crate) fn rest(&mut self, out: &mut Vec<u8>) -> Result<bool, CodecError> {
        self.begin(out);
        if !self.plain.is_empty() {
            self.pack(out)?;
        }
        self.oldest(out)?;
        Ok(self.packing.is_empty())
    }

    /// Packs the block that was gathered, or has it packed.
    fn pack(&mut self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.begin(out);
        let level = self.level;
        if !self.has_threads {
            block(level, &self.plain, out)?;
            self.plain.clear();
            return Ok(());
        }
        let mut plain = std::mem::take(&mut self.plain);
        // What an earlier block was packed to has gone: its room is used again.
        let mut packed = if out.is_empty() {
            std::mem::take(out)
        } else {
            Vec::new()
        };
        let pack = move || {
            block(level, &plain, &mut packed)?;
            plain.clear();
            Ok((plain, packed))
        };
        let thread = thread::Builder::new().spawn(pack);
        let thread = thread.map_err(|_| CodecError::Pack("no thread"))?;
        self.packing.push_back(thread);
        Ok(())
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.has_begun, true) {
            out.extend_from_slice(&LZ4_MAGIC);
        }
    }

    /// Waits for the oldest block that is being packed; room for another.
    fn oldest(&mut self, out: &mut Vec<u8>) -> Result<Vec<u8>, CodecError> {
        let Some(oldest) = self.packing.pop_front() else {
            return Ok(Vec::new());
        };
        let packed = oldest.join();
        let (plain, mut packed) = packed.map_err(|_| CodecError::Pack("a thread failed"))??;
        if out.is_empty() {
            *out = packed;
        } else {
            out.append(&mut packed);
        }
        Ok(plain)
    }
}

impl Drop for Encoder {
    /// No thread outlives it, nor what it takes.
    fn drop(&mut self) {
        for packing in self.packing.drain(..) {
            // Nobody asks for it any more.
            let _ = packing.join();
        }
    }
}

/// Appends a packed block and its length in front.
fn block(level: u8, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let failed = |_| CodecError::Pack("LZ4 takes no more");
    let most = lz4::block::compress_bound(plain.len()).map_err(failed)?;
    let how = CompressionMode::HIGHCOMPRESSION(level.into());
    let head = out.len();
    let mut pack = |room: usize| {
        out.resize(head + 4 + room, 0);
        lz4::block::compress_to_buffer(plain, Some(how), false, &mut out[head + 4..])
    };
    // Most content fits into half, and the other half of the room is not touched then.
    let len = pack(most / 2).or_else(|_| pack(most)).map_err(failed)?;
    let packed = u32::try_from(len).map_err(|_| CodecError::Pack("a block is too long"))?;
    out[head..head + 4].copy_from_slice(&packed.to_le_bytes());
    out.truncate(head + 4 + len);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs in pieces of `cut` bytes with so much memory.
    fn packed(plain: &[u8], cut: usize, memory: u64) -> Vec<u8> {
        let mut encoder = Encoder::new(9, memory);
        let (mut all, mut out) = (Vec::new(), Vec::new());
        for bytes in plain.chunks(cut) {
            encoder.push(bytes, &mut out).unwrap();
            all.append(&mut out);
        }
        while !encoder.rest(&mut out).unwrap() {
            all.append(&mut out);
        }
        all.append(&mut out);
        all
    }

    #[test]
    fn blocks_are_packed_side_by_side_to_the_same_bytes() {
        let plain: Vec<u8> = (0..4_500_000_u32).flat_map(u32::to_le_bytes).collect();
        for len in [0, 1, LZ4_BLOCK, plain.len()] {
            let plain = &plain[..len];
            let alone = packed(plain, 64 << 10, LEAST_MEMORY);
            for cut in [64 << 10, usize::MAX] {
                assert!(packed(plain, cut, u64::MAX) == alone, "{len} {cut}");
            }
        }
    }

    #[test]
    fn an_encoder_that_is_dropped_leaves_no_thread_behind() {
        let plain = vec![7; 2 * LZ4_BLOCK];
        let mut encoder = Encoder::new(9, u64::MAX);
        encoder.push(&plain, &mut Vec::new()).unwrap();
        assert_eq!(encoder.packing.len(), 2);
        drop(encoder);
    }

    #[test]
    fn a_thread_that_fails_is_an_error() {
        let failed = || Err(CodecError::Pack("told to"));
        let panics = || -> Result<_, _> { panic!("told to") };
        for thread in [thread::spawn(failed), thread::spawn(panics)] {
            let mut encoder = Encoder::new(9, u64::MAX);
            encoder.packing.push_back(thread);
            assert!(encoder.rest(&mut Vec::new()).is_err());
        }
    }
}

//! Packs bits into bytes, the first bit lowest (RFC 1951, 3.1.1).

use std::io::{self, Write};

/// Bytes that are kept until they are worth a write.
const ENOUGH: usize = 8 << 10;

/// Bits on their way out.
#[derive(Debug)]
pub(crate) struct Bits {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet, the oldest lowest.
    held: u64,
    /// How many, below 32 between calls.
    count: u32,
}

impl Bits {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(ENOUGH + size_of::<u64>()),
            held: 0,
            count: 0,
        }
    }

    /// Adds the lowest `count` bits of `value`, at most 32; the others are zero.
    #[inline]
    pub(crate) fn put(&mut self, value: u32, count: u32) {
        debug_assert!(count <= 32 && u64::from(value) >> count == 0);
        self.held |= u64::from(value) << self.count;
        self.count += count;
        if self.count >= 32 {
            let [a, b, c, d, ..] = self.held.to_le_bytes();
            self.bytes.extend_from_slice(&[a, b, c, d]);
            self.held >>= 32;
            self.count -= 32;
        }
    }

    /// Adds a code: its bits, and how many.
    #[inline]
    pub(crate) fn put_code(&mut self, (bits, count): (u32, u32)) {
        self.put(bits, count);
    }

    /// Fills the last byte with zeros.
    pub(crate) fn align(&mut self) {
        while self.count > 0 {
            let [lowest, ..] = self.held.to_le_bytes();
            self.bytes.push(lowest);
            self.held >>= 8;
            self.count = self.count.saturating_sub(8);
        }
    }

    /// Writes out what has gathered, if it is enough.
    #[inline]
    pub(crate) fn spill(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.bytes.len() < ENOUGH {
            return Ok(());
        }
        self.drain(out)
    }

    /// Writes out all whole bytes.
    pub(crate) fn drain(&mut self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bit_is_the_lowest() {
        let mut bits = Bits::new();
        bits.put(0b1, 1);
        bits.put(0b01, 2);
        bits.put(0b1_1110_0000, 9);
        bits.align();
        bits.put(0xffff_fffe, 32);
        bits.align();
        let mut out = Vec::new();
        bits.drain(&mut out).unwrap();
        assert_eq!(out, [0b0000_0011, 0b1111, 0xfe, 0xff, 0xff, 0xff]);
    }
}

//! Unpacks a block of LZ4 as its bytes come, with no more memory than a match may look back on: 64 KiB,
//! where the library wants the whole block on both sides.

use crate::patch::codec::CodecError;
use crate::patch::unpack::Progress;

/// How far a match may be behind, in bytes.
const BEHIND: usize = 64 << 10;

/// What unpacking takes in memory, in bytes.
pub(crate) const MEMORY: u64 = 3 * BEHIND as u64;

/// A length of 15 in the token goes on in bytes of its own.
const GOES_ON: usize = 15;

/// Shortest match in bytes.
const SHORTEST: usize = 4;

const DAMAGED: CodecError = CodecError::Unpack("a block is damaged");

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Token,
    LiteralsLen,
    Literals,
    /// The offset's first byte; the block may end here.
    Offset,
    OffsetEnd,
    MatchLen,
    Match,
}

/// A block on its way.
pub(crate) struct Block {
    next: Next,
    /// Plain bytes that the block may yet have.
    room: usize,
    literals: usize,
    offset: usize,
    matched: usize,
    /// What was made, the last of which a match may be; none of it is from another block.
    plain: Vec<u8>,
    /// How much of that was handed out.
    taken: usize,
}

impl Block {
    /// A block of at most `most` plain bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self::with(most, Vec::with_capacity(2 * BEHIND))
    }

    /// Begins with the next block, in the same memory.
    pub(crate) fn restart(&mut self, most: usize) {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        *self = Self::with(most, plain);
    }

    fn with(most: usize, plain: Vec<u8>) -> Self {
        Self {
            next: Next::Token,
            room: most,
            literals: 0,
            offset: 0,
            matched: 0,
            plain,
            taken: 0,
        }
    }

    /// Whether the block may end behind what was taken of its bytes.
    pub(crate) fn may_end(&self) -> bool {
        self.next == Next::Offset
    }

    /// Whether everything that was made was handed out.
    pub(crate) fn is_drained(&self) -> bool {
        self.taken == self.plain.len()
    }

    /// Takes from `input` and fills `output`, both as far as it goes.
    pub(crate) fn unpack(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<Progress, CodecError> {
        let mut progress = Progress::default();
        loop {
            progress.made += self.hand_out(&mut output[progress.made..]);
            let is_full = progress.made == output.len();
            if is_full && !self.is_drained() {
                return Ok(progress);
            }
            let before = progress.took;
            progress.took += self.make(&input[progress.took..])?;
            if is_full || progress.took == before && self.is_drained() {
                return Ok(progress);
            }
        }
    }

    fn hand_out(&mut self, output: &mut [u8]) -> usize {
        let ready = &self.plain[self.taken..];
        let len = ready.len().min(output.len());
        output[..len].copy_from_slice(&ready[..len]);
        self.taken += len;
        len
    }

    /// Makes plain bytes until there is no room or nothing to make them of; how much of the input was
    /// taken.
    fn make(&mut self, input: &[u8]) -> Result<usize, CodecError> {
        if self.is_drained() && self.plain.len() > BEHIND {
            let gone = self.plain.len() - BEHIND;
            self.plain.drain(..gone);
            self.taken = BEHIND;
        }
        let mut at = 0;
        loop {
            let space = (2 * BEHIND).saturating_sub(self.plain.len());
            if self.next == Next::Match {
                let len = self.matched.min(space);
                self.copy(len);
                self.matched -= len;
                if self.matched > 0 {
                    return Ok(at);
                }
                self.next = Next::Token;
            }
            if self.next == Next::Literals {
                let len = self.literals.min(space).min(input.len() - at);
                self.plain.extend_from_slice(&input[at..at + len]);
                at += len;
                self.literals -= len;
                if self.literals > 0 {
                    return Ok(at);
                }
                self.next = Next::Offset;
            }
            let Some(&byte) = input.get(at) else {
                return Ok(at);
            };
            at += 1;
            self.byte(byte.into())?;
        }
    }

    /// Takes a byte that is no literal.
    fn byte(&mut self, byte: usize) -> Result<(), CodecError> {
        match self.next {
            Next::Token => {
                (self.literals, self.matched) = (byte >> 4, byte & 15);
                if self.literals == GOES_ON {
                    self.next = Next::LiteralsLen;
                } else {
                    self.begin_literals()?;
                }
            }
            Next::LiteralsLen => {
                self.literals += byte;
                if self.literals > self.room {
                    return Err(DAMAGED);
                }
                if byte != 255 {
                    self.begin_literals()?;
                }
            }
            Next::Offset => {
                self.offset = byte;
                self.next = Next::OffsetEnd;
            }
            Next::OffsetEnd => {
                self.offset |= byte << 8;
                if self.offset == 0 || self.offset > self.plain.len() {
                    return Err(DAMAGED);
                }
                if self.matched == GOES_ON {
                    self.next = Next::MatchLen;
                } else {
                    self.begin_match()?;
                }
            }
            Next::MatchLen => {
                self.matched += byte;
                if self.matched > self.room {
                    return Err(DAMAGED);
                }
                if byte != 255 {
                    self.begin_match()?;
                }
            }
            Next::Literals | Next::Match => unreachable!("these take no byte"),
        }
        Ok(())
    }

    fn begin_literals(&mut self) -> Result<(), CodecError> {
        self.room = self.room.checked_sub(self.literals).ok_or(DAMAGED)?;
        self.next = Next::Literals;
        Ok(())
    }

    fn begin_match(&mut self) -> Result<(), CodecError> {
        self.matched += SHORTEST;
        self.room = self.room.checked_sub(self.matched).ok_or(DAMAGED)?;
        self.next = Next::Match;
        Ok(())
    }

    /// Appends bytes of the match, which may go over into what it makes.
    fn copy(&mut self, mut len: usize) {
        let from = self.plain.len() - self.offset;
        while len > 0 {
            let now = len.min(self.plain.len() - from);
            self.plain.extend_from_within(from..from + now);
            len -= now;
        }
    }
}

#[cfg(test)]
mod tests {
    use lz4::block::{CompressionMode, compress, decompress};
    use proptest::prelude::*;

    use super::*;

    /// Unpacks with input and output cut as told.
    fn unpacked(packed: &[u8], most: usize, cuts: (usize, usize)) -> Result<Vec<u8>, CodecError> {
        let mut block = Block::new(most);
        let (mut at, mut plain) = (0, Vec::new());
        let mut output = vec![0; cuts.1];
        loop {
            let end = packed.len().min(at + cuts.0);
            let progress = block.unpack(&packed[at..end], &mut output)?;
            plain.extend_from_slice(&output[..progress.made]);
            at += progress.took;
            if progress == Progress::default() {
                let is_whole = at == packed.len() && block.may_end() && block.is_drained();
                return if is_whole { Ok(plain) } else { Err(DAMAGED) };
            }
        }
    }

    fn text(len: usize) -> Vec<u8> {
        let word = |i: usize| format!("{} ", i * i % 977 * (i / 5000 + 1));
        (0..).flat_map(|i| word(i).into_bytes()).take(len).collect()
    }

    #[test]
    fn blocks_of_the_library_are_unpacked_however_they_are_cut() {
        let mut noise = text(300_000);
        for (i, byte) in noise.iter_mut().enumerate() {
            *byte = byte.wrapping_mul(u8::try_from(i * i / 7 % 256).unwrap() | 1);
        }
        for plain in [text(0), text(1), text(700_000), vec![7; 500_000], noise] {
            let how = CompressionMode::HIGHCOMPRESSION(9);
            let packed = compress(&plain, Some(how), false).unwrap();
            for cuts in [(1, 100_000), (70_001, 1), (4096, 4096), (1 << 20, 1 << 20)] {
                let made = unpacked(&packed, plain.len(), cuts).unwrap();
                assert!(made == plain, "{} {cuts:?}", plain.len());
            }
            if !plain.is_empty() {
                assert!(unpacked(&packed, plain.len() - 1, (4096, 4096)).is_err());
            }
            assert!(unpacked(&packed[..packed.len() - 1], plain.len(), (9, 9)).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_what_the_library_gives(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..20], 1..200),
            most in 0_usize..5000,
        ) {
            let ours = unpacked(&bytes, most, (7, 13));
            let most = i32::try_from(most).unwrap();
            // The library wants the last bytes of a block to be literals, too.
            if let Ok(theirs) = decompress(&bytes, Some(most)) {
                prop_assert_eq!(ours.unwrap(), theirs);
            }
        }
    }
}

//! Where the three bytes at a position stood before, and the longest match among those places.

use crate::codes::{MAX_MATCH, MIN_MATCH};
use crate::level::{Effort, Flavour};
use crate::window::{FARTHEST, HALF, SIZE, Window, boxed};

/// Bits of a hash of three bytes.
const HASH_BITS: u32 = 15;
/// How many hashes there are.
const HASHES: usize = 1 << HASH_BITS;
/// How far each byte moves the hash: when three others have come, nothing is left of a byte.
const SHIFT: u32 = HASH_BITS / 3;

/// The end of a chain. Position 0 is never a match for this reason.
const NOWHERE: usize = 0;

/// A match that was found before the current position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match {
    pub(crate) length: usize,
    /// Where it begins. Without meaning if the length is below [`MIN_MATCH`].
    pub(crate) start: usize,
}

impl Match {
    /// One that is too short to be taken.
    pub(crate) const NONE: Self = Self {
        length: MIN_MATCH - 1,
        start: 0,
    };

    /// Whether it is long enough to be taken.
    pub(crate) fn is_one(&self) -> bool {
        self.length >= MIN_MATCH
    }
}

/// For each hash the positions that have it, the latest first.
#[derive(Debug)]
pub(crate) struct Chains {
    heads: Box<[u16; HASHES]>,
    /// The position before, by position modulo [`HALF`].
    before: Box<[u16; HALF]>,
    /// The hash of the bytes that were seen last.
    hash: usize,
}

impl Chains {
    pub(crate) fn new() -> Self {
        Self {
            heads: boxed(0),
            before: boxed(0),
            hash: 0,
        }
    }

    /// Begins anew with the first two of the three bytes at a position.
    pub(crate) fn restart(&mut self, bytes: &[u8; SIZE], position: usize) {
        self.hash = bytes.get(position).copied().unwrap_or_default().into();
        self.roll(bytes.get(position + 1).copied().unwrap_or_default());
    }

    #[inline]
    fn roll(&mut self, byte: u8) {
        self.hash = (self.hash << SHIFT ^ usize::from(byte)) % HASHES;
    }

    /// Remembers `position`, and returns the latest one before it with the same three bytes.
    #[inline]
    pub(crate) fn insert(&mut self, bytes: &[u8; SIZE], position: usize) -> usize {
        self.roll(bytes[position + MIN_MATCH - 1]);
        let head = &mut self.heads[self.hash % HASHES];
        let before = *head;
        self.before[position % HALF] = before;
        *head = u16::try_from(position).expect("the window ends there");
        before.into()
    }

    /// Follows the window, whose upper half has become the lower one.
    pub(crate) fn slide(&mut self) {
        let half = u16::try_from(HALF).expect("the whole window has 16 bits");
        for place in self.heads.iter_mut().chain(self.before.iter_mut()) {
            *place = place.saturating_sub(half);
        }
    }

    /// Whether a place can be a match at all.
    pub(crate) fn reaches(window: &Window, place: usize) -> bool {
        place != NOWHERE && window.position - place <= FARTHEST
    }

    /// The longest match from `place` backwards that is longer than `best`, else `best`. Of equally long
    /// ones the nearest.
    ///
    /// It may be longer than the input: gzip compares with whatever is behind, and prefers what is
    /// equal there too.
    pub(crate) fn longest(
        &self,
        window: &Window,
        mut place: usize,
        mut best: Match,
        effort: Effort,
        flavour: Flavour,
    ) -> Match {
        let shift = if best.length >= effort.good { 2 } else { 0 };
        let mut tries = effort.chain >> shift;
        let nice = match flavour {
            Flavour::Gzip => effort.nice,
            Flavour::Zlib => effort.nice.min(window.ahead),
        };
        let limit = window.position.saturating_sub(FARTHEST);
        let here = string(&window.bytes, window.position);
        let end = |string: &[u8; MAX_MATCH], length: usize| [string[length - 1], string[length]];
        let mut wanted = end(here, best.length);
        loop {
            let there = string(&window.bytes, place);
            // A longer match is equal where the best one ends, and one byte on.
            if end(there, best.length) == wanted && there[..2] == here[..2] {
                let length = common(here, there);
                if length > best.length {
                    best = Match {
                        length,
                        start: place,
                    };
                    if length >= nice {
                        break;
                    }
                    wanted = end(here, length);
                }
            }
            place = self.before[place % HALF].into();
            tries -= 1;
            if place <= limit || tries == 0 {
                break;
            }
        }
        best
    }
}

/// The longest string that can be compared at a position that is searched for.
#[inline]
fn string(bytes: &[u8; SIZE], position: usize) -> &[u8; MAX_MATCH] {
    let string = bytes[position..].first_chunk();
    string.expect("no search begins in the window's last bytes")
}

/// How many bytes two strings have in common.
#[inline]
fn common(a: &[u8; MAX_MATCH], b: &[u8; MAX_MATCH]) -> usize {
    let (a_words, a_rest) = a.as_chunks::<8>();
    let (b_words, b_rest) = b.as_chunks::<8>();
    let mut words = a_words.iter().zip(b_words).enumerate();
    let different = words.find_map(|(index, (a, b))| {
        let different = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        (different != 0).then(|| index * 8 + different.trailing_zeros() as usize / 8)
    });
    different.unwrap_or_else(|| {
        let rest = a_rest.iter().zip(b_rest).take_while(|(a, b)| a == b);
        a_words.as_flattened().len() + rest.count()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_bytes_are_counted_to_the_last() {
        let a = [7; MAX_MATCH];
        assert_eq!(common(&a, &a), MAX_MATCH);
        for differs in [0, 1, 7, 8, 9, 255, 256, 257] {
            let mut b = a;
            b[differs] = 8;
            assert_eq!(common(&a, &b), differs);
        }
    }
}

//! Says quickly that some bytes are nowhere in others: most of what is new is not, and to search a
//! suffix array for it costs dozens of cache misses, this one.

/// Bytes that are looked up together.
pub(crate) const LEN: usize = 8;

/// All runs of [`LEN`] bytes of a sequence, as a Bloom filter with two bits in one word for each.
pub(crate) struct Shingles {
    words: Vec<u64>,
    /// How far a hash is shifted to the right to become a word's number.
    shift: u32,
}

impl Shingles {
    /// Takes half a byte to a byte for each of `bytes`.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let words = (bytes.len() / 16).next_power_of_two().max(2);
        let mut shingles = Self {
            words: vec![0; words],
            shift: u64::BITS - words.trailing_zeros(),
        };
        for run in bytes.windows(LEN) {
            let (at, bits) = shingles.place(run);
            shingles.words[at] |= bits;
        }
        shingles
    }

    /// Whether the first bytes may be somewhere; where there are fewer than [`LEN`], no.
    pub(crate) fn may_have(&self, bytes: &[u8]) -> bool {
        bytes.get(..LEN).is_some_and(|run| {
            let (at, bits) = self.place(run);
            self.words[at] & bits == bits
        })
    }

    fn place(&self, run: &[u8]) -> (usize, u64) {
        let hash = hash(run);
        let at = usize::try_from(hash >> self.shift).expect("it is below the number of words");
        (at, 1 << (hash >> 24 & 63) | 1 << (hash >> 30 & 63))
    }
}

/// A hash of [`LEN`] bytes, to be used from its upper bits on.
pub(super) fn hash(run: &[u8]) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let run = u64::from_le_bytes(run.try_into().expect("it has 8 bytes"));
    // Bytes of equal value must not cancel each other out in the upper bits.
    (run ^ run >> 29).wrapping_mul(SPREAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_little_else() {
        let bytes = |seed: u32| -> Vec<u8> {
            let word = |i: u32| (i ^ seed).wrapping_mul(2_654_435_761).rotate_left(i % 32);
            (0..20_000_u32)
                .flat_map(|i| word(i).to_le_bytes())
                .collect()
        };
        let (old, new) = (bytes(0), bytes(0x5555_0000));
        let shingles = Shingles::new(&old);
        assert!(old.windows(LEN).all(|run| shingles.may_have(run)));
        let wrong = new
            .windows(LEN)
            .filter(|run| shingles.may_have(run))
            .count();
        assert!(wrong < new.len() / 5, "{wrong} of {}", new.len());
        assert!(!shingles.may_have(&old[..LEN - 1]));
        assert!(!Shingles::new(b"short").may_have(b"anything at all"));
    }
}

//! Inodes of ext4 with their checksums taken out: what is left of an inode that only moved is nearly
//! what it was. Taking them out and putting them back is the same: what is computed is added without
//! carry to what stands there, so nothing that stands there is lost.

/// A table of inodes on its way, in either direction.
#[derive(Debug)]
pub(crate) struct Inodes {
    seed: u32,
    number: u32,
    /// The inode of the moment, as far as it came, and how much of it was handed out.
    inode: Vec<u8>,
    len: usize,
    out: usize,
}

/// Where an inode's checksum, its generation and the length of its later fields stand.
const LOW: usize = 0x7c;
const HIGH: usize = 0x82;
const GENERATION: usize = 0x64;
const EXTRA: usize = 0x80;

impl Inodes {
    /// Begins with the inode of this number. All are `len` bytes long.
    pub(crate) fn new(seed: u32, number: u32, len: u16) -> Self {
        Self {
            seed,
            number,
            inode: Vec::with_capacity(len.into()),
            len: len.into(),
            out: 0,
        }
    }

    /// Takes from `input` and fills `output`, both as far as it goes; how far that was.
    pub(crate) fn turn(&mut self, input: &[u8], output: &mut [u8]) -> (usize, usize) {
        let (mut took, mut made) = (0, 0);
        loop {
            if self.inode.len() == self.len {
                let left = &self.inode[self.out..];
                let len = left.len().min(output.len() - made);
                output[made..made + len].copy_from_slice(&left[..len]);
                made += len;
                self.out += len;
                if self.out < self.len {
                    return (took, made);
                }
                self.inode.clear();
                self.out = 0;
            }
            let left = &input[took..];
            if left.is_empty() {
                return (took, made);
            }
            let len = left.len().min(self.len - self.inode.len());
            self.inode.extend_from_slice(&left[..len]);
            took += len;
            if self.inode.len() == self.len {
                self.change();
            }
        }
    }

    /// Whether the last inode is there as a whole.
    pub(crate) fn is_complete(&self) -> bool {
        self.inode.is_empty()
    }

    fn change(&mut self) {
        let number = self.number;
        self.number = number.wrapping_add(1);
        let mut bare = self.inode.clone();
        let extra = |at| self.inode.get(at).copied().unwrap_or(0);
        let has_high = u16::from_le_bytes([extra(EXTRA), extra(EXTRA + 1)]) >= 4;
        bare[LOW..LOW + 2].fill(0);
        if has_high {
            bare[HIGH..HIGH + 2].fill(0);
        }
        // One that is not in use has none.
        if bare.iter().all(|&byte| byte == 0) {
            return;
        }
        let mut sum = crc32c(self.seed, &number.to_le_bytes());
        sum = crc32c(sum, &bare[GENERATION..GENERATION + 4]);
        let sum = crc32c(sum, &bare).to_le_bytes();
        self.inode[LOW] ^= sum[0];
        self.inode[LOW + 1] ^= sum[1];
        if has_high {
            self.inode[HIGH] ^= sum[2];
            self.inode[HIGH + 1] ^= sum[3];
        }
    }
}

/// The CRC-32C of more bytes, without the inversions at the beginning and the end, as ext4 has it.
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| {
        let [low, ..] = crc.to_le_bytes();
        TABLE[usize::from(low ^ byte)] ^ crc >> 8
    })
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "it is below 256")]
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_castagnoli_polynomial() {
        // The check value of CRC-32C in "A Painless Guide to CRC Error Detection Algorithms".
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn turning_twice_gives_what_was_there() {
        let mut table: Vec<u8> = (0..40 * 256_u32).flat_map(|i| [(i % 251) as u8]).collect();
        table[2048..4096].fill(0);
        for len in [128, 256, 1024] {
            for cut in [1, 100, 256, 5000] {
                let turned = |bytes: &[u8]| {
                    let mut inodes = Inodes::new(5, 9, len);
                    let (mut at, mut all) = (0, Vec::new());
                    while all.len() < bytes.len() {
                        let mut out = vec![0; cut];
                        let (took, made) =
                            inodes.turn(&bytes[at..bytes.len().min(at + cut)], &mut out);
                        at += took;
                        all.extend_from_slice(&out[..made]);
                    }
                    assert!(inodes.is_complete());
                    all
                };
                let once = turned(&table);
                assert!(once != table);
                assert!(once[2048..4096].iter().all(|&byte| byte == 0));
                assert!(turned(&once) == table, "{len} {cut}");
            }
        }
    }
}

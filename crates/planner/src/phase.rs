//! A device's place in a staged rollout (client spec, section 6).
//!
//! In: the channel's text, the target version and the machine's id. Out: a percentage from 0 to
//! 100 that the original computes alike, bit for bit, so that a device stays in its cohort.

use sha2::{Digest, Sha512};
use system_image_formats::version::{ImageVersion, Percentage};

/// What says how early a device takes part in a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PhaseSource {
    /// The percentage itself, given by the user.
    Override(Percentage),
    /// Drawn from the machine's id and a text that stands for the channel.
    Machine {
        /// See [`phase_channel`].
        channel: String,
        /// The content of the machine-id file, trimmed.
        machine_id: String,
    },
}

impl PhaseSource {
    /// The device's percentage for a rollout of `target`.
    pub fn percentage(&self, target: ImageVersion) -> Percentage {
        match self {
            Self::Override(percentage) => *percentage,
            Self::Machine {
                channel,
                machine_id,
            } => device_percentage(channel, target, machine_id),
        }
    }
}

/// The text that stands for the channel: the followed channel of an alias, else the configured
/// `channel_target`, else the word `None`, an oversight of the original that cohorts rest on.
pub fn phase_channel(alias: Option<&str>, channel_target: Option<&str>) -> String {
    alias.or(channel_target).unwrap_or("None").to_owned()
}

/// Draws the percentage: uniform over 0 to 100 inclusive, seeded by all three arguments.
pub fn device_percentage(channel: &str, target: ImageVersion, machine_id: &str) -> Percentage {
    let text = format!("{channel}.{target}.{machine_id}");
    let mut seed = text.into_bytes();
    let digest = Sha512::digest(&seed);
    seed.extend_from_slice(&digest);
    let mut generator = Mt19937::from_key(&words(&seed));
    loop {
        // Seven bits hold 0 to 127; what is beyond 100 is drawn again.
        let drawn = generator.next_u32() >> 25;
        if drawn <= 100 {
            return Percentage::clamped(drawn.into());
        }
    }
}

/// The big-endian number in `bytes` as 32-bit words, the least significant first, without leading
/// zero words.
fn words(bytes: &[u8]) -> Vec<u32> {
    let mut words: Vec<u32> = bytes
        .rchunks(4)
        .map(|chunk| {
            chunk
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        })
        .collect();
    while words.last() == Some(&0) && words.len() > 1 {
        words.pop();
    }
    words
}

const N: usize = 624;
const M: usize = 397;

/// The Mersenne Twister MT19937 with its standard seeding from a key array.
struct Mt19937 {
    state: [u32; N],
    at: usize,
}

impl Mt19937 {
    fn from_key(key: &[u32]) -> Self {
        let mut state = [0u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            state[i] = mixed(state[i - 1])
                .wrapping_mul(1_812_433_253)
                .wrapping_add(low(i));
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            state[i] = (state[i] ^ mixed(state[i - 1]).wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(low(j));
            Self::advance(&mut state, &mut i);
            j = (j + 1) % key.len();
        }
        for _ in 0..N - 1 {
            state[i] =
                (state[i] ^ mixed(state[i - 1]).wrapping_mul(1_566_083_941)).wrapping_sub(low(i));
            Self::advance(&mut state, &mut i);
        }
        state[0] = 0x8000_0000;
        Self { state, at: N }
    }

    fn advance(state: &mut [u32; N], i: &mut usize) {
        *i += 1;
        if *i == N {
            state[0] = state[N - 1];
            *i = 1;
        }
    }

    fn next_u32(&mut self) -> u32 {
        if self.at == N {
            self.twist();
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if y & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
        }
        self.at = 0;
    }
}

fn mixed(word: u32) -> u32 {
    word ^ (word >> 30)
}

/// An index below 2^32 as a word.
fn low(i: usize) -> u32 {
    u32::try_from(i).expect("keys have fewer than 2^32 words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specified_vectors_are_drawn() {
        let a = "0123456789abcdef0123456789abcdef";
        let b = "deadbeefdeadbeefdeadbeefdeadbeef";
        for (channel, target, of_a, of_b) in [
            ("stable", 1, 32, 67),
            ("stable", 42, 70, 34),
            ("stable", 1300, 56, 31),
            ("None", 1, 67, 57),
            ("None", 42, 50, 74),
            ("None", 1300, 23, 64),
            ("16.04/arm64/hybris/devel", 1, 51, 3),
            ("16.04/arm64/hybris/devel", 42, 99, 82),
            ("16.04/arm64/hybris/devel", 1300, 52, 54),
            ("ubports-touch/16.04/stable", 42, 31, 43),
            ("ubports-touch/16.04/stable", 1300, 93, 62),
            ("kanal-ä", 1, 31, 8),
            ("kanal-ä", 42, 67, 6),
        ] {
            let draw = |id| device_percentage(channel, ImageVersion::new(target), id).get();
            assert_eq!((draw(a), draw(b)), (of_a, of_b), "{channel} {target}");
        }
    }

    #[test]
    fn the_channel_text_is_alias_then_target_then_none() {
        assert_eq!(phase_channel(Some("a"), Some("t")), "a");
        assert_eq!(phase_channel(None, Some("t")), "t");
        assert_eq!(phase_channel(None, None), "None");
    }

    #[test]
    fn a_long_machine_id_is_no_problem() {
        let id = "x".repeat(10_000);
        assert!(device_percentage("c", ImageVersion::new(1), &id).get() <= 100);
    }
}

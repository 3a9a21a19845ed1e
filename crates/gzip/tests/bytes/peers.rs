//! The compressors whose bytes are expected, and inputs for them.

use std::fs::File;
use std::io::{Seek, Write};
use std::process::{Command, Stdio};

use system_image_gzip::{Encoder, Flavour, Level};

/// All nine.
pub(crate) fn levels() -> impl Iterator<Item = Level> {
    (1..=9).filter_map(Level::new)
}

/// What this crate writes.
pub(crate) fn ours(flavour: Flavour, level: Level, plain: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::with_flavour(flavour, level, Vec::new());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// What gzip writes between a member's header and its trailer, when it reads a whole file.
pub(crate) fn gzip(level: Level, plain: &[u8]) -> Vec<u8> {
    const HEADER: usize = 10;
    const TRAILER: usize = 8;
    let mut command = Command::new("gzip");
    command.arg("-nc").arg(format!("-{}", level.number()));
    let member = output(command.env_remove("GZIP"), plain);
    member[HEADER..member.len() - TRAILER].to_vec()
}

/// What zlib writes at each level from 1, by Python, which every Debian with this project's tests has.
pub(crate) fn zlib(plain: &[u8]) -> Vec<Vec<u8>> {
    const SCRIPT: &str = "\
import sys, zlib
plain = sys.stdin.buffer.read()
for level in range(1, 10):
    made = zlib.compressobj(level, zlib.DEFLATED, -15)
    made = made.compress(plain) + made.flush()
    sys.stdout.buffer.write(len(made).to_bytes(8, 'little') + made)
";
    let all = output(Command::new("/usr/bin/python3").args(["-c", SCRIPT]), plain);
    let mut rest = &all[..];
    let mut streams = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        streams.push(behind[..length].to_vec());
        rest = &behind[length..];
    }
    streams
}

/// What a program makes of a file on its standard input.
fn output(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(input).unwrap();
    file.rewind().unwrap();
    let output = command.stdin(file).stderr(Stdio::inherit()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// Numbers that look random and are always the same (xorshift).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.draw() >> 33).unwrap() % end
    }

    /// Each number half as often as the one below it.
    pub(crate) fn halving(&mut self) -> u8 {
        u8::try_from(self.draw().trailing_zeros()).unwrap()
    }

    /// Bytes without any pattern.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.draw().to_le_bytes()[5]).collect()
    }

    /// Bytes out of these.
    pub(crate) fn bytes_of(&mut self, alphabet: &[u8], count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| alphabet[self.below(alphabet.len())])
            .collect()
    }

    /// Words with spaces between them; most are few ones.
    pub(crate) fn text(&mut self, count: usize) -> Vec<u8> {
        let words: Vec<_> = (0..2000)
            .map(|_| {
                let length = 1 + self.below(9);
                self.bytes_of(b"etaoinshrdlucmfwyp", length)
            })
            .collect();
        let mut text = Vec::with_capacity(count + 10);
        while text.len() < count {
            let common = [20, 200, 2000][self.below(3)];
            text.extend_from_slice(&words[self.below(common)]);
            text.push(if self.below(12) == 0 { b'\n' } else { b' ' });
        }
        text.truncate(count);
        text
    }
}

/// As many bytes of a pattern, over and over.
pub(crate) fn repeated(pattern: &[u8], count: usize) -> Vec<u8> {
    pattern.iter().copied().cycle().take(count).collect()
}

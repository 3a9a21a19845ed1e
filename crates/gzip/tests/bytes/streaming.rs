//! The encoder as a writer: in pieces, and with a place to write to that fails.

use std::io::{self, Write};

use crate::peers::{Numbers, ours};
use system_image_gzip::{Encoder, Flavour, Level};

#[test]
fn how_the_input_is_cut_does_not_matter() {
    let mut numbers = Numbers(7);
    let plain = [numbers.text(90_000), numbers.bytes_of(b"ab\0", 60_001)].concat();
    for flavour in [Flavour::Gzip, Flavour::Zlib] {
        for level in [Level::FASTEST, Level::BEST] {
            let whole = ours(flavour, level, &plain);
            for piece in [1, 7, 4096, 32_768, 65_536, 65_537] {
                let mut encoder = Encoder::with_flavour(flavour, level, Vec::new());
                for part in plain.chunks(piece) {
                    assert_eq!(encoder.write(part).unwrap(), part.len());
                    encoder.flush().unwrap();
                }
                assert!(encoder.finish().unwrap() == whole, "{flavour:?}, {piece}");
            }
        }
    }
}

/// Counts the bytes that are written to it, and takes no more than `left`.
struct Narrow<'a> {
    taken: &'a mut usize,
    left: usize,
}

impl Write for Narrow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.left -= bytes.len();
        *self.taken += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_done_is_written_before_the_end() {
    /// More than the encoder can hold.
    const HELD: usize = 160 << 10;
    let plain = Numbers(8).bytes(1 << 20);
    let mut taken = 0;
    let out = Narrow {
        taken: &mut taken,
        left: usize::MAX,
    };
    let mut encoder = Encoder::new(Level::BEST, out);
    encoder.write_all(&plain).unwrap();
    drop(encoder);
    assert!(taken + HELD > plain.len(), "only {taken} bytes");
}

#[test]
fn an_error_of_the_output_is_told() {
    let plain = Numbers(9).bytes(200_000);
    for left in [0, 70_000, 199_000] {
        let mut taken = 0;
        let out = Narrow {
            taken: &mut taken,
            left,
        };
        let mut encoder = Encoder::new(Level::BEST, out);
        let written = encoder.write_all(&plain);
        let error = written
            .and_then(|()| encoder.finish().map(drop))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(taken <= left);
    }
}

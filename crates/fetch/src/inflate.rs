//! Undoes the compression of an answer, piece by piece, in bounded memory.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

/// Decoded at a time, in bytes.
const BUFFER: usize = 32 << 10;

/// How an answer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// The zlib format, or, from servers that take the name literally, the bare one.
    Deflate,
}

impl Coding {
    /// What requests accept.
    pub(crate) const ACCEPTED: &'static str = "gzip, deflate";

    /// Reads `Content-Encoding`, in lower case.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text.trim() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }
}

/// What takes compressed bytes and gives the others.
#[derive(Debug)]
pub(crate) struct Inflate(Format);

#[derive(Debug)]
enum Format {
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// The first byte does not tell yet which it is.
    Undecided(Option<u8>),
    Deflate {
        state: Box<Decompress>,
        ended: bool,
    },
}

impl Inflate {
    pub(crate) fn new(coding: Coding) -> Self {
        Self(match coding {
            Coding::Gzip => Format::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
            Coding::Deflate => Format::Undecided(None),
        })
    }

    /// Takes compressed bytes, and hands out what they stand for, a little at a time.
    pub(crate) fn feed<E: From<io::Error>>(
        &mut self,
        mut bytes: &[u8],
        out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Format::Undecided(first) = self.0 {
            let [second, ..] = bytes else {
                return Ok(());
            };
            let Some(first) = first else {
                self.0 = Format::Undecided(Some(*second));
                bytes = &bytes[1..];
                continue;
            };
            let zlib = first & 0x0f == 8 && u16::from_be_bytes([first, *second]) % 31 == 0;
            self.0 = Format::Deflate {
                state: Box::new(Decompress::new(zlib)),
                ended: false,
            };
            self.feed(&[first], out)?;
        }
        match &mut self.0 {
            Format::Gzip(decoder) => {
                while !bytes.is_empty() {
                    let taken = decoder.write(bytes)?;
                    if taken == 0 {
                        return Err(io::Error::from(io::ErrorKind::InvalidData).into());
                    }
                    bytes = &bytes[taken..];
                    hand_out(decoder.get_mut(), out)?;
                }
                Ok(())
            }
            Format::Deflate { state, ended } => inflate(state, ended, bytes, out),
            Format::Undecided(_) => Ok(()),
        }
    }

    /// Hands out the last bytes.
    ///
    /// # Errors
    /// Of kind [`io::ErrorKind::UnexpectedEof`] or [`io::ErrorKind::InvalidInput`] if the compressed
    /// bytes were not whole.
    pub(crate) fn finish<E: From<io::Error>>(
        self,
        out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.0 {
            Format::Gzip(mut decoder) => {
                decoder.try_finish()?;
                hand_out(decoder.get_mut(), out)
            }
            Format::Deflate { ended: true, .. } => Ok(()),
            Format::Deflate { .. } | Format::Undecided(_) => {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            }
        }
    }
}

fn hand_out<E>(
    decoded: &mut Vec<u8>,
    out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    if !decoded.is_empty() {
        out(decoded)?;
        decoded.clear();
    }
    Ok(())
}

fn inflate<E: From<io::Error>>(
    state: &mut Decompress,
    ended: &mut bool,
    mut bytes: &[u8],
    out: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut decoded = Vec::with_capacity(BUFFER);
    loop {
        if *ended {
            let rest = bytes.is_empty();
            let junk = || io::Error::from(io::ErrorKind::InvalidData).into();
            return rest.then_some(()).ok_or_else(junk);
        }
        let before = state.total_in();
        let status = state
            .decompress_vec(bytes, &mut decoded, FlushDecompress::None)
            .map_err(io::Error::from)?;
        let taken = usize::try_from(state.total_in() - before).expect("it is no more than given");
        bytes = &bytes[taken..];
        *ended = status == Status::StreamEnd;
        let full = decoded.len() == decoded.capacity();
        hand_out(&mut decoded, out)?;
        // What did not fit may still be within.
        if bytes.is_empty() && !full && !*ended {
            return Ok(());
        }
        if taken == 0 && !full && !*ended {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn decode(coding: Coding, compressed: &[u8], step: usize) -> io::Result<Vec<u8>> {
        let (mut inflate, mut decoded) = (Inflate::new(coding), Vec::new());
        let mut longest = 0;
        let mut out = |bytes: &[u8]| {
            longest = longest.max(bytes.len());
            decoded.extend_from_slice(bytes);
            io::Result::Ok(())
        };
        for piece in compressed.chunks(step) {
            inflate.feed(piece, &mut out)?;
        }
        inflate.finish(&mut out)?;
        assert!(longest <= 2 * BUFFER, "{longest} bytes at a time");
        Ok(decoded)
    }

    /// The same bytes in each format that goes by the coding's name.
    fn encodings(bytes: &[u8]) -> [(Coding, Vec<u8>); 3] {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(bytes).unwrap();
        zlib.write_all(bytes).unwrap();
        bare.write_all(bytes).unwrap();
        [
            (Coding::Gzip, gzip.finish().unwrap()),
            (Coding::Deflate, zlib.finish().unwrap()),
            (Coding::Deflate, bare.finish().unwrap()),
        ]
    }

    #[test]
    fn each_format_is_undone_and_every_cut_is_noticed() {
        let bytes = b"some text, some text, and some more text".repeat(3);
        for (coding, compressed) in encodings(&bytes) {
            for step in [1, 2, 7, 1000] {
                assert_eq!(decode(coding, &compressed, step).unwrap(), bytes);
            }
            for cut in 0..compressed.len() {
                let cut = decode(coding, &compressed[..cut], 1000);
                assert!(cut.is_err(), "{coding:?}");
            }
            let junk = [&compressed[..], b"junk"].concat();
            assert!(decode(coding, &junk, 1000).is_err(), "{coding:?}");
        }
    }

    #[test]
    fn much_from_little_comes_a_little_at_a_time() {
        let bytes = vec![0; 50 << 20];
        for (coding, compressed) in encodings(&bytes) {
            assert!(decode(coding, &compressed, 1 << 20).unwrap() == bytes);
        }
    }

    #[test]
    fn only_known_codings_are_read() {
        for (text, want) in [
            ("gzip", Some(Coding::Gzip)),
            (" x-gzip ", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("br", None),
            ("gzip, gzip", None),
            ("", None),
        ] {
            assert_eq!(Coding::read(text), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..50
        ) {
            for coding in [Coding::Gzip, Coding::Deflate] {
                let _ = decode(coding, &bytes, step);
            }
        }

        #[test]
        fn what_was_compressed_comes_back(
            bytes in proptest::collection::vec(0u8..4, 0..100_000), step in 1usize..5000
        ) {
            for (coding, compressed) in encodings(&bytes) {
                prop_assert!(decode(coding, &compressed, step).unwrap() == bytes);
            }
        }
    }
}

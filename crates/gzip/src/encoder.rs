//! The compressor as others see it: plain bytes are written to it, and it writes theirs.

use std::fmt;
use std::io::{self, Write};

use crate::level::{Flavour, Level};
use crate::parse::Parser;

/// Compresses what is written to it, as gzip or zlib would, and writes it to `W`: raw DEFLATE, without
/// header and trailer.
///
/// How the input is cut into calls of [`Write::write`] does not matter: it is gathered in gzip's own
/// rhythm, so the result is that of a file that is read whole.
///
/// gzip keeps its window from one file to the next when it is given several. That shows at the end of a file
/// only, and only where a match with zero bytes in it would run past the end: text does not have those.
///
/// ```
/// use std::io::Write;
/// use system_image_gzip::{Encoder, Level};
///
/// let mut encoder = Encoder::new(Level::BEST, Vec::new());
/// encoder.write_all(b"aaaaaaaaaa")?;
/// assert_eq!(encoder.finish()?, [0x4b, 0x4c, 0x84, 0x01, 0x00]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Encoder<W: Write> {
    parser: Parser,
    out: W,
}

impl<W: Write> Encoder<W> {
    /// One that writes what GNU gzip writes.
    pub fn new(level: Level, out: W) -> Self {
        Self::with_flavour(Flavour::Gzip, level, out)
    }

    /// One that writes what another compressor writes.
    pub fn with_flavour(flavour: Flavour, level: Level, out: W) -> Self {
        let parser = Parser::new(flavour, level);
        Self { parser, out }
    }

    /// What the stream so far was written to.
    pub const fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Ends the stream, and returns what it was written to. Dropped without that, it is incomplete.
    ///
    /// # Errors
    /// Those of `W`.
    pub fn finish(mut self) -> io::Result<W> {
        self.parser.finish(&mut self.out)?;
        Ok(self.out)
    }
}

/// After an error the stream is incomplete for good: an encoder cannot take a byte back.
impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, input: &[u8]) -> io::Result<usize> {
        self.parser.take(input, &mut self.out)?;
        Ok(input.len())
    }

    /// Flushes what has been written. What is held back stays: to end a block early would change the
    /// stream.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

//! A range of a file that is read as if it were a file of its own: an image within an archive.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// A range of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    file: &'a File,
    start: u64,
    len: u64,
}

impl<'a> Window<'a> {
    /// This range of the file.
    pub(crate) fn new(file: &'a File, range: &Range<u64>) -> Self {
        Self {
            file,
            start: range.start,
            len: range.end - range.start,
        }
    }

    /// Its length in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Reads what is at an offset in the range.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buffer, self.start + offset)
    }

    /// Where in the file a range of the window is.
    pub(crate) fn place(&self, range: &Range<u64>) -> Range<u64> {
        self.start + range.start..self.start + range.end
    }
}

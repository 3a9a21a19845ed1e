//! A part of the base or of the target so far, seen in its plain form.

use crate::patch::apply::ApplyError;
use crate::patch::base::at_once;
use crate::patch::codec::Codec;
use crate::patch::unpack::Unpacker;

/// How much of a packed member is read at once, in bytes.
const READ_AT_ONCE: usize = 64 << 10;

/// Which side a view shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Base,
    Target,
}

/// What a view shows, and where its plain bytes stand among all that can be copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) start: u64,
    pub(crate) plain_len: u64,
    pub(crate) origin: Origin,
    pub(crate) offset: u64,
    pub(crate) packed_len: u64,
    pub(crate) codec: Codec,
}

/// A view that is being unpacked from its beginning.
pub(crate) struct Cursor {
    unpacker: Unpacker,
    /// Packed bytes that were read so far.
    read: u64,
    input: Vec<u8>,
    input_at: usize,
}

impl Cursor {
    pub(crate) fn new(codec: Codec) -> Result<Self, ApplyError> {
        Ok(Self {
            unpacker: Unpacker::new(codec)?,
            read: 0,
            input: Vec::new(),
            input_at: 0,
        })
    }

    /// Fills `output` with the next plain bytes. `read` reads the packed ones.
    pub(crate) fn fill(
        &mut self,
        view: &View,
        output: &mut [u8],
        mut read: impl FnMut(&mut [u8], u64) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let mut done = 0;
        while done < output.len() {
            done += self.step(view, &mut output[done..], &mut read)?;
        }
        Ok(())
    }

    /// Goes on to the member's end when all of its plain bytes came out. How many packed bytes it has.
    pub(crate) fn end(
        &mut self,
        view: &View,
        mut read: impl FnMut(&mut [u8], u64) -> Result<(), ApplyError>,
    ) -> Result<u64, ApplyError> {
        while !self.unpacker.has_ended() {
            if self.step(view, &mut [0], &mut read)? > 0 {
                return Err(ApplyError::damaged(
                    "a packed member holds more than it says",
                ));
            }
        }
        Ok(self.read - (self.input.len() - self.input_at) as u64)
    }

    /// Unpacks what has come, or reads more; how many plain bytes came out.
    fn step(
        &mut self,
        view: &View,
        output: &mut [u8],
        read: &mut impl FnMut(&mut [u8], u64) -> Result<(), ApplyError>,
    ) -> Result<usize, ApplyError> {
        let input = &self.input[self.input_at..];
        let progress = self.unpacker.unpack(input, output)?;
        self.input_at += progress.took;
        if progress.made > 0 || progress.took > 0 {
            return Ok(progress.made);
        }
        if self.input_at == self.input.len() {
            let left = view.packed_len - self.read;
            if left == 0 {
                return Err(ApplyError::damaged(
                    "a packed member holds less than it says",
                ));
            }
            let len = at_once(left, READ_AT_ONCE);
            self.input.resize(len, 0);
            self.input_at = 0;
            read(&mut self.input, view.offset + self.read)?;
            self.read += len as u64;
            return Ok(0);
        }
        Err(ApplyError::damaged("a packed member makes no progress"))
    }
}

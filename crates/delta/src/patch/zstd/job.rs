//! A job: what one thread packs, block by block as the content comes.

use super::library::{Library, Shape};
use super::split;
use super::window::Window;
use crate::patch::codec::CodecError;

/// What the library packs in one go, in bytes: no block reaches over its end.
const CHUNK: usize = 4 * split::FULL;

/// Packs one job after another.
pub(super) struct Packer<L> {
    library: L,
    shape: Shape,
    /// The end of the job before, then the content of this one so far.
    window: Window,
    /// How much of that is the job's before.
    before: usize,
    /// How much is packed, with what was before.
    packed: usize,
    /// Of the chunks that are complete, the plain bytes and the packed ones; of the last one, the packed
    /// ones of the header are counted at its end.
    consumed: u64,
    produced: u64,
    header: u64,
}

impl<L: Library> Packer<L> {
    /// For a frame of which a job has at most `longest` bytes.
    pub(super) fn new(library: L, shape: Shape, longest: usize) -> Result<Self, CodecError> {
        Ok(Self {
            library,
            shape,
            window: Window::new(shape.kept + longest)?,
            before: 0,
            packed: 0,
            consumed: 0,
            produced: 0,
            header: 0,
        })
    }

    #[cfg(test)]
    pub(super) fn library(&self) -> &L {
        &self.library
    }

    /// Begins a job behind the bytes `before`.
    #[expect(unsafe_code, reason = "a library looks back on a window")]
    pub(super) fn begin<'b>(
        &mut self,
        before: impl Iterator<Item = &'b [u8]>,
        is_first: bool,
        pledged: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        self.window.clear();
        for bytes in before {
            self.window.push(bytes)?;
        }
        self.before = self.window.len();
        self.packed = self.before;
        let begun = out.len();
        let before = self.window.bytes(0..self.before);
        // SAFETY: a window's bytes stay where they are, and it is cleared only before the next job; it is
        // dropped behind the context.
        unsafe { self.library.begin(before, is_first, pledged, out)? };
        self.header = (out.len() - begun) as u64;
        (self.consumed, self.produced) = (0, 0);
        Ok(())
    }

    /// Takes content of the job.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.window.push(bytes)?;
        // Whether a block is the last is known when something stands behind it.
        while self.window.len() - self.packed > split::FULL {
            self.block(false, out)?;
        }
        Ok(())
    }

    /// Packs the rest of the job, which may be the last of the frame.
    pub(super) fn end(&mut self, is_last: bool, out: &mut Vec<u8>) -> Result<(), CodecError> {
        while self.packed < self.window.len() {
            self.block(is_last, out)?;
        }
        Ok(())
    }

    /// Packs a block; with the last bytes that there are ends the frame, if it is the last job's end.
    #[expect(unsafe_code, reason = "a library looks back on a window")]
    fn block(&mut self, is_last: bool, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let at = self.packed;
        let chunk_end = at + CHUNK - (at - self.before) % CHUNK;
        let filled = self.window.len();
        let next = self.window.bytes(at..filled.min(chunk_end));
        let len = match (next.get(..split::FULL), self.shape.split) {
            // Nothing is cut before packing has saved anything.
            (Some(full), Some(level)) if self.consumed >= self.produced + 3 => {
                split::len(full, level)
            }
            (Some(full), _) => full.len(),
            (None, _) => next.len(),
        };
        let is_end = is_last && at + len == filled;
        let before = out.len();
        // SAFETY: as at the job's beginning.
        unsafe { self.library.block(&next[..len], is_end, out)? };
        self.packed += len;
        self.consumed += len as u64;
        self.produced += (out.len() - before) as u64;
        if self.packed == chunk_end {
            self.produced += std::mem::take(&mut self.header);
        }
        self.window
            .release(self.packed.saturating_sub(self.shape.window));
        Ok(())
    }
}

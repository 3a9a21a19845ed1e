//! Bytes that grow at a place of their own and never move, as an encoder needs them that looks back: what
//! is too far behind for it gives its memory back.

use std::ops::Range;
use std::ptr;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::patch::codec::CodecError;

/// Bytes at addresses that follow one another.
pub(super) struct Window {
    start: *mut u8,
    /// Length of the addresses.
    room: usize,
    filled: usize,
    /// How much from the front on has no memory.
    released: usize,
    page: usize,
}

// SAFETY: the memory is the window's own, and no thread's.
#[expect(unsafe_code, reason = "asks the kernel for memory")]
unsafe impl Send for Window {}

#[expect(unsafe_code, reason = "asks the kernel for memory")]
impl Window {
    /// Addresses for `room` bytes, without memory so far.
    pub(super) fn new(room: usize) -> Result<Self, CodecError> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: the kernel chooses addresses that nothing else has.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), room.max(1), access, flags) };
        let start = start.map_err(|_| CodecError::Pack("no memory"))?;
        // Of a huge page nothing would be given back before all of it could be.
        // SAFETY: the addresses are the window's own.
        let _ = unsafe { madvise(start, room.max(1), Advice::LinuxNoHugepage) };
        Ok(Self {
            start: start.cast(),
            room: room.max(1),
            filled: 0,
            released: 0,
            page: rustix::param::page_size(),
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.filled
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.release(self.filled.next_multiple_of(self.page));
        self.filled = 0;
        self.released = 0;
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        if bytes.len() > self.room - self.filled {
            return Err(CodecError::Pack("a job is too long"));
        }
        // SAFETY: so much room is behind what is filled, and nobody refers to it.
        unsafe {
            let end = self.start.add(self.filled);
            ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len());
        }
        self.filled += bytes.len();
        Ok(())
    }

    /// Bytes that are not released.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.filled);
        // SAFETY: the range is within what is filled, which has memory or reads as zeros.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }

    /// Gives back the memory of the bytes before `end`, in whole pages.
    pub(super) fn release(&mut self, end: usize) {
        let end = end - end % self.page;
        if end <= self.released {
            return;
        }
        // SAFETY: these pages are the window's own; who still reads them gets zeros.
        let _ = unsafe {
            let begin = self.start.add(self.released);
            madvise(begin.cast(), end - self.released, Advice::LinuxDontNeed)
        };
        self.released = end;
    }
}

#[expect(unsafe_code, reason = "asks the kernel for memory")]
impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the addresses are the window's own, and it ends.
        let _ = unsafe { munmap(self.start.cast(), self.room) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_until_they_are_released_and_there_is_no_more_room_than_said() {
        let mut window = Window::new(3 << 20).unwrap();
        for round in 1..=2 {
            for i in 0..3 {
                window.push(&vec![i + round; 1 << 20]).unwrap();
            }
            assert!(window.push(b"x").is_err());
            window.release((1 << 20) + 5);
            assert!(
                window
                    .bytes(1 << 20..2 << 20)
                    .iter()
                    .all(|&b| b == 1 + round)
            );
            assert!(
                window
                    .bytes(2 << 20..3 << 20)
                    .iter()
                    .all(|&b| b == 2 + round)
            );
            assert_eq!(window.bytes(0..1), [0]);
            window.clear();
            assert_eq!(window.len(), 0);
        }
    }
}

//! The last bytes of the input, and the rhythm in which more are asked for.
//!
//! gzip reads as much as fits behind what it has, whenever less than [`ENOUGH_AHEAD`] bytes are left to
//! look at; when the window is nearly used up, its upper half first becomes its lower one. The rhythm
//! shows in the result: what has just moved to position 0 cannot be a match any more, and at the end of
//! the input a match may run on into what an earlier read has left.

use crate::codes::{MAX_MATCH, MIN_MATCH};

/// How far back a stream may refer, in bytes.
pub(crate) const HALF: usize = 32 << 10;

/// The whole window, in bytes.
pub(crate) const SIZE: usize = 2 * HALF;

/// A longest match, the one after it, and a byte to decide between them.
pub(crate) const ENOUGH_AHEAD: usize = MAX_MATCH + MIN_MATCH + 1;

/// Farthest match: behind it, bytes may already have moved away.
pub(crate) const FARTHEST: usize = HALF - ENOUGH_AHEAD;

/// No search begins behind this: a comparison would leave the window.
pub(crate) const LAST_SEARCH: usize = SIZE - ENOUGH_AHEAD;

/// Input around the position that is worked on.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) bytes: Box<[u8; SIZE]>,
    /// The next byte to be coded.
    pub(crate) position: usize,
    /// How many bytes are known from there on.
    pub(crate) ahead: usize,
    /// How many more have come. They count when the read is complete.
    arrived: usize,
    /// How many are still to come until then.
    wanted: usize,
    /// Whether the input has ended.
    pub(crate) ended: bool,
}

impl Window {
    /// An empty window, which wants to be filled.
    pub(crate) fn new() -> Self {
        Self {
            bytes: boxed(0),
            position: 0,
            ahead: 0,
            arrived: 0,
            wanted: SIZE,
            ended: false,
        }
    }

    /// Takes what fits of `input`, and returns how much that was: nothing if the read was complete.
    pub(crate) fn take(&mut self, input: &[u8]) -> usize {
        let taken = input.len().min(self.wanted);
        let end = self.position + self.ahead + self.arrived;
        self.bytes[end..end + taken].copy_from_slice(&input[..taken]);
        self.arrived += taken;
        self.wanted -= taken;
        taken
    }

    /// Whether a read is complete, so that there is something to do.
    pub(crate) fn is_filled(&self) -> bool {
        self.wanted == 0
    }

    /// Ends the read that is going on, and returns how many bytes it has brought.
    pub(crate) fn accept(&mut self) -> usize {
        self.wanted = 0;
        let arrived = std::mem::take(&mut self.arrived);
        self.ahead += arrived;
        arrived
    }

    /// Begins to read: [`Self::take`] fills what is free.
    pub(crate) fn want(&mut self) {
        self.wanted = SIZE - self.ahead - self.position;
    }

    /// Ends the input. Strings that begin at its last bytes go on with zeros.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        let end = self.position + self.ahead;
        let behind = self.bytes[end..].iter_mut().take(MIN_MATCH - 1);
        behind.for_each(|byte| *byte = 0);
    }

    /// Whether the upper half must become the lower one before anything is read.
    pub(crate) fn is_used_up(&self) -> bool {
        self.position >= HALF + FARTHEST
    }

    /// Makes the upper half the lower one. The upper one stays as it was.
    pub(crate) fn slide(&mut self) {
        self.bytes.copy_within(HALF.., 0);
        self.position -= HALF;
    }

    /// Goes on by so many bytes.
    #[inline]
    pub(crate) fn advance(&mut self, count: usize) {
        self.position += count;
        self.ahead -= count;
    }

    /// Whether three bytes begin here.
    #[inline]
    pub(crate) fn has_string(&self) -> bool {
        self.ahead >= MIN_MATCH
    }
}

/// An array on the heap that was never on the stack.
pub(crate) fn boxed<T: Clone, const N: usize>(value: T) -> Box<[T; N]> {
    let array = vec![value; N].into_boxed_slice().try_into();
    array.unwrap_or_else(|_| unreachable!("it has this length"))
}

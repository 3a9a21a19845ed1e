//! Tar archives as streams of typed headers: GNU, ustar, pax and the sparse forms of GNU.
//!
//! Our own reader instead of the `tar` crate, because a device reads these archives as root:
//! that crate reads a long name or a pax block of any length into memory, leaves the sparse
//! forms of pax undecoded (such a file would be installed with its map as content) and takes
//! names from either place without saying which. Here every block is bounded before it is
//! allocated, and what has two readings is refused.

pub mod header;
mod number;
mod pax;
pub mod reader;
mod sparse;

/// Length of a header and unit of padding, in bytes.
pub const BLOCK: usize = 512;

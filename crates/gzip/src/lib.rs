//! The bytes that GNU gzip writes, from their plain form.
//!
//! In: plain bytes, in pieces of any length. Out: the raw DEFLATE stream (RFC 1951) that `gzip` makes of
//! a file with these bytes, bit for bit. RFC 1951 leaves to the compressor which matches it takes,
//! where its blocks end and how it builds their codes; this crate decides all of it as gzip does. So
//! whoever changes a plain file can rebuild the compressed one that a package has, without carrying
//! its bytes.
//!
//! A member's header and trailer are the caller's: they hold a time and a name that are not in the
//! plain bytes. So is finding out who made a stream, and how: compress, compare, and keep what does not
//! come out equal as it is.
//!
//! Memory is about 300 KiB, whatever the input. There is no file and no clock here.
//!
//! Who makes a stream, in the order of the work:
//!
//! - `window` holds the last 64 KiB, and asks for more in gzip's rhythm;
//! - `chains` finds where three bytes stood before, and the longest match there;
//! - `parse` takes a literal or a match, at once or after a look at the next position;
//! - `block` collects them, ends a block, chooses its form and writes it;
//! - `huffman` makes its codes, `bits` packs them.

mod bits;
mod block;
mod chains;
mod codes;
mod encoder;
mod huffman;
mod level;
mod parse;
mod window;

pub use encoder::Encoder;
pub use level::{Flavour, Level};

//! Patches: one exact base turned into one exact target, both named by digest, as
//! `docs/formats/patch.md` has it.
//!
//! In: a patch, read once from front to back, and its base, read at random. Out: the target, in
//! order, each block of it checked before it is handed on. Nothing here knows what the bytes mean:
//! what stood where, and which member of an archive was packed by which program, the builder found
//! out and wrote down. What a patch may take in memory and work stands in its header, is compared
//! with what the device allows, and is held to.

mod apply;
mod base;
mod blocks;
pub mod codec;
pub mod header;
mod inodes;
mod leftover;
mod lz4_block;
mod lz4_legacy;
mod pages;
pub mod pointers;
mod projection;
mod remake;
mod residues;
mod runs;
mod space;
mod streams;
pub mod tree;
mod unpack;
pub mod varint;
mod view;
mod xz;
mod zstd;

pub use apply::{Applied, ApplyError, Limits, Patch};
pub use base::ReadAt;
pub use blocks::Output;
pub use codec::{Codec, CodecError};
pub use header::{Header, HeaderError, Identity};
pub use inodes::crc32c;
pub use pages::PAGE;
pub use projection::{Move, Projection};
pub use remake::Remaker;
pub use runs::{
    IN_PIECES, MEMORY_OF_NUMBERINGS, MEMORY_OF_POINTERS, MOST_COPIES, PIECES, POINTERS,
    POINTERS_OF_AARCH64, POINTERS_OF_BTF, WITH_POINTERS,
};
pub use space::LEAST_FOR_VIEWS;
pub use streams::{KINDS, LONGEST_PIECE, PatchReadError, Stream};
pub use unpack::{LZ4_MAGIC, Unpacker};
pub use xz::{XZ_DICTIONARIES, Xz, XzCheck};
pub use zstd::Zstd157;

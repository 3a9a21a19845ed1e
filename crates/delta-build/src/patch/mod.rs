//! Makes patches: finds what the target was made from, and writes that down as
//! `docs/formats/patch.md` has it.
//!
//! An image is taken apart as far as it is understood: an archive into its members, members that
//! are packed into what they hold. Each piece of the target is then searched for in the base and in
//! the target so far: whole, by its content; or approximately, in the piece that had its place
//! before. What is not understood is a piece like any other.

mod android;
mod area;
mod body;
mod effort;
mod emit;
mod ext4;
mod files;
mod image;
mod kept;
mod make;
mod maker;
mod matcher;
mod packed;
mod plan;
mod program;
mod proof;
mod ramdisk;
mod room;
mod squashfs;
mod view;
mod window;

pub use effort::Effort;
pub use make::{MakeError, Options, Summary, make, make_for_tree};
pub use packed::Packings;

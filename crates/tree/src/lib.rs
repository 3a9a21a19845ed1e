//! Trees of files, each below one directory descriptor that no operation leaves.
//!
//! | module | its part |
//! | --- | --- |
//! | [`root`] | the directory; paths below it that may hold links, resolved inside |
//! | [`mod@remove`] | away with a name and all below it, or with all but some paths |
//! | [`links`] | a second tree whose files are those of the first: unchanged until one is replaced |
//! | [`mod@mirror`] | makes one tree equal to another one by copying what differs |
//! | [`mod@merge`] | moves a tree's entries into another tree |
//! | [`manifest`] | one line for each entry, to tell later whether all is as it was |
//! | [`files`] | small files that are read, replaced or removed |
//! | [`attributes`], [`xattr`] | owner, mode, time and extended attributes, exactly |
//!
//! All of it is for trees that nobody else writes to meanwhile. Nothing is synced here: the caller
//! does that once, before it relies on what was done. Each operation may be repeated after it was
//! interrupted, and leads to the same tree then.

pub mod attributes;
pub mod files;
pub mod links;
pub mod manifest;
pub mod merge;
pub mod mirror;
pub mod remove;
mod resolve;
pub mod root;
pub mod xattr;

pub use merge::merge;
pub use mirror::mirror;
pub use root::Root;

/// The name under which a file is written before it replaces the old one.
pub const PART_NAME: &str = ".system-image.part";

/// The directory at the top of a file system in which an upgrader prepares what it will put in place.
/// It is no part of any tree.
pub const STAGING_NAME: &str = ".system-image";

/// The file among user data in which an upgrader notes what the top of the system must have in the end.
pub const TOP_NAME: &str = ".system-image.top";

/// Whether a name at the top of a file system is an upgrader's own.
pub fn is_own(name: &[u8]) -> bool {
    name == STAGING_NAME.as_bytes() || name == TOP_NAME.as_bytes()
}

/// What ext2 to ext4 keep at their top for themselves.
pub const LOST_AND_FOUND: &str = "lost+found";

/// Whether a name at the top of a file system is no part of the tree.
pub fn is_apart(name: &[u8]) -> bool {
    name == STAGING_NAME.as_bytes() || name == LOST_AND_FOUND.as_bytes()
}

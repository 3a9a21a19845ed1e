//! Update archives: tar streams with an optional list of removals, as `docs/formats` and the
//! upgrader specification describe them. This crate reads them ([`archive`], [`tar`]), finds
//! out whether they are sound without touching anything ([`check`]) and applies them to a
//! system tree that they cannot leave ([`apply()`], [`Root`]).
//!
//! It runs on the device: no network, no decompression, no signature is its business. What it is
//! given has been verified, and it still trusts no name and no number in it. Making such
//! archives is the crate `system-image-delta-build`'s.

pub mod apply;
pub mod archive;
mod parents;
pub mod patch;
pub mod path;
mod place;
pub mod route;
pub mod tar;
mod xattr;

pub use apply::{Applied, ApplyError, LeaveOut, Places, Privileges, Sink, Skipped, apply};
pub use archive::{Archive, ArchiveError, CheckError, Contents, Member, check};
pub use path::{MemberPath, PathError};
pub use route::{Flag, Route, SPARSE_IMAGE};
pub use system_image_tree::Root;
pub use tar::header::{Device, Header, Kind, Mtime, Xattr};
pub use tar::reader::{Limits, ReadError, Reader};

//! What a download is, and the rules for it. No I/O here.

pub mod admission;
pub mod caller;
pub mod download;
pub mod failure;
pub mod ids;
pub mod machine;
pub mod metadata;
pub mod names;
pub mod queue;

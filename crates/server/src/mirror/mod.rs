//! Mirrors: other hosts that serve the same tree (server spec, section 19).
//!
//! | module | its part |
//! | --- | --- |
//! | [`pull`] | a verified copy of another server's tree |
//! | [`wanted`] | which of it is wanted |
//! | [`place`] | the directory that holds the copy |
//! | [`payload`] | one file of it: whether it is there, and how it gets there |
//! | [`push`] | the tree to another host |
//! | [`trigger`] | telling other hosts to pull |

pub mod payload;
pub mod place;
pub mod pull;
pub mod push;
pub mod trigger;
pub mod wanted;

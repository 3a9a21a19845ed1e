//! The daemon on a real bus, driven by other implementations than ours (specification, sections 4 to 16).

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod creation;
mod groups;
mod network;
mod restart;
mod signals;
mod support;
mod surface;

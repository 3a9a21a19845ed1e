//! Fixture builders that make real things: archives, trees, devices. A dev-dependency only, so
//! what goes wrong here panics.
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made ends its test"
)]

pub mod tree;

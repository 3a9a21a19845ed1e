//! The daemon on a real bus, driven by other implementations than ours (specification, sections 4 to 16).

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod commands;
mod creation;
mod faults;
mod foreign;
mod groups;
mod hostile;
mod killed;
mod network;
mod people;
mod restart;
mod signals;
mod support;
mod surface;

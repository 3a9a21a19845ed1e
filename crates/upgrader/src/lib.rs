//! The upgrader: carries out a command file on the device's system, from a recovery or wherever
//! the system itself is not running. It has no network, no bus and no async runtime.
//!
//! | module | its part |
//! | --- | --- |
//! | [`cli`], [`config`] | the command line, `upgrader.toml` |
//! | [`plan`] | which steps a command file asks for, and which it may not |
//! | [`drop_box`], [`keyrings`], [`tarball`] | verification of everything, and application of what was verified |
//! | [`system`] | where the system is: a directory or a block device |
//! | [`journal`] | how far the steps have got, for the next run |
//! | [`progress`], [`outcome`], [`hint`] | what others are told |
//! | [`mod@run`] | all of it in order |
//!
//! Nothing is changed before everything is verified: keyrings, signatures, and each archive read
//! to its end. What is changed can be interrupted anywhere, and the next run continues.

pub mod cli;
pub mod config;
pub mod drop_box;
pub mod hint;
pub mod journal;
pub mod keyrings;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod run;
pub mod system;
pub mod tarball;

pub use run::{Failure, run};

/// Tells those who read the log, on standard error.
pub(crate) fn log(line: &str) {
    eprintln!("{}", system_image_report::printable(line));
}

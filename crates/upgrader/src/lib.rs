//! The upgrader: carries out a command file on the device, from a recovery or from the other slot. It
//! has no network, no bus and no async runtime.
//!
//! | module | its part |
//! | --- | --- |
//! | [`cli`], [`config`] | the command line, the device description `upgrader.toml` |
//! | [`plan`] | which steps a command file asks for, and which it may not |
//! | [`drop_box`], [`keyrings`], [`tarball`], [`xz`], [`version`] | verification of everything, and the reading of what was verified |
//! | [`storage`] | where a system is: directory, block device, image file |
//! | [`deploy`] | where a new system is prepared, and how it takes the place of the old one |
//! | [`stage`], [`partition`], [`data`] | what archives bring beside the system; user data |
//! | [`installed`] | what patches read |
//! | [`prepare`], [`work`] | all that comes before the first change; the changes, piece by piece |
//! | [`journal`] | how far the work has got, for the next run |
//! | [`progress`], [`outcome`], [`hint`], [`log`](mod@log) | what others are told |
//! | [`mod@run`] | all of it in order |
//! | [`check`], [`trial`] | looking at the device; slots that are tried, confirmed, rolled back |
//!
//! Nothing is changed that anybody sees before everything is verified and the new system is complete on
//! the disk, where there is room for it. What is changed can be interrupted anywhere, and the next run
//! continues.

pub mod check;
pub mod cli;
pub mod config;
pub mod data;
pub mod deploy;
pub mod drop_box;
pub mod hint;
pub mod installed;
pub mod journal;
pub mod keyrings;
pub mod log;
pub mod outcome;
pub mod partition;
pub mod plan;
pub mod prepare;
pub mod progress;
pub mod run;
pub mod stage;
pub mod storage;
pub mod tarball;
pub mod trial;
pub mod version;
pub mod work;
pub mod xz;

pub(crate) use log::log;
pub use run::{Failure, run};

//! The client: finds out which images take the device to where it should be, has them fetched and
//! verified, and hands them over to the upgrader by a command file.
//!
//! | module | its part |
//! | --- | --- |
//! | [`device`] | what the device says of itself: configuration, name, machine id |
//! | [`files`] | the directories that the client makes, and its files in them |
//! | [`server`] | the server's metadata and payloads by path |
//! | [`session`] | keyrings, channels and index of one run, each verified before it is read |
//! | [`transfer`] | payloads, by the engine in this process or the download manager |
//! | [`update`] | from a verified index to a prepared update |
//! | [`handover`] | the drop box: keyrings and command file |
//! | [`log`], [`meter`] | the log file, progress as callers of the original read it |
//! | [`cli`] | the command line |

pub mod apply;
pub mod check;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod device;
pub mod explain;
pub mod files;
pub mod handover;
pub mod log;
pub mod meter;
pub mod preflight;
pub mod server;
pub mod session;
pub mod settings;
pub mod state;
pub mod transfer;
pub mod update;

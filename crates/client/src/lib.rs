//! The client: finds out which images take the device to where it should be, has them fetched and
//! verified, and hands them over to the upgrader by a command file.
//!
//! | module | its part |
//! | --- | --- |
//! | [`client`] | one device: check, download, prepare, apply; what both faces below call |
//! | [`cli`] | the command line |
//! | [`daemon`] | the service on the system bus |
//! | [`device`] | what the device says of itself: configuration, name, machine id |
//! | [`files`] | the directories that the client makes, and its files in them |
//! | [`server`] | the server's metadata and payloads by path |
//! | [`session`] | keyrings, channels and index of one run, each verified before it is read |
//! | [`transfer`] | payloads, by the engine in this process or the download manager |
//! | [`check`], [`explain`] | from a verified index to the update, and why this one |
//! | [`update`] | from an update to files in the drop box, each verified |
//! | [`handover`] | the drop box: keyrings and command file |
//! | [`apply`] | what happens to a prepared update |
//! | [`state`], [`settings`] | what is known from one run to the next; what other programs share |
//! | [`automatic`], [`power`] | what is done unasked, and when not |
//! | [`preflight`] | whatever would stop an update |
//! | [`log`], [`meter`] | the log file, progress as callers of the original read it |

pub mod apply;
pub mod automatic;
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
pub mod power;
pub mod preflight;
pub mod server;
pub mod session;
pub mod settings;
pub mod state;
pub mod transfer;
pub mod update;

//! A D-Bus service that downloads for other programs, and its command line for people.
//!
//! Somebody hands over URLs, walks away, and is told by signals how it goes. Nothing that is corrupt is
//! ever called finished, limits limit, and a download outlives its caller, this process and the device's
//! power. What a download is and may do is decided in [`job`], without I/O; [`transfer`] brings files;
//! [`daemon`] carries out; [`bus`] is what others see.

pub mod bus;
pub mod cli;
pub mod daemon;
pub mod host;
pub mod job;
pub mod log;
pub mod options;
pub mod records;
pub mod transfer;

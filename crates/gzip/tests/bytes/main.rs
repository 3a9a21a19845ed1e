//! The bytes that this crate writes, beside those of the programs whose they are.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod gzip;
mod peers;
mod streaming;
mod zlib;

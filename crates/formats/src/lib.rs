//! The files that servers, clients and upgraders agree on: channels, indexes, keyring
//! descriptions, version details, the command file, configuration; and the names, versions and
//! checksums inside them.
//!
//! Text is parsed here once, into types that cannot hold what the specification forbids, and
//! written back with the exact bytes that the original's parts read. Nothing here opens a file,
//! reads a clock or knows whether bytes are trusted: that is `trust`'s.

pub mod channel_ini;
pub mod channels;
pub mod checksum;
pub mod command;
pub mod config;
pub mod detail;
pub mod hash;
pub mod index;
pub mod ini;
pub mod json;
pub mod keyring;
pub mod name;
pub mod outline;
pub mod side;
pub mod time;
pub mod version;

//! The server: makes images of tarballs, deltas between them, signs everything and publishes it
//! as static files in channels.
//!
//! | module | its part |
//! | --- | --- |
//! | [`root`], [`config`], [`lock`] | where a server's files are, how it is configured, one writer |
//! | [`keys`] | keys and keyrings |
//! | [`tree`] | documents of the tree: verified when read, signed when written |
//! | [`payload`], [`version_file`], [`overlap`] | one file of an image |
//! | [`publish`] | an image, full and as deltas, visible in one step |
//! | [`serve`] | static files over HTTP |
//! | [`commands`] | the command line |

pub mod commands;
pub mod config;
pub mod keys;
pub mod lock;
pub mod overlap;
pub mod payload;
pub mod publish;
pub mod root;
pub mod serve;
pub mod tree;
pub mod version_file;

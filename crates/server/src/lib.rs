//! The server: makes images of tarballs, deltas between them, signs everything and publishes it
//! as static files in channels.
//!
//! | module | its part |
//! | --- | --- |
//! | [`root`], [`config`], [`lock`], [`history`], [`hooks`] | where a server's files are, how it is configured, one writer, who did what |
//! | [`keys`], [`resign`] | keys, keyrings, and what they sign |
//! | [`published`], [`tree`], [`aside`], [`noticed`] | documents of the tree: verified when read; signed when written |
//! | [`channel`], [`device`], [`follow`] | what can be done to channels and devices, and what follows them |
//! | [`input`], [`budget`], [`payload`], [`pool`], [`part`], [`version_file`], [`overlap`], [`delta_files`], [`bases`] | the files of an image |
//! | [`image`] | an image in the making: full and as deltas |
//! | [`publish`], [`promote`], [`tag`], [`withdraw`], [`phase`], [`expire`] | what happens to images |
//! | [`import`], [`generators`], [`rootfs`], [`packages`], [`android`], [`web`] | images of configured sources |
//! | [`references`], [`gc`], [`verify`], [`rebuild`], [`diff`], [`latest`] | the tree as a whole |
//! | [`remote`], [`mirror`] | another server, verified; copies of a tree |
//! | [`serve`] | static files over HTTP |
//! | [`commands`] | the command line |

pub mod android;
pub mod aside;
pub mod bases;
pub mod budget;
pub mod channel;
pub mod commands;
pub mod config;
pub mod delta_files;
pub mod device;
pub mod diff;
pub mod expire;
pub mod follow;
pub mod gc;
pub mod generators;
pub mod history;
pub mod hooks;
pub mod image;
pub mod import;
pub mod input;
pub mod keys;
pub mod latest;
pub mod lock;
pub mod mirror;
pub mod noticed;
pub mod overlap;
pub mod packages;
pub mod part;
pub mod patch_file;
pub mod payload;
pub mod phase;
pub mod pool;
pub mod promote;
pub mod publish;
pub mod published;
pub mod rebuild;
pub mod references;
pub mod remote;
pub mod resign;
pub mod root;
pub mod rootfs;
pub mod serve;
pub mod tag;
pub mod tree;
pub mod verify;
pub mod version_file;
pub mod web;
pub mod withdraw;

//! Fixture builders that make real things: keys, archives, published trees, servers, devices. A
//! dev-dependency only, so what goes wrong here panics.
//!
//! | to | use |
//! | --- | --- |
//! | describe a system, pack it, compare it | [`tree`], [`between`], [`xz`] |
//! | have a key for each role | [`Keys`] |
//! | publish images, right or wrong | [`Published`] |
//! | serve a published tree, with faults | [`Web`], [`Fault`] |
//! | answer requests byte by byte | [`http`] |
//! | serve a directory over TLS | [`Https`] |
//! | have a device that takes updates | [`Device`] |
//! | have a recovery that runs the upgrader | [`Recovery`] |
//! | have a block device | [`LoopDevice`] |
//! | run out of room | [`SmallDisk`] |
//! | have programs for another machine | [`aarch64`], [`Linked`] |
//! | have a kernel and a module with types | [`kernel_tree`] |
//! | have a message bus with services on it | [`Bus`], [`Mock`] |
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made ends its test"
)]

mod aarch64;
mod btf;
mod bus;
mod device;
mod disk;
pub mod http;
mod https;
mod keys;
mod loop_device;
mod monitor;
mod pack;
mod published;
mod recovery;
pub mod tree;
mod web;

pub use aarch64::{Linked, aarch64};
pub use btf::kernel_tree;
pub use bus::{Bus, Mock, Peer};
pub use device::Device;
pub use disk::SmallDisk;
pub use https::Https;
pub use keys::{Keys, MADE, keyring, sign};
pub use loop_device::LoopDevice;
pub use monitor::Monitor;
pub use pack::{between, patch, xz};
pub use published::{CHANNEL, DEVICE, Published};
pub use recovery::Recovery;
pub use web::{Fault, Web};

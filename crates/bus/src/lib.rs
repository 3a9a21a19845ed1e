//! What the device programs see of other services on the system bus, and the names of their own.
//!
//! | question | answer |
//! | --- | --- |
//! | what kind of network is there, and does it cost | [`Network`] |
//! | how full is the battery | [`Battery`] |
//! | may the caller change the device | [`access`] |
//! | who is a caller | [`credentials`] |
//! | who downloads | [`download`] |
//! | what is our own service called | [`service`] |
//!
//! Every fact has a pure function that decides it from what was read, and a thin layer that reads.
//! Where the service for a fact is missing the kernel is asked, and the answer says so: [`Source`].
//! A service that does not answer holds nothing up: every call has a time limit.
//!
//! All of it runs inside a `tokio` runtime with its timer on; one thread is enough.

pub mod access;
mod call;
pub mod credentials;
pub mod download;
mod kernel;
mod network;
mod power;
pub mod presence;
mod pump;
pub mod service;

pub use call::CallError;
pub use kernel::{Kernel, Source};
pub use network::{Changes, Disconnected, Link, Network};
pub use power::Battery;

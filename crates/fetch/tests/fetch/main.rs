//! Downloads over real sockets.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod compressed;
mod files;
mod hostile;
mod mirrors;
mod proxies;
mod receive;
mod redirects;
mod resume;
mod speed;
mod spread;
mod support;
mod tls;

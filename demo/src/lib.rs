//! The whole journey of an image on one machine: build, publish, serve, install, update, compare;
//! and how each step is measured, which the benchmarks use too.

pub mod compare;
pub mod device;
pub mod images;
pub mod journey;
pub mod measure;
pub mod proxy;
pub mod refusals;
pub mod server;
pub mod table;

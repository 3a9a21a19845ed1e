//! What the fuzz targets share.
//!
//! A fault is a panic: libFuzzer keeps the input that led to it.

pub mod body;
pub mod heap;
pub mod patched;
pub mod reference;
pub mod sections;

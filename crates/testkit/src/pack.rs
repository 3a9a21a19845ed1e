//! Update archives from system trees, as a server packs them.

use std::fs::File;
use std::io::Write;

use liblzma::write::XzEncoder;
use system_image_delta_build::{Options, delta};

use crate::tree::Tree;

/// The delta between two trees, uncompressed.
///
/// # Panics
/// If one of them is no system.
pub fn between(base: &Tree, target: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    delta(&stored(base), &stored(target), Options::default(), &mut out).unwrap();
    out
}

/// The bytes as an `.xz` file, packed in no time rather than well.
pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut xz = XzEncoder::new(Vec::new(), 0);
    xz.write_all(bytes).unwrap();
    xz.finish().unwrap()
}

fn stored(tree: &Tree) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&tree.tar()).unwrap();
    file
}

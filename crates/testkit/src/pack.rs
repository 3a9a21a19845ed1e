//! Update archives from system trees, as a server packs them.

use std::fs::File;
use std::io::Write;

use liblzma::write::XzEncoder;
use system_image_delta_build::{Options, delta, patch};

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

/// The patch that makes such a delta out of the files of the base, applied in 24 MiB.
///
/// # Panics
/// If one of them is no system.
pub fn patch(base: &Tree, target: &Tree) -> Vec<u8> {
    let mut delta = tempfile::tempfile().unwrap();
    delta.write_all(&between(base, target)).unwrap();
    let options = patch::Options {
        memory: 24 << 20,
        threads: 2,
        effort: patch::Effort::Default,
        packings: None,
    };
    let mut out = Vec::new();
    patch::make_for_tree(&stored(base), &|_| false, &delta, options, &mut out).unwrap();
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

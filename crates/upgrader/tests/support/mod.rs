//! A device whose recovery starts the real program, as its own process.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part, and fails by panic"
)]

use std::path::Path;

use system_image_formats::keyring::KeyringType;
pub(crate) use system_image_testkit::Recovery as Device;
use system_image_testkit::tree::Tree;
use system_image_testkit::{keyring, sign};

/// A device, with its system in a directory unless a test says otherwise.
pub(crate) fn device() -> Device {
    Device::new(env!("CARGO_BIN_EXE_system-image-upgrader"))
}

/// What the upgrader left for the running system.
pub(crate) fn outcome(device: &Device) -> serde_json::Value {
    serde_json::from_slice(&device.outcome()).unwrap()
}

/// Installs a tree in a directory, as an undisturbed device would.
pub(crate) fn expected(tree: &Tree, directory: &Path) {
    let fresh = device();
    fresh.in_directory(directory);
    fresh.full(tree);
    fresh.upgrade_well();
}

/// A blacklist of the key that signs images, with its signature.
pub(crate) fn blacklist_of_signing_key(device: &Device) -> (Vec<u8>, String) {
    let archive = keyring(KeyringType::Blacklist, &[&device.keys.image_signing]).pack();
    let signature = sign(&device.keys.image_master, &archive);
    (archive, signature)
}

//! Keyrings for one device, whose maker signs its images himself (server spec, section 10.4).

use anyhow::ensure;
use system_image_formats::keyring::{KeyringInfo, KeyringType};
use system_image_formats::name::DeviceName;
use system_image_trust::{Certificates, Keyring};

use super::sign_keyring;
use crate::published::DAY;
use crate::tree::Tree;

/// Makes a device-signing keyring of public keys that is good for `days`. Returns the archive and its
/// signature by image-signing.
pub fn keyring(
    tree: &Tree,
    device: &DeviceName,
    keys: Certificates,
    days: u32,
) -> anyhow::Result<(Vec<u8>, String)> {
    ensure!(!keys.is_empty(), "there is no public key in it");
    let mut info = KeyringInfo::new(KeyringType::DeviceSigning);
    info.expiry = Some(tree.now() + i64::from(days) * DAY);
    info.model = Some(device.clone());
    let keyring = Keyring {
        info,
        certificates: keys,
    };
    sign_keyring(tree.root(), tree.config(), &keyring, tree.now())
}

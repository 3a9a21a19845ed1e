//! A publisher's keys: one for each role, one to rotate to, and one that nobody trusts.

use rand_core::{CryptoRngCore, OsRng};
use system_image_formats::keyring::{KeyringInfo, KeyringType};
use system_image_trust::{KeyKind, Keyring, SecretKey};

/// When keys and signatures are made, in Unix seconds: in the past, and after GnuPG learnt Ed25519.
pub const MADE: i64 = 1_750_000_000;

/// Ed25519 keys, which are made in no time.
#[derive(Debug)]
pub struct Keys {
    /// The trust root.
    pub archive_master: SecretKey,
    /// Signs image-signing keyrings and blacklists.
    pub image_master: SecretKey,
    /// Signs channels, indexes and payloads.
    pub image_signing: SecretKey,
    /// Signs one device's index and payloads.
    pub device_signing: SecretKey,
    /// What an image-master key is rotated to; in no keyring unless a test puts it there.
    pub next_image_master: SecretKey,
    /// What an image-signing key is rotated to; in no keyring unless a test puts it there.
    pub next_image_signing: SecretKey,
    /// In no keyring.
    pub stranger: SecretKey,
}

impl Keys {
    /// A set of new keys.
    pub fn generate() -> Self {
        Self::from_rng(&mut OsRng)
    }

    /// The keys that these random numbers make: the same numbers make the same keys.
    pub fn from_rng(rng: &mut impl CryptoRngCore) -> Self {
        let mut key =
            |owner| SecretKey::generate(rng, KeyKind::Ed25519, owner, MADE, None).unwrap();
        Self {
            archive_master: key("Archive Master"),
            image_master: key("Image Master"),
            image_signing: key("Image Signing"),
            device_signing: key("Device Signing"),
            next_image_master: key("Next Image Master"),
            next_image_signing: key("Next Image Signing"),
            stranger: key("Stranger"),
        }
    }

    /// The key whose role this is.
    ///
    /// # Panics
    /// For a blacklist, which signs nothing.
    pub fn of(&self, kind: KeyringType) -> &SecretKey {
        match kind {
            KeyringType::ArchiveMaster => &self.archive_master,
            KeyringType::ImageMaster => &self.image_master,
            KeyringType::ImageSigning => &self.image_signing,
            KeyringType::DeviceSigning => &self.device_signing,
            KeyringType::Blacklist => panic!("a blacklist signs nothing"),
        }
    }

    /// The keyring with that key alone.
    pub fn keyring(&self, kind: KeyringType) -> Keyring {
        keyring(kind, &[self.of(kind)])
    }
}

/// A keyring of these keys, for any device, without expiry.
///
/// # Panics
/// If there is no key.
pub fn keyring(kind: KeyringType, keys: &[&SecretKey]) -> Keyring {
    let mut certificates = keys[0].certificate().clone();
    for key in &keys[1..] {
        certificates.update(key.certificate().clone());
    }
    Keyring {
        info: KeyringInfo::new(kind),
        certificates,
    }
}

/// The detached signature of `bytes`.
pub fn sign(key: &SecretKey, bytes: &[u8]) -> String {
    key.sign(bytes, MADE + 10).unwrap()
}

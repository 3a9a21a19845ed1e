//! The blacklist: keys that are refused everywhere, whatever else says that they are good (server
//! spec, section 10.5).

use anyhow::ensure;
use system_image_formats::keyring::KeyringType;
use system_image_trust::{Certificates, Fingerprint, Keyring};

use super::{Signer, info, open, publish, seal};
use crate::history::Event;
use crate::tree::Tree;

/// The blacklist as it is, without keys when there is none.
pub fn current(tree: &Tree) -> anyhow::Result<Keyring> {
    let role = KeyringType::Blacklist;
    let found = open(tree.root(), role)?;
    Ok(found.unwrap_or_else(|| Keyring {
        info: info(role, tree.now()),
        certificates: Certificates::default(),
    }))
}

/// Refuses keys from now on. A key that signs here must be rotated away first: everything that it
/// signed would be refused.
pub fn add(tree: &Tree, keys: Certificates) -> anyhow::Result<()> {
    ensure!(!keys.is_empty(), "there is no public key in it");
    for role in [
        KeyringType::ArchiveMaster,
        KeyringType::ImageMaster,
        KeyringType::ImageSigning,
    ] {
        let signer = Signer::of(tree.root(), tree.config(), role).ok();
        if let Some(key) = signer.and_then(|signer| signer.fingerprint()) {
            ensure!(
                !keys.contains(&key),
                "{key} signs as {role}: everything would be refused; `keys rotate {role}` first"
            );
        }
    }
    let names: Vec<_> = keys.fingerprints().map(|key| key.to_string()).collect();
    let mut keyring = current(tree)?;
    keyring.certificates.update(keys);
    let (root, config) = (tree.root(), tree.config());
    seal(root, config, &keyring, tree.now())?;
    publish(root, tree.store(), tree.now())?;
    tree.record(&Event::new("keys blacklist").with("added", names));
    Ok(())
}

/// Takes a key from the blacklist.
pub fn remove(tree: &Tree, key: Fingerprint) -> anyhow::Result<()> {
    let mut keyring = current(tree)?;
    ensure!(
        keyring.certificates.remove(&key),
        "{key} is not on the blacklist"
    );
    let (root, config) = (tree.root(), tree.config());
    seal(root, config, &keyring, tree.now())?;
    publish(root, tree.store(), tree.now())?;
    tree.record(&Event::new("keys blacklist").with("removed", key.to_string()));
    Ok(())
}

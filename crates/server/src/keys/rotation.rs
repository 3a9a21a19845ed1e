//! Keys come and go: a new key beside the old one, then in its place (server spec, section 10.6).
//!
//! Each step can be repeated, so a rotation that was interrupted is finished by running it again.
//! Readers never see what they cannot verify: the keyring with both keys is published before
//! anything is signed by the new one, and the old one leaves it after nothing is signed by it.

use std::fs;

use anyhow::{Context, bail, ensure};
use camino::Utf8PathBuf;
use system_image_durable::{remove, rename};
use system_image_formats::keyring::KeyringType;
use system_image_trust::{Certificates, Fingerprint, SecretKey};

use super::{Recipe, Signer, generate, info, publish, required, seal};
use crate::history::Event;
use crate::resign::resign;
use crate::root::Root;
use crate::tree::Tree;

/// Gives a role a new key. What the old one signed is signed by the new one afterwards; the old one
/// stays in the keyring until it is retired.
pub fn rotate(tree: &Tree, role: KeyringType, recipe: &Recipe) -> anyhow::Result<Fingerprint> {
    let (root, config) = (tree.root(), tree.config());
    ensure!(
        matches!(
            role,
            KeyringType::ArchiveMaster | KeyringType::ImageMaster | KeyringType::ImageSigning
        ),
        "a {role} key is not rotated here: make a new keyring of it"
    );
    let Signer::Key(current) = Signer::of(root, config, role)? else {
        bail!(
            "the {role} key is not a file here: make a new one where it is, `keys add {role}` its \
             public key, let the old place sign with it, and `resign`"
        );
    };
    let next = next_key(root, role);
    let mut keyring = required(root, role)?;
    if !next.exists() && is_unfinished(tree, role, &current)? {
        return finish(tree, role, current.fingerprint());
    }
    let key = if next.exists() {
        let text = fs::read(&next).with_context(|| format!("cannot read `{next}`"))?;
        SecretKey::from_armored(&text).with_context(|| format!("`{next}` is not usable"))?
    } else {
        generate(&next, role, recipe, tree.now())?
    };
    let new = key.fingerprint();
    keyring.certificates.update(key.certificate().clone());
    keyring.info = info(role, tree.now());
    seal(root, config, &keyring, tree.now())?;
    publish(root, tree.store(), tree.now())?;
    if role == KeyringType::ArchiveMaster {
        // Devices must get the new one by an image before anything is signed by it.
        tree.record(&Event::new("keys rotate").with("role", role.as_str()));
        return Ok(new);
    }
    switch(root, role, &current)?;
    finish(tree, role, new)
}

/// The new key takes the place of the current one, which is kept beside it.
fn switch(root: &Root, role: KeyringType, current: &SecretKey) -> anyhow::Result<()> {
    let (place, next) = (root.secret_key(role), next_key(root, role));
    let old = root
        .keys()
        .join(role.as_str())
        .join(format!("retired-{}.asc", current.fingerprint()));
    super::write_secret(&old, current.to_armored().as_bytes())
        .with_context(|| format!("cannot write `{old}`"))?;
    rename(next.as_std_path(), place.as_std_path())
        .with_context(|| format!("cannot replace `{place}`"))
}

/// What the role signs is signed by its present key.
fn finish(tree: &Tree, role: KeyringType, new: Fingerprint) -> anyhow::Result<Fingerprint> {
    let (root, config) = (tree.root(), tree.config());
    match role {
        KeyringType::ImageSigning => {
            resign(&tree.reopened()?, false)?;
        }
        KeyringType::ImageMaster => {
            for kind in [KeyringType::ImageSigning, KeyringType::Blacklist] {
                if let Some(keyring) = super::open(root, kind)? {
                    seal(root, config, &keyring, tree.now())?;
                }
            }
            publish(root, tree.store(), tree.now())?;
        }
        KeyringType::ArchiveMaster => {
            for kind in [KeyringType::ArchiveMaster, KeyringType::ImageMaster] {
                seal(root, config, &required(root, kind)?, tree.now())?;
            }
            publish(root, tree.store(), tree.now())?;
        }
        KeyringType::DeviceSigning | KeyringType::Blacklist => {}
    }
    let event = Event::new("keys rotate").with("role", role.as_str());
    tree.record(&event.with("key", new.to_string()));
    Ok(new)
}

/// Whether the present key is new and not everything is signed by it yet.
fn is_unfinished(tree: &Tree, role: KeyringType, current: &SecretKey) -> anyhow::Result<bool> {
    let below = match role {
        KeyringType::ImageSigning => {
            return Ok(!crate::resign::is_signed_by(tree, &current.fingerprint())?);
        }
        KeyringType::ImageMaster => KeyringType::ImageSigning,
        _ => return Ok(false),
    };
    let place = format!("{}.asc", tree.root().keyring(below));
    let text = fs::read(&place).with_context(|| format!("cannot read `{place}`"))?;
    let signature = system_image_trust::DetachedSignature::parse(&text);
    let by_current = signature.is_ok_and(|signature| {
        let issuers = signature.issuers();
        issuers
            .iter()
            .any(|issuer| issuer.is(&current.fingerprint()))
    });
    Ok(!by_current)
}

/// Takes a key out of its role's keyring. For archive-master, a key that waits takes the place of
/// the one that goes: do it when every device has had an image with the new keyring.
pub fn retire(tree: &Tree, role: KeyringType, key: Fingerprint) -> anyhow::Result<()> {
    let (root, config) = (tree.root(), tree.config());
    let mut keyring = required(root, role)?;
    ensure!(
        keyring.certificates.contains(&key),
        "the {role} keyring has no key {key}"
    );
    let current = Signer::of(root, config, role)
        .ok()
        .and_then(|signer| signer.fingerprint());
    if current == Some(key) {
        let waits = role == KeyringType::ArchiveMaster && next_key(root, role).exists();
        ensure!(
            waits,
            "{key} signs what {role} signs; `keys rotate {role}` first"
        );
        if let Signer::Key(current) = Signer::of(root, config, role)? {
            switch(root, role, &current)?;
        }
        finish(tree, role, key)?;
        keyring = required(root, role)?;
    } else if role == KeyringType::ImageSigning {
        // What is still signed by it would be lost to devices.
        resign(tree, false)?;
    }
    keyring.certificates.remove(&key);
    ensure!(
        !keyring.certificates.is_empty(),
        "the {role} keyring would be empty"
    );
    seal(root, config, &keyring, tree.now())?;
    publish(root, tree.store(), tree.now())?;
    let event = Event::new("keys retire").with("role", role.as_str());
    tree.record(&event.with("key", key.to_string()));
    Ok(())
}

/// Puts public keys into a role's keyring.
pub fn add(tree: &Tree, role: KeyringType, keys: Certificates) -> anyhow::Result<()> {
    let (root, config) = (tree.root(), tree.config());
    let mut keyring = required(root, role)?;
    ensure!(!keys.is_empty(), "there is no public key in it");
    keyring.certificates.update(keys);
    seal(root, config, &keyring, tree.now())?;
    publish(root, tree.store(), tree.now())?;
    tree.record(&Event::new("keys add").with("role", role.as_str()));
    Ok(())
}

/// Signs a role's keyring again, with a new expiry where its type has one.
pub fn renew(tree: &Tree, role: KeyringType) -> anyhow::Result<()> {
    let (root, config) = (tree.root(), tree.config());
    let mut keyring = required(root, role)?;
    let fresh = info(role, tree.now());
    keyring.info.expiry = fresh.expiry;
    seal(root, config, &keyring, tree.now())?;
    publish(root, tree.store(), tree.now())?;
    tree.record(&Event::new("keys renew").with("role", role.as_str()));
    Ok(())
}

/// A new key that does not sign yet.
fn next_key(root: &Root, role: KeyringType) -> Utf8PathBuf {
    root.keys().join(role.as_str()).join("next-secret-key.asc")
}

/// Forgets a new key that does not sign yet.
pub fn abandon(root: &Root, role: KeyringType) -> anyhow::Result<()> {
    let next = next_key(root, role);
    remove(&next).with_context(|| format!("cannot remove `{next}`"))
}

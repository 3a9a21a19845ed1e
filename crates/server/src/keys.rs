//! The server's keys and keyrings: generate what is missing, load what signs, publish what
//! devices fetch (server spec, section 10).

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;

use anyhow::Context;
use camino::Utf8Path;
use system_image_durable::replace;
use system_image_formats::keyring::{KeyringInfo, KeyringType};
use system_image_formats::name::TreePath;
use system_image_store::Store;
use system_image_trust::{KeyKind, Keyring, SecretKey};

use crate::root::Root;

/// Two years: validity of what signs daily (server spec, section 10.1).
const TWO_YEARS: u32 = 63_072_000;

/// The roles that get a key when a server is set up. A device key is made for a third party, and
/// a blacklist when a key has to be refused.
const ROLES: [KeyringType; 3] = [
    KeyringType::ArchiveMaster,
    KeyringType::ImageMaster,
    KeyringType::ImageSigning,
];

/// Makes the keys and packed keyrings that are missing. Returns the roles that got a new key.
pub fn set_up(
    root: &Root,
    kind: KeyKind,
    owner: &str,
    email: &str,
    now: i64,
) -> anyhow::Result<Vec<KeyringType>> {
    let new: Vec<_> = ROLES
        .into_iter()
        .filter(|role| !root.secret_key(*role).exists())
        .collect();
    // Finding the primes of an RSA key takes seconds, so each key has a thread.
    std::thread::scope(|scope| {
        let running: Vec<_> = new
            .iter()
            .map(|role| scope.spawn(move || generate(root, *role, kind, owner, email, now)))
            .collect();
        let finished = running
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"));
        finished.collect::<anyhow::Result<()>>()
    })?;
    for role in ROLES {
        // A new signer makes the old signature worthless.
        if new.contains(&role) || new.contains(&role.signer()) || !is_packed(root, role) {
            pack(root, role, now)?;
        }
    }
    Ok(new)
}

fn generate(
    root: &Root,
    role: KeyringType,
    kind: KeyKind,
    owner: &str,
    email: &str,
    now: i64,
) -> anyhow::Result<()> {
    eprintln!("generating the {role} key");
    let user_id = format!("{owner} {} key <{email}>", role_name(role));
    let validity = (role == KeyringType::ImageSigning).then_some(TWO_YEARS);
    let key = SecretKey::generate(&mut rand_core::OsRng, kind, &user_id, now, validity)
        .with_context(|| format!("cannot generate the {role} key"))?;
    let place = root.secret_key(role);
    write_secret(&place, key.to_armored().as_bytes())
        .with_context(|| format!("cannot write `{place}`"))
}

fn role_name(role: KeyringType) -> &'static str {
    match role {
        KeyringType::ArchiveMaster => "Archive Master",
        KeyringType::ImageMaster => "Image Master",
        KeyringType::ImageSigning => "Image Signing",
        KeyringType::DeviceSigning => "Device Signing",
        KeyringType::Blacklist => "Blacklist Signing",
    }
}

fn signature_of(keyring: &Utf8Path) -> camino::Utf8PathBuf {
    format!("{keyring}.asc").into()
}

fn is_packed(root: &Root, role: KeyringType) -> bool {
    let keyring = root.keyring(role);
    keyring.exists() && signature_of(&keyring).exists()
}

/// Packs the keyring of one role from its key and signs it with the key that signs that type.
fn pack(root: &Root, role: KeyringType, now: i64) -> anyhow::Result<()> {
    let mut info = KeyringInfo::new(role);
    info.expiry = (role == KeyringType::ImageSigning).then(|| now + i64::from(TWO_YEARS));
    let certificates = load(root, role)?.certificate().clone();
    let archive = Keyring { info, certificates }.pack();
    let signature = load(root, role.signer())?.sign(&archive[..], now)?;
    let place = root.keyring(role);
    replace(&place, &archive, 0o644)
        .and_then(|()| replace(signature_of(&place), signature.as_bytes(), 0o644))
        .with_context(|| format!("cannot write `{place}`"))
}

/// Loads the private key of one role.
pub fn load(root: &Root, role: KeyringType) -> anyhow::Result<SecretKey> {
    let place = root.secret_key(role);
    let text = fs::read(&place).with_context(|| format!("cannot read `{place}`"))?;
    SecretKey::from_armored(&text).with_context(|| format!("`{place}` is not usable"))
}

/// Copies the packed keyrings into the tree's `gpg/`, those that changed.
pub fn publish(root: &Root, store: &dyn Store) -> anyhow::Result<()> {
    for role in ROLES {
        let place = root.keyring(role);
        let read =
            |place: &Utf8Path| fs::read(place).with_context(|| format!("cannot read `{place}`"));
        let (archive, signature) = (read(&place)?, read(&signature_of(&place))?);
        let path: TreePath = format!("/gpg/{role}.tar.xz").parse()?;
        if store.read(&path, 1 << 20)?.as_deref() != Some(&archive[..])
            || store.read(&path.with_suffix(".asc")?, 1 << 20)?.as_deref() != Some(&signature[..])
        {
            store.replace(&path, &archive, &signature)?;
        }
    }
    Ok(())
}

/// The key that signs channels, indexes and payloads.
#[derive(Debug)]
pub struct ImageSigner {
    key: SecretKey,
    now: i64,
}

impl ImageSigner {
    /// Loads the image-signing key; `now` is the time of its signatures.
    pub fn load(root: &Root, now: i64) -> anyhow::Result<Self> {
        let kind = KeyringType::ImageSigning;
        let key = load(root, kind)?;
        Ok(Self { key, now })
    }

    /// The detached signature of what `data` yields.
    pub fn sign(&self, data: impl Read) -> anyhow::Result<String> {
        self.key.sign(data, self.now).context("cannot sign")
    }
}

/// Writes a file that only its owner can read, in a directory that only he can enter.
fn write_secret(place: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
    let directory = place.parent().ok_or(io::ErrorKind::InvalidFilename)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    replace(place, bytes, 0o600)
}

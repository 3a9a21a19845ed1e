//! The server's keys and keyrings (server spec, section 10).
//!
//! A role's private key lies in its directory, or elsewhere; its public keys are those of its packed
//! keyring, which is the only record of them.

pub mod blacklist;
pub mod device;
pub mod report;
pub mod rotation;
mod signer;

use std::fs;
use std::io::{self, Cursor, Read, Seek};
use std::os::unix::fs::DirBuilderExt;

use anyhow::{Context, anyhow, ensure};
use camino::Utf8Path;
use system_image_durable::{present, replace};
use system_image_formats::keyring::{KeyringInfo, KeyringType};
use system_image_formats::name::TreePath;
use system_image_store::Store;
use system_image_trust::{
    Certificates, Fingerprint, KeyKind, Keyring, Now, SecretKey, Signers, Verified,
};

pub use self::signer::Signer;
use crate::config::Config;
use crate::root::Root;

/// Two years: validity of what signs daily (server spec, section 10.1).
pub const TWO_YEARS: u32 = 63_072_000;

/// The roles that get a key when a server is set up. A device key is made for a third party, and
/// a blacklist when a key has to be refused.
const ROLES: [KeyringType; 3] = [
    KeyringType::ArchiveMaster,
    KeyringType::ImageMaster,
    KeyringType::ImageSigning,
];

/// The roles whose keyrings devices fetch, in the order in which each is signed by one before it.
pub const PUBLISHED: [KeyringType; 4] = [
    KeyringType::ArchiveMaster,
    KeyringType::ImageMaster,
    KeyringType::ImageSigning,
    KeyringType::Blacklist,
];

/// How new keys are made.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Their kind.
    pub kind: KeyKind,
    /// The name in front of the role.
    pub owner: String,
    /// The address.
    pub email: String,
}

/// Makes the keys and packed keyrings that are missing. Returns the roles that got a new key.
pub fn set_up(
    root: &Root,
    config: &Config,
    recipe: &Recipe,
    now: i64,
) -> anyhow::Result<Vec<KeyringType>> {
    let new: Vec<_> = ROLES
        .into_iter()
        .filter(|role| Signer::of(root, config, *role).is_err() && !root.secret_key(*role).exists())
        .collect();
    // Finding the primes of an RSA key takes seconds, so each key has a thread.
    std::thread::scope(|scope| {
        let running: Vec<_> = new
            .iter()
            .map(|role| {
                let place = root.secret_key(*role);
                scope.spawn(move || generate(&place, *role, recipe, now).map(drop))
            })
            .collect();
        let finished = running
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"));
        finished.collect::<anyhow::Result<()>>()
    })?;
    for role in ROLES {
        // A new signer makes the old signature worthless.
        if new.contains(&role) || new.contains(&role.signer()) || !is_packed(root, role) {
            let Signer::Key(key) = Signer::of(root, config, role)? else {
                ensure!(
                    is_packed(root, role),
                    "the {role} keyring is missing, and its key is not a file here: pack it where \
                     the key is"
                );
                continue;
            };
            let keyring = Keyring {
                info: info(role, now),
                certificates: key.certificate().clone(),
            };
            seal(root, config, &keyring, now)?;
        }
    }
    Ok(new)
}

/// Makes a key for a role and writes it to `place`.
pub fn generate(
    place: &Utf8Path,
    role: KeyringType,
    recipe: &Recipe,
    now: i64,
) -> anyhow::Result<SecretKey> {
    eprintln!("generating the {role} key");
    let Recipe { kind, owner, email } = recipe;
    let user_id = format!("{owner} {} key <{email}>", role_name(role));
    let expires = matches!(
        role,
        KeyringType::ImageSigning | KeyringType::DeviceSigning | KeyringType::Blacklist
    );
    let validity = expires.then_some(TWO_YEARS);
    let key = SecretKey::generate(&mut rand_core::OsRng, *kind, &user_id, now, validity)
        .with_context(|| format!("cannot generate the {role} key"))?;
    write_secret(place, key.to_armored().as_bytes())
        .with_context(|| format!("cannot write `{place}`"))?;
    Ok(key)
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

/// What a new keyring of a role says of itself (server spec, section 10.3).
pub fn info(role: KeyringType, now: i64) -> KeyringInfo {
    let mut info = KeyringInfo::new(role);
    info.expiry = (role == KeyringType::ImageSigning).then(|| now + i64::from(TWO_YEARS));
    info
}

fn signature_of(keyring: &Utf8Path) -> camino::Utf8PathBuf {
    format!("{keyring}.asc").into()
}

fn is_packed(root: &Root, role: KeyringType) -> bool {
    let keyring = root.keyring(role);
    keyring.exists() && signature_of(&keyring).exists()
}

/// Packs a keyring and has it signed by the role that signs its type. Returns archive and signature.
pub fn sign_keyring(
    root: &Root,
    config: &Config,
    keyring: &Keyring,
    now: i64,
) -> anyhow::Result<(Vec<u8>, String)> {
    let signer_role = keyring.info.kind.signer();
    let signer = Signer::of(root, config, signer_role)
        .with_context(|| format!("the {signer_role} key must sign this"))?;
    let archive = keyring.pack();
    let trusted = match (&signer, open(root, signer_role)?) {
        (Signer::Key(key), _) => key.certificate().clone(),
        (_, Some(keyring)) => keyring.certificates,
        (_, None) if signer_role == keyring.info.kind => keyring.certificates.clone(),
        (_, None) => return Err(anyhow!("the {signer_role} keyring is missing")),
    };
    let signature = signer.sign(Cursor::new(&archive), now, &trusted)?;
    Ok((archive, signature))
}

/// Packs a keyring, has it signed, and puts it in the place of the role's.
pub fn seal(root: &Root, config: &Config, keyring: &Keyring, now: i64) -> anyhow::Result<()> {
    let (archive, signature) = sign_keyring(root, config, keyring, now)?;
    let place = root.keyring(keyring.info.kind);
    replace(&place, &archive, 0o644)
        .and_then(|()| replace(signature_of(&place), signature.as_bytes(), 0o644))
        .with_context(|| format!("cannot write `{place}`"))
}

/// The packed keyring of a role; `None` when there is none.
pub fn open(root: &Root, role: KeyringType) -> anyhow::Result<Option<Keyring>> {
    let place = root.keyring(role);
    let found = present(fs::read(&place)).with_context(|| format!("cannot read `{place}`"))?;
    // Our own file, beside the private keys: whoever can change it can sign.
    let opened = found.map(|archive| Keyring::open(&Verified::trust_unsigned_for_testing(archive)));
    opened
        .transpose()
        .with_context(|| format!("`{place}` is damaged"))
}

/// The packed keyring of a role, which must be there.
pub fn required(root: &Root, role: KeyringType) -> anyhow::Result<Keyring> {
    let keyring = open(root, role)?;
    keyring.with_context(|| format!("there is no packed keyring `{}`", root.keyring(role)))
}

/// Copies the packed keyrings into the tree's `gpg/`, those that changed. One whose signature is not
/// good is not let out.
pub fn publish(root: &Root, store: &dyn Store, now: i64) -> anyhow::Result<()> {
    for role in PUBLISHED {
        let place = root.keyring(role);
        if role == KeyringType::Blacklist && !is_packed(root, role) {
            continue;
        }
        let read =
            |place: &Utf8Path| fs::read(place).with_context(|| format!("cannot read `{place}`"));
        let (archive, signature) = (read(&place)?, read(&signature_of(&place))?);
        let signed_by = required(root, role.signer())?.certificates;
        let signers = Signers::new([&signed_by], Now::from_clock(now));
        let checked = signers.verify(&archive, &signature).map(drop);
        checked.with_context(|| {
            format!(
                "`{place}` is not signed by {}; `keys renew {role}` signs it",
                role.signer()
            )
        })?;
        let path: TreePath = format!("/gpg/{role}.tar.xz").parse()?;
        if store.read(&path, 4 << 20)?.as_deref() != Some(&archive[..])
            || store.read(&path.with_suffix(".asc")?, 1 << 20)?.as_deref() != Some(&signature[..])
        {
            store.replace(&path, &archive, &signature)?;
        }
    }
    Ok(())
}

/// What signs channels, indexes and payloads.
#[derive(Debug)]
pub struct ImageSigner {
    signer: Signer,
    trusted: Certificates,
    now: i64,
}

impl ImageSigner {
    /// The signer of the image-signing role; `now` is the time of its signatures. Refused when
    /// devices would not accept its key.
    pub fn load(root: &Root, config: &Config, now: i64) -> anyhow::Result<Self> {
        let role = KeyringType::ImageSigning;
        let signer = Signer::of(root, config, role)?;
        let keyring = required(root, role)?;
        if let Some(key) = signer.fingerprint() {
            ensure!(
                keyring.certificates.contains(&key),
                "the {role} key {key} is not in its keyring, so devices would not accept what it \
                 signs; `keys add {role}` puts it there"
            );
            let ends = keyring
                .certificates
                .facts()
                .find(|facts| facts.fingerprint == key)
                .and_then(|facts| facts.expires);
            ensure!(
                ends.is_none_or(|end| now < end),
                "the {role} key {key} has expired; `keys rotate {role}` makes a new one"
            );
        }
        ensure!(
            !keyring.info.is_expired(now),
            "the {role} keyring has expired; `keys renew {role}` gives it another two years"
        );
        Ok(Self {
            signer,
            trusted: keyring.certificates,
            now,
        })
    }

    /// The key that signs, where that is known without a signature.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.signer.fingerprint()
    }

    /// The detached signature of what `data` holds from its beginning.
    pub fn sign(&self, data: impl Read + Seek) -> anyhow::Result<String> {
        self.signer.sign(data, self.now, &self.trusted)
    }
}

/// Writes a file that only its owner can read, in a directory that only he can enter.
pub fn write_secret(place: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
    let directory = place.parent().ok_or(io::ErrorKind::InvalidFilename)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    replace(place, bytes, 0o600)
}

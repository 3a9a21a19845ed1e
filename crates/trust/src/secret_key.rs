//! Secret keys: generate, store, sign.
//!
//! In: a random generator, the time, data. Out: keys, certificates and detached signatures that
//! GnuPG reads, and that [`Signers`](crate::Signers) accepts. Where a key is kept is the caller's.

use std::io::{self, Read};

use pgp::composed::KeyType;
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{
    self as pgp_packet, KeyFlags, PacketHeader, PacketTrait, PubKeyInner, PublicKey, Signature,
    SignatureConfig, SignatureType, Subpacket, SubpacketData, UserId,
};
use pgp::ser::Serialize as _;
use pgp::types::{
    Duration, KeyDetails, KeyVersion, PacketHeaderVersion, Password, SecretParams, SigningKey, Tag,
    Timestamp,
};
use rand_core::{CryptoRng, RngCore};

use crate::armor::{self, ArmorError};
use crate::certificate::Standing;
use crate::certificates::{Certificates, CertificatesError};
use crate::fingerprint::Fingerprint;
use crate::packet::{self, PacketError, tag};

/// Longest secret key file, in bytes.
const MAX_LEN: usize = 1 << 20;

/// Longest user id, in bytes: GnuPG's own limit.
const MAX_USER_ID: usize = 2048;

/// The digest of what is said of keys.
const DIGEST: HashAlgorithm = HashAlgorithm::Sha512;

/// What kind of key to generate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// The largest of the original's keys; GnuPG 1.4, which old recoveries carry, reads it.
    #[default]
    Rsa4096,
    /// As [`Rsa4096`](Self::Rsa4096), faster.
    Rsa3072,
    /// What the original's first servers used.
    Rsa2048,
    /// Small and fast; GnuPG reads it from 2.1 on, old recoveries do not.
    Ed25519,
}

/// Why there is no secret key.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// The text is not one armoured secret key.
    #[error("not an armoured secret key")]
    Armor(#[from] ArmorError),
    /// The armour's content is damaged.
    #[error("the secret key is damaged")]
    Packets(#[from] PacketError),
    /// The public part is not a certificate.
    #[error("the secret key's certificate is damaged")]
    Certificate(#[from] CertificatesError),
    /// Not exactly one primary key.
    #[error("there must be one secret key, with its subkeys at most")]
    NotOne,
    /// The key is protected by a passphrase, or its secret part is on a card or missing.
    #[error("the secret key is locked or not there")]
    Locked,
    /// No key in it that may sign data.
    #[error("there is no usable signing key in it")]
    CannotSign,
    /// A user id that is empty, too long, or has control characters.
    #[error("not a user id for a key")]
    UserId,
    /// A time before 1970 or after 2106, which OpenPGP cannot express.
    #[error("OpenPGP cannot express this time: {0} seconds since 1970")]
    Time(i64),
    /// The cryptographic library failed.
    #[error("the key could not be generated or used")]
    Library(#[source] Box<pgp::errors::Error>),
    /// The data that is to be signed could not be read.
    #[error("cannot read the data to sign")]
    Read(#[source] io::Error),
}

impl SecretKeyError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Armor(_) | Self::NotOne => {
                Some("export one key with `gpg --armor --export-secret-keys FINGERPRINT`")
            }
            Self::Locked => Some("remove the passphrase from a copy of the key"),
            Self::UserId => Some("a user id looks like `Name <mail@example.org>`"),
            Self::Time(_) => Some("check the clock"),
            _ => None,
        }
    }
}

impl From<pgp::errors::Error> for SecretKeyError {
    fn from(error: pgp::errors::Error) -> Self {
        Self::Library(Box::new(error))
    }
}

/// A secret key without a passphrase, and its certificate.
pub struct SecretKey {
    /// The whole packet sequence, as it is stored.
    packets: Vec<u8>,
    certificate: Certificates,
    fingerprint: Fingerprint,
    signing: Signing,
}

enum Signing {
    Primary(Box<pgp_packet::SecretKey>),
    Subkey(Box<pgp_packet::SecretSubkey>),
}

impl SecretKey {
    /// Generates a key for signing, created at `now` (Unix seconds), that expires `validity`
    /// seconds later, or never. RSA keys of 4096 bits take some seconds.
    pub fn generate(
        rng: &mut (impl CryptoRng + RngCore),
        kind: KeyKind,
        user_id: &str,
        now: i64,
        validity: Option<u32>,
    ) -> Result<Self, SecretKeyError> {
        let printable = !user_id.trim().is_empty() && !user_id.chars().any(char::is_control);
        if !printable || user_id.len() > MAX_USER_ID {
            return Err(SecretKeyError::UserId);
        }
        let created = timestamp(now)?;
        let kind = match kind {
            KeyKind::Rsa4096 => KeyType::Rsa(4096),
            KeyKind::Rsa3072 => KeyType::Rsa(3072),
            KeyKind::Rsa2048 => KeyType::Rsa(2048),
            KeyKind::Ed25519 => KeyType::Ed25519Legacy,
        };
        let (public, secret) = kind.generate(rng)?;
        let public = PubKeyInner::new(KeyVersion::V4, kind.to_alg(), created, None, public)?;
        let public = PublicKey::from_inner(public)?;
        let key = pgp_packet::SecretKey::new(public.clone(), secret)?;
        let id = UserId::from_str(PacketHeaderVersion::Old, user_id)?;
        let self_signature = certify(&key, &public, &id, created, validity)?;

        let mut packets = Vec::new();
        packet::write(&mut packets, tag::SECRET_KEY, &key.to_bytes()?);
        packet::write(&mut packets, tag::USER_ID, id.id());
        packet::write(&mut packets, tag::SIGNATURE, &self_signature.to_bytes()?);
        Self::read(&packets)
    }

    /// Reads an armoured secret key, ours or as GnuPG exports it. If the primary key is not for
    /// signing, its first subkey that is will sign.
    pub fn from_armored(text: &[u8]) -> Result<Self, SecretKeyError> {
        if text.len() > MAX_LEN {
            return Err(SecretKeyError::Armor(ArmorError::Damaged));
        }
        Self::read(&armor::read(text, armor::PRIVATE_KEY)?)
    }

    fn read(packets: &[u8]) -> Result<Self, SecretKeyError> {
        let mut public = Vec::new();
        let mut secrets = Vec::new();
        for raw in packet::packets(packets) {
            let raw = raw?;
            let header = |tag| {
                PacketHeader::new_fixed(tag, u32::try_from(raw.body.len()).unwrap_or(u32::MAX))
            };
            match raw.tag {
                tag::SECRET_KEY => {
                    let key =
                        pgp_packet::SecretKey::try_from_reader(header(Tag::SecretKey), raw.body)?;
                    packet::write(&mut public, tag::PUBLIC_KEY, &key.public_key().to_bytes()?);
                    secrets.push(Signing::Primary(Box::new(key)));
                }
                tag::SECRET_SUBKEY => {
                    let key = pgp_packet::SecretSubkey::try_from_reader(
                        header(Tag::SecretSubkey),
                        raw.body,
                    )?;
                    packet::write(
                        &mut public,
                        tag::PUBLIC_SUBKEY,
                        &key.public_key().to_bytes()?,
                    );
                    secrets.push(Signing::Subkey(Box::new(key)));
                }
                other => packet::write(&mut public, other, raw.body),
            }
        }
        let primaries = secrets
            .iter()
            .filter(|key| matches!(key, Signing::Primary(_)))
            .count();
        let certificate = Certificates::parse(&public)?;
        if primaries != 1 || certificate.len() != 1 {
            return Err(SecretKeyError::NotOne);
        }
        let signs = |key: &Signing| {
            let found = certificate.find(key.fingerprint()?.into()).next()?;
            (found.standing == Standing::Signs).then_some(found.fingerprint)
        };
        let signing = secrets
            .into_iter()
            .find_map(|key| signs(&key).map(|name| (key, name)));
        let (signing, fingerprint) = signing.ok_or(SecretKeyError::CannotSign)?;
        if !signing.is_unlocked() {
            return Err(SecretKeyError::Locked);
        }
        Ok(Self {
            packets: packets.to_vec(),
            certificate,
            fingerprint,
            signing,
        })
    }

    /// The secret key in ASCII armour, unprotected: for a file that only its owner can read.
    pub fn to_armored(&self) -> String {
        armor::write(&self.packets, armor::PRIVATE_KEY)
    }

    /// The public key, for a keyring.
    pub fn certificate(&self) -> &Certificates {
        &self.certificate
    }

    /// The key that signs, primary or subkey.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Signs `data`, read once to its end, at `now` (Unix seconds): the text of a `.asc` file as
    /// in server spec 10.2. The digest is SHA-256, by which indexes name files and which whoever
    /// verifies one computes anyway; for keys on large curves it is the one of their size.
    pub fn sign(&self, data: impl Read, now: i64) -> Result<String, SecretKeyError> {
        let created = timestamp(now)?;
        let signature = match &self.signing {
            Signing::Primary(key) => sign(&**key, data, created)?,
            Signing::Subkey(key) => sign(&**key, data, created)?,
        };
        let mut packets = Vec::new();
        packet::write(&mut packets, tag::SIGNATURE, &signature.to_bytes()?);
        Ok(armor::write(&packets, armor::SIGNATURE))
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretKey")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Signing {
    fn fingerprint(&self) -> Option<Fingerprint> {
        let fingerprint = match self {
            Self::Primary(key) => key.fingerprint(),
            Self::Subkey(key) => key.fingerprint(),
        };
        let bytes: [u8; 20] = fingerprint.as_bytes().try_into().ok()?;
        Some(bytes.into())
    }

    fn is_unlocked(&self) -> bool {
        let params = match self {
            Self::Primary(key) => key.secret_params(),
            Self::Subkey(key) => key.secret_params(),
        };
        matches!(params, SecretParams::Plain(_))
    }
}

fn timestamp(seconds: i64) -> Result<Timestamp, SecretKeyError> {
    u32::try_from(seconds)
        .map(Timestamp::from_secs)
        .map_err(|_| SecretKeyError::Time(seconds))
}

fn sign(
    key: &impl SigningKey,
    mut data: impl Read,
    created: Timestamp,
) -> Result<Signature, SecretKeyError> {
    let (algorithm, digest) = (key.algorithm(), key.hash_alg());
    let mut config = SignatureConfig::v4(SignatureType::Binary, algorithm, digest);
    name_issuer(&mut config, key, created)?;
    let mut hasher = config.into_hasher()?;
    io::copy(&mut data, &mut hasher).map_err(SecretKeyError::Read)?;
    Ok(hasher.sign(key, &Password::empty())?)
}

/// The self-signature that makes a user id and a key a certificate for signing.
fn certify(
    key: &pgp_packet::SecretKey,
    public: &PublicKey,
    id: &UserId,
    created: Timestamp,
    validity: Option<u32>,
) -> Result<Signature, SecretKeyError> {
    let mut config = SignatureConfig::v4(SignatureType::CertPositive, key.algorithm(), DIGEST);
    name_issuer(&mut config, key, created)?;
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(true);
    let mut more = vec![
        SubpacketData::KeyFlags(flags),
        SubpacketData::PreferredHashAlgorithms(
            [
                HashAlgorithm::Sha512,
                HashAlgorithm::Sha384,
                HashAlgorithm::Sha256,
            ]
            .into_iter()
            .collect(),
        ),
    ];
    more.extend(
        validity.map(|seconds| SubpacketData::KeyExpirationTime(Duration::from_secs(seconds))),
    );
    for data in more {
        config.hashed_subpackets.push(Subpacket::regular(data)?);
    }
    Ok(config.sign_certification(key, public, &Password::empty(), id.tag(), id)?)
}

/// As GnuPG: fingerprint and time are signed, the key id for old readers is not.
fn name_issuer(
    config: &mut SignatureConfig,
    key: &impl KeyDetails,
    created: Timestamp,
) -> Result<(), SecretKeyError> {
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
        Subpacket::regular(SubpacketData::SignatureCreationTime(created))?,
    ];
    config.unhashed_subpackets = vec![Subpacket::regular(SubpacketData::IssuerKeyId(
        key.legacy_key_id(),
    ))?];
    Ok(())
}

#[cfg(test)]
impl SecretKey {
    /// A signature packet with whatever statement, as an attacker or an old program would make it.
    pub(crate) fn forge(&self, config: SignatureConfig, data: &[u8]) -> Vec<u8> {
        let Signing::Primary(key) = &self.signing else {
            panic!("forging is for primary keys")
        };
        config
            .sign(&**key, &Password::empty(), data)
            .unwrap()
            .to_bytes()
            .unwrap()
    }

    /// What [`sign`](Self::sign) states, to be spoiled.
    pub(crate) fn statement(&self, now: u32) -> SignatureConfig {
        let Signing::Primary(key) = &self.signing else {
            panic!("forging is for primary keys")
        };
        let mut config = SignatureConfig::v4(SignatureType::Binary, key.algorithm(), DIGEST);
        name_issuer(&mut config, &**key, Timestamp::from_secs(now)).unwrap();
        config
    }
}

#[cfg(test)]
mod tests {
    use rand_core::OsRng;

    use super::*;
    use crate::{Now, Signers};

    const NOW: i64 = 1_750_000_000;

    #[test]
    fn a_key_that_was_stored_signs_as_before() {
        let key =
            SecretKey::generate(&mut OsRng, KeyKind::Ed25519, "A <a@b.c>", NOW, None).unwrap();
        let stored = SecretKey::from_armored(key.to_armored().as_bytes()).unwrap();
        assert_eq!(stored.fingerprint(), key.fingerprint());

        let signature = stored.sign(&b"data"[..], NOW + 5).unwrap();
        let signers = Signers::new([key.certificate()], Now::from_clock(NOW + 9));
        let verified = signers.verify(b"data", signature.as_bytes()).unwrap();
        assert_eq!(verified.signer(), Some(key.fingerprint()));
        assert_eq!(verified.signed_at(), Some(NOW + 5));
    }

    #[test]
    fn a_validity_ends_in_its_second() {
        let key = SecretKey::generate(&mut OsRng, KeyKind::Ed25519, "A", NOW, Some(100)).unwrap();
        let signature = key.sign(&b"data"[..], NOW).unwrap();
        for (now, good) in [(NOW, true), (NOW + 99, true), (NOW + 100, false)] {
            let signers = Signers::new([key.certificate()], Now::from_clock(now));
            assert_eq!(
                signers.verify(b"data", signature.as_bytes()).is_ok(),
                good,
                "{now}"
            );
        }
    }

    #[test]
    fn what_openpgp_cannot_express_is_refused() {
        let generate = |user_id: &str, now| {
            SecretKey::generate(&mut OsRng, KeyKind::Ed25519, user_id, now, None).unwrap_err()
        };
        for bad in ["", "  ", "a\nb", "a\u{1b}[0m", &"x".repeat(3000)] {
            assert!(
                matches!(generate(bad, NOW), SecretKeyError::UserId),
                "{bad:?}"
            );
        }
        for bad in [-1, 1 << 32] {
            assert!(matches!(generate("A", bad), SecretKeyError::Time(time) if time == bad));
        }
    }

    #[test]
    fn other_blocks_are_no_secret_key() {
        let key = SecretKey::generate(&mut OsRng, KeyKind::Ed25519, "A", NOW, None).unwrap();
        let signature = key.sign(&b"data"[..], NOW).unwrap();
        assert!(matches!(
            SecretKey::from_armored(signature.as_bytes()),
            Err(SecretKeyError::Armor(ArmorError::OtherType(_)))
        ));
        let twice = [&key.packets[..], &key.packets[..]].concat();
        let public = key.certificate().to_bytes();
        for (packets, what) in [
            (twice, "two keys"),
            (public, "a certificate"),
            (vec![], "nothing"),
        ] {
            let text = armor::write(&packets, armor::PRIVATE_KEY);
            let refused = SecretKey::from_armored(text.as_bytes()).unwrap_err();
            assert!(
                matches!(refused, SecretKeyError::NotOne),
                "{what}: {refused:?}"
            );
        }
    }
}

//! What a public key says of itself: which of its keys may sign data, and from when to when.
//!
//! In: the packets of one certificate, in the order in which they stand in a keyring. Out: its
//! signing keys with their standing. A key is in the keyring because somebody trusted put it
//! there; self-signatures cannot add trust, they only narrow it (expiry, revocation, purpose), and
//! bind subkeys. So SHA-1 self-signatures, which every key of 2013 has, are read: a collision
//! would need the key's owner as accomplice, and to ignore them would be to ignore an expiry.

use std::cmp::Reverse;

use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    PacketHeader, PublicKey, PublicSubkey, Signature, SignatureConfig, SignatureType,
    SignatureVersion, SubpacketData, UserId,
};
use pgp::types::{
    EcdsaPublicParams, EddsaLegacyPublicParams, KeyDetails, KeyVersion, PublicParams,
    SignatureBytes, Tag, VerifyingKey,
};

use crate::fingerprint::{Fingerprint, Issuer};
use crate::packet::{RawPacket, tag};
use crate::rsa::RsaKey;
use crate::signature;

/// Smallest RSA modulus whose signatures count, in bits: what the original's first keys have.
const MIN_RSA_BITS: u16 = 2048;

/// One key, primary or subkey, of a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) fingerprint: Fingerprint,
    /// The fingerprint of the certificate it belongs to: its own for a primary key.
    pub(crate) primary: Fingerprint,
    pub(crate) standing: Standing,
    /// Unix seconds of its creation.
    pub(crate) created: i64,
    /// Its first second of being expired.
    pub(crate) expires: Option<i64>,
    /// The same as `material`, faster, for most RSA keys.
    rsa: Option<RsaKey>,
    material: Material,
}

/// Whether signatures of a key count at all, whatever the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Signs,
    Revoked,
    /// Not meant for data, not bound to its primary key by both sides, or not self-signed.
    CannotSign,
    /// Too short, or of an algorithm that is not accepted.
    Weak,
}

#[derive(Clone, Debug)]
enum Material {
    Primary(Box<PublicKey>),
    Subkey(Box<PublicSubkey>),
}

impl Key {
    /// Checks the cryptographic signature over a digest, nothing else.
    pub(crate) fn verifies(
        &self,
        hash: HashAlgorithm,
        digest: &[u8],
        signature: &SignatureBytes,
    ) -> bool {
        if let (Some(key), SignatureBytes::Mpis(numbers)) = (&self.rsa, signature)
            && let [number] = &numbers[..]
            && let Some(answer) = key.verifies(hash, digest, number.as_ref())
        {
            return answer;
        }
        match &self.material {
            Material::Primary(key) => key.verify(hash, digest, signature).is_ok(),
            Material::Subkey(key) => key.verify(hash, digest, signature).is_ok(),
        }
    }
}

/// A primary key or subkey packet with the signatures that stand after it; likewise a user id.
struct Component<'a> {
    packet: RawPacket<'a>,
    signatures: Vec<Signature>,
}

/// The keys of one certificate; empty if its primary key cannot be used here, as with version 3
/// or 6 keys and algorithms of the future: nothing is trusted through what is not understood.
pub(crate) fn keys(packets: &[RawPacket<'_>]) -> Vec<Key> {
    let components = components(packets);
    let Some((primary, others)) = components.split_first() else {
        return Vec::new();
    };
    let Some((key, fingerprint)) = read_primary(primary.packet.body) else {
        return Vec::new();
    };
    let users = others.iter().filter(|c| c.packet.tag == tag::USER_ID);
    let statement = OwnStatement::read(&key, &primary.signatures, users);
    let created = i64::from(key.created_at().as_secs());
    let revoked = is_revoked(fingerprint, &primary.signatures, &statement, |signature| {
        signature.typ() == Some(SignatureType::KeyRevocation) && signature.verify_key(&key).is_ok()
    });
    let expires = statement.expires(created);

    let mut keys = vec![Key {
        fingerprint,
        primary: fingerprint,
        standing: standing(
            revoked,
            strength(&key, primary.packet.body),
            statement.signs,
        ),
        created,
        expires,
        rsa: rsa(&key, primary.packet.body),
        material: Material::Primary(Box::new(key.clone())),
    }];
    for subkey in others.iter().filter(|c| c.packet.tag == tag::PUBLIC_SUBKEY) {
        let Some((sub, sub_fingerprint)) = read_subkey(subkey.packet.body) else {
            continue;
        };
        let sub_revoked = is_revoked(fingerprint, &subkey.signatures, &statement, |signature| {
            signature.typ() == Some(SignatureType::SubkeyRevocation)
                && signature.verify_subkey_binding(&key, &sub).is_ok()
        });
        let binding = subkey_binding(&key, &sub, &subkey.signatures);
        let sub_created = i64::from(sub.created_at().as_secs());
        let own_end = binding.as_ref().and_then(|b| b.expires(sub_created));
        keys.push(Key {
            fingerprint: sub_fingerprint,
            primary: fingerprint,
            standing: standing(
                revoked || sub_revoked,
                strength(&sub, subkey.packet.body),
                // Nobody vouches for a subkey of a key that nobody vouches for.
                binding
                    .and_then(|b| b.signs)
                    .filter(|_| statement.signs.is_some()),
            ),
            created: sub_created.max(created),
            // A subkey lives no longer than the key that vouches for it.
            expires: own_end.into_iter().chain(expires).min(),
            rsa: rsa(&sub, subkey.packet.body),
            material: Material::Subkey(Box::new(sub)),
        });
    }
    keys
}

fn standing(revoked: bool, strength: Standing, signs: Option<bool>) -> Standing {
    match strength {
        _ if revoked => Standing::Revoked,
        Standing::Signs if signs != Some(true) => Standing::CannotSign,
        strength => strength,
    }
}

/// Sorts a certificate's packets: each key and user id with its signatures.
///
/// Signatures that cannot be read are left out: a self-signature that is not understood states
/// nothing, and if it was the only one, its key cannot sign.
fn components<'a>(packets: &[RawPacket<'a>]) -> Vec<Component<'a>> {
    let mut components: Vec<Component<'a>> = Vec::new();
    for packet in packets {
        match packet.tag {
            tag::PUBLIC_KEY | tag::USER_ID | tag::PUBLIC_SUBKEY | tag::USER_ATTRIBUTE => {
                components.push(Component {
                    packet: *packet,
                    signatures: Vec::new(),
                });
            }
            tag::SIGNATURE => {
                if let Some(component) = components.last_mut() {
                    component.signatures.extend(signature::read(packet.body));
                }
            }
            _ => {}
        }
    }
    components
}

fn read_primary(body: &[u8]) -> Option<(PublicKey, Fingerprint)> {
    let header = PacketHeader::new_fixed(Tag::PublicKey, u32::try_from(body.len()).ok()?);
    let mut rest = body;
    let key = PublicKey::try_from_reader(header, &mut rest).ok()?;
    Some((key.clone(), checked_fingerprint(&key, body, rest)?))
}

fn read_subkey(body: &[u8]) -> Option<(PublicSubkey, Fingerprint)> {
    let header = PacketHeader::new_fixed(Tag::PublicSubkey, u32::try_from(body.len()).ok()?);
    let mut rest = body;
    let key = PublicSubkey::try_from_reader(header, &mut rest).ok()?;
    Some((key.clone(), checked_fingerprint(&key, body, rest)?))
}

/// The fingerprint, if the library and the bytes agree on it. A key in an unusual encoding, which
/// other programs would name differently, is none that we can use.
fn checked_fingerprint(key: &impl KeyDetails, body: &[u8], rest: &[u8]) -> Option<Fingerprint> {
    let fingerprint = Fingerprint::of_key_body(body)?;
    let agrees = key.version() == KeyVersion::V4
        && key.fingerprint().as_bytes() == fingerprint.as_bytes()
        && rest.is_empty();
    agrees.then_some(fingerprint)
}

fn rsa(key: &impl KeyDetails, body: &[u8]) -> Option<RsaKey> {
    match key.public_params() {
        PublicParams::RSA(_) => RsaKey::read(body),
        _ => None,
    }
}

/// [`Standing::Signs`] unless the key is too weak or of a kind that never signs.
fn strength(key: &impl KeyDetails, body: &[u8]) -> Standing {
    match key.public_params() {
        PublicParams::RSA(_) if key.algorithm() == PublicKeyAlgorithm::RSAEncrypt => {
            Standing::CannotSign
        }
        // Version, time and algorithm are six bytes; then comes the modulus with its length.
        PublicParams::RSA(_) => match body.get(6..8) {
            Some(&[high, low]) if u16::from_be_bytes([high, low]) >= MIN_RSA_BITS => {
                Standing::Signs
            }
            _ => Standing::Weak,
        },
        PublicParams::EdDSALegacy(EddsaLegacyPublicParams::Ed25519 { .. })
        | PublicParams::Ed25519(_)
        | PublicParams::ECDSA(
            EcdsaPublicParams::P256 { .. }
            | EcdsaPublicParams::P384 { .. }
            | EcdsaPublicParams::P521 { .. },
        ) => Standing::Signs,
        PublicParams::ECDH(_) | PublicParams::X25519(_) | PublicParams::X448(_) => {
            Standing::CannotSign
        }
        _ => Standing::Weak,
    }
}

/// What the newest valid self-signature, or subkey binding, says of its key.
#[derive(Default)]
struct OwnStatement {
    /// Whether the key is for data; nothing if there is no valid self-signature at all.
    signs: Option<bool>,
    /// Seconds from the key's creation.
    lifetime: Option<i64>,
    /// When the statement itself lapses; then the key has nobody who vouches for it.
    lapses: Option<i64>,
    /// Keys that may revoke this one.
    revokers: Vec<Fingerprint>,
}

impl OwnStatement {
    /// As GnuPG: a signature directly on the key goes before those on user ids, as far as it
    /// says anything; of either kind the newest counts.
    fn read<'a>(
        key: &PublicKey,
        direct: &[Signature],
        users: impl Iterator<Item = &'a Component<'a>>,
    ) -> Self {
        let on_key = newest(direct.iter(), |s| {
            s.typ() == Some(SignatureType::Key) && s.verify_key(key).is_ok()
        });
        let mut on_users: Vec<&SignatureConfig> =
            users.filter_map(|user| user_statement(key, user)).collect();
        on_users.sort_by_key(|config| signature::created(config));
        let on_user = on_users.last().copied();

        let all = || on_key.into_iter().chain(on_user);
        let Some(last) = all().next() else {
            return Self::default();
        };
        let revokers = all().chain(on_users.iter().copied()).flat_map(revokers);
        Self {
            signs: Some(all().find_map(signing_flag).unwrap_or(true)),
            lifetime: all().find_map(lifetime).filter(|seconds| *seconds != 0),
            lapses: lapse(last),
            revokers: revokers.collect(),
        }
    }

    fn expires(&self, created: i64) -> Option<i64> {
        let end = self.lifetime.map(|seconds| created + seconds);
        end.into_iter().chain(self.lapses).min()
    }
}

/// The newest valid certification of a user id, unless the user id was revoked after it.
fn user_statement<'a>(key: &PublicKey, user: &'a Component<'_>) -> Option<&'a SignatureConfig> {
    let body = user.packet.body;
    let header = PacketHeader::new_fixed(Tag::UserId, u32::try_from(body.len()).ok()?);
    let id = UserId::try_from_reader(header, body).ok()?;
    let valid = |s: &Signature| s.verify_certification(key, Tag::UserId, &id).is_ok();
    let is_revocation = |s: &Signature| s.typ() == Some(SignatureType::CertRevocation);

    let config = newest(user.signatures.iter(), |s| {
        s.is_certification() && !is_revocation(s) && valid(s)
    })?;
    let revoked = user.signatures.iter().any(|s| {
        let later = s.config().and_then(signature::created) >= signature::created(config);
        is_revocation(s) && later && valid(s)
    });
    (!revoked).then_some(config)
}

/// The newest binding of a subkey. It is for signing only if the subkey signed the bond too:
/// otherwise anybody could adopt another's signing key.
fn subkey_binding(
    key: &PublicKey,
    subkey: &PublicSubkey,
    signatures: &[Signature],
) -> Option<OwnStatement> {
    let config = newest(signatures.iter(), |s| {
        s.typ() == Some(SignatureType::SubkeyBinding)
            && s.verify_subkey_binding(key, subkey).is_ok()
    })?;
    let mut embedded = config
        .hashed_subpackets()
        .chain(config.unhashed_subpackets())
        .filter_map(|subpacket| match &subpacket.data {
            SubpacketData::EmbeddedSignature(back) => Some(back),
            _ => None,
        });
    let bound_back = embedded.any(|back| {
        back.config().is_some_and(is_understood)
            && back.verify_primary_key_binding(subkey, key).is_ok()
    });
    Some(OwnStatement {
        signs: Some(signing_flag(config) == Some(true) && bound_back),
        lifetime: lifetime(config).filter(|seconds| *seconds != 0),
        lapses: lapse(config),
        revokers: Vec::new(),
    })
}

/// The last made of the signatures that are understood and `valid`, which is asked last because
/// it is expensive. Of two made in the same second the later in the keyring counts.
fn newest<'a>(
    signatures: impl Iterator<Item = &'a Signature>,
    valid: impl Fn(&Signature) -> bool,
) -> Option<&'a SignatureConfig> {
    let mut understood: Vec<_> = signatures
        .enumerate()
        .filter_map(|(place, s)| {
            let config = s.config().filter(|config| is_understood(config))?;
            Some((signature::created(config)?, place, s, config))
        })
        .collect();
    understood.sort_by_key(|(created, place, ..)| Reverse((*created, *place)));
    let newest = understood.into_iter().find(|(_, _, s, _)| valid(s));
    newest.map(|(.., config)| config)
}

fn is_understood(config: &SignatureConfig) -> bool {
    config.version() == SignatureVersion::V4
        && (signature::is_strong(config.hash_alg) || config.hash_alg == HashAlgorithm::Sha1)
        && !signature::has_unknown_critical(config)
}

/// Whether one of `signatures` revokes the key. A revocation that cannot be judged (a form of the
/// future, or by a designated revoker, whose key we need not have) counts: a keyring is signed as
/// a whole, so no stranger can have put it there.
fn is_revoked(
    fingerprint: Fingerprint,
    signatures: &[Signature],
    statement: &OwnStatement,
    verified: impl Fn(&Signature) -> bool,
) -> bool {
    let is_revocation = |s: &&Signature| {
        let kinds = [
            SignatureType::KeyRevocation,
            SignatureType::SubkeyRevocation,
        ];
        s.typ().is_some_and(|kind| kinds.contains(&kind))
    };
    signatures.iter().filter(is_revocation).any(|s| {
        let issuer = signature::issuer(s).unwrap_or(Issuer::from(fingerprint));
        let by_revoker = statement.revokers.iter().any(|revoker| issuer.is(revoker));
        let judged = s.config().is_some_and(is_understood);
        by_revoker || verified(s) || (issuer.is(&fingerprint) && !judged)
    })
}

fn signing_flag(config: &SignatureConfig) -> Option<bool> {
    config.hashed_subpackets().find_map(|s| match &s.data {
        SubpacketData::KeyFlags(flags) => Some(flags.sign()),
        _ => None,
    })
}

fn lifetime(config: &SignatureConfig) -> Option<i64> {
    config.hashed_subpackets().find_map(|s| match s.data {
        SubpacketData::KeyExpirationTime(time) => Some(i64::from(time.as_secs())),
        _ => None,
    })
}

fn lapse(config: &SignatureConfig) -> Option<i64> {
    Some(signature::created(config)? + signature::validity(config)?)
}

fn revokers(config: &SignatureConfig) -> impl Iterator<Item = Fingerprint> {
    config.hashed_subpackets().filter_map(|s| match &s.data {
        SubpacketData::RevocationKey(key) => {
            let bytes: [u8; 20] = key.fingerprint.as_slice().try_into().ok()?;
            Some(bytes.into())
        }
        _ => None,
    })
}

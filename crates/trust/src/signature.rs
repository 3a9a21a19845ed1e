//! Reads a detached signature file: an armoured block with signature packets and nothing else.
//!
//! In: the text of a `.asc` file. Out: the signatures in it, each with its statement read but not
//! believed: `signers` decides. Several are allowed, because GnuPG writes two when it signs with
//! two keys while one replaces the other.

use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PacketHeader, Signature, SignatureConfig, SignatureType, SubpacketData};
use pgp::types::{self, Tag};

use crate::armor::{self, ArmorError};
use crate::fingerprint::{Fingerprint, Issuer, KeyId};
use crate::packet::{self, PacketError, tag};

/// Longest signature file, in bytes: sixteen signatures by the largest keys have half of it.
pub const MAX_SIGNATURE_LEN: usize = 64 << 10;

/// More signatures on one file than any rotation needs.
const MAX_SIGNATURES: usize = 16;

/// Why a text is not a detached signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFormError {
    /// Not exactly one armoured block of type `PGP SIGNATURE`.
    #[error("not an armoured detached signature")]
    Armor(#[from] ArmorError),
    /// The block holds no sequence of whole packets.
    #[error("the signature's packets are damaged")]
    Packets(#[from] PacketError),
    /// A packet other than a signature, for instance a message with its data inside.
    #[error("a packet of type {0} stands beside the signature")]
    ForeignPacket(u8),
    /// A signature packet that cannot be read.
    #[error("a signature packet is malformed")]
    Malformed,
    /// No signature in the block.
    #[error("there is no signature in the block")]
    Empty,
    /// More than [`MAX_SIGNATURE_LEN`] bytes, or more than sixteen signatures.
    #[error("too long for a detached signature")]
    TooLong,
}

impl SignatureFormError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Armor(ArmorError::NotArmored | ArmorError::OtherType(_))
            | Self::ForeignPacket(_) => Some("sign with `gpg --armor --detach-sign`"),
            Self::Armor(ArmorError::Surrounded) | Self::TooLong => {
                Some("the file must hold one signature block and nothing else")
            }
            _ => Some("fetch the signature again; it was damaged on the way or on the server"),
        }
    }
}

/// The signatures of one `.asc` file, not yet checked against anything.
#[derive(Clone, Debug)]
pub struct DetachedSignature {
    pub(crate) signatures: Vec<Signature>,
}

impl DetachedSignature {
    /// Reads a `.asc` file.
    pub fn parse(text: &[u8]) -> Result<Self, SignatureFormError> {
        if text.len() > MAX_SIGNATURE_LEN {
            return Err(SignatureFormError::TooLong);
        }
        let block = armor::read(text, armor::SIGNATURE)?;
        let mut signatures = Vec::new();
        for packet in packet::packets(&block) {
            let packet = packet?;
            if packet.tag != tag::SIGNATURE {
                return Err(SignatureFormError::ForeignPacket(packet.tag));
            }
            if signatures.len() == MAX_SIGNATURES {
                return Err(SignatureFormError::TooLong);
            }
            signatures.push(read(packet.body).ok_or(SignatureFormError::Malformed)?);
        }
        if signatures.is_empty() {
            return Err(SignatureFormError::Empty);
        }
        Ok(Self { signatures })
    }

    /// Whom the signatures name as their makers; nothing of it is verified.
    pub fn issuers(&self) -> Vec<Issuer> {
        self.signatures.iter().filter_map(issuer).collect()
    }
}

/// A signature packet from its whole body, without anything left over.
pub(crate) fn read(body: &[u8]) -> Option<Signature> {
    let header = PacketHeader::new_fixed(Tag::Signature, u32::try_from(body.len()).ok()?);
    let mut rest = body;
    let signature = Signature::try_from_reader(header, &mut rest).ok()?;
    rest.is_empty().then_some(signature)
}

/// The key that a signature names. The hashed area is looked at first, because only that is
/// part of what was signed; a fingerprint goes before a key id.
pub(crate) fn issuer(signature: &Signature) -> Option<Issuer> {
    let config = signature.config()?;
    let all = || {
        config
            .hashed_subpackets()
            .chain(config.unhashed_subpackets())
    };
    let fingerprint = all().find_map(|subpacket| match &subpacket.data {
        SubpacketData::IssuerFingerprint(types::Fingerprint::V4(bytes)) => {
            Some(Fingerprint::from(*bytes).into())
        }
        _ => None,
    });
    fingerprint.or_else(|| {
        let id = *config.issuer_key_id().first()?;
        Some(KeyId(id.as_ref().try_into().ok()?).into())
    })
}

/// When it was made, if its hashed area says so exactly once.
pub(crate) fn created(config: &SignatureConfig) -> Option<i64> {
    let mut times = config.hashed_subpackets().filter_map(|s| match s.data {
        SubpacketData::SignatureCreationTime(time) => Some(i64::from(time.as_secs())),
        _ => None,
    });
    let first = times.next()?;
    times.next().is_none().then_some(first)
}

/// How long it is valid, in seconds from its creation; for ever if it does not say.
pub(crate) fn validity(config: &SignatureConfig) -> Option<i64> {
    let shortest = config.hashed_subpackets().filter_map(|s| match s.data {
        SubpacketData::SignatureExpirationTime(time) => Some(i64::from(time.as_secs())),
        _ => None,
    });
    shortest.filter(|seconds| *seconds != 0).min()
}

/// Whether a hashed subpacket that is not understood here was marked critical.
///
/// What a signature over data may say with that mark is listed; all else, notations too, might
/// restrict what is signed in a way that we would overlook.
pub(crate) fn has_unknown_critical(config: &SignatureConfig) -> bool {
    let known = |data: &SubpacketData| match data {
        SubpacketData::SignatureCreationTime(_)
        | SubpacketData::SignatureExpirationTime(_)
        | SubpacketData::IssuerKeyId(_)
        | SubpacketData::IssuerFingerprint(_)
        | SubpacketData::SignersUserID(_) => true,
        // On the self-signatures of keys, which are what these are for.
        SubpacketData::KeyExpirationTime(_)
        | SubpacketData::KeyFlags(_)
        | SubpacketData::Features(_)
        | SubpacketData::IsPrimary(_)
        | SubpacketData::Revocable(_)
        | SubpacketData::ExportableCertification(_)
        | SubpacketData::EmbeddedSignature(_)
        | SubpacketData::RevocationKey(_)
        | SubpacketData::RevocationReason(..) => {
            !matches!(config.typ, SignatureType::Binary | SignatureType::Text)
        }
        _ => false,
    };
    config
        .hashed_subpackets()
        .any(|s| s.is_critical && !known(&s.data))
}

/// Whether a digest is strong enough for data. SHA-1 is not: its collisions are practical.
pub(crate) fn is_strong(hash: HashAlgorithm) -> bool {
    matches!(
        hash,
        HashAlgorithm::Sha224
            | HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512
    )
}

//! `keyring.gpg`: a set of public keys, as a plain sequence of OpenPGP packets.
//!
//! In: the file's bytes, verified by the caller or part of the installed system. Out: its keys,
//! ready to check signatures. GnuPG's own `pubring.gpg` is such a file, with trust packets in
//! between that mean nothing elsewhere; an empty file is an empty set (server spec, section 10).

use std::sync::Arc;

use crate::certificate::{self, Key};
use crate::fingerprint::{Fingerprint, Issuer};
use crate::packet::{self, PacketError, RawPacket, tag};

/// Longest `keyring.gpg`, in bytes: a thousand keys of 4 KiB.
pub const MAX_KEYRING_LEN: usize = 4 << 20;

/// Why a file is not a set of public keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificatesError {
    /// Not a sequence of whole packets.
    #[error("not a sequence of OpenPGP packets")]
    Packets(#[from] PacketError),
    /// GnuPG's newer key store.
    #[error("this is a GnuPG keybox, not a plain keyring")]
    Keybox,
    /// ASCII armour around the packets.
    #[error("the keyring is ASCII-armoured")]
    Armored,
    /// A secret key lies in a file that is going to be published.
    #[error("there is a secret key in the keyring")]
    SecretKey,
    /// A packet that has no place in a keyring.
    #[error("a packet of type {0} has no place in a keyring")]
    ForeignPacket(u8),
    /// More than [`MAX_KEYRING_LEN`] bytes.
    #[error("{0} bytes are too long for a keyring")]
    TooLong(usize),
}

impl CertificatesError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Keybox | Self::Armored | Self::SecretKey => {
                Some("export the public keys with `gpg --export`, without `--armor`")
            }
            Self::Packets(_) | Self::ForeignPacket(_) | Self::TooLong(_) => None,
        }
    }
}

/// A set of public keys.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    certificates: Vec<Certificate>,
}

#[derive(Clone, Debug)]
struct Certificate {
    fingerprint: Fingerprint,
    /// Its packets with old headers, without trust packets.
    bytes: Vec<u8>,
    /// Primary key first; empty if it is of a kind that cannot be used here.
    keys: Vec<Arc<Key>>,
}

impl Certificates {
    /// Reads `keyring.gpg`.
    ///
    /// A key of a kind that is not understood (version 3, 5 or 6, or an unknown algorithm) stays in
    /// the set but never verifies anything: a keyring may introduce it beside an older one.
    pub fn parse(bytes: &[u8]) -> Result<Self, CertificatesError> {
        if bytes.len() > MAX_KEYRING_LEN {
            return Err(CertificatesError::TooLong(bytes.len()));
        }
        if bytes.get(8..12) == Some(b"KBXf") {
            return Err(CertificatesError::Keybox);
        }
        if bytes.starts_with(b"-----BEGIN ") {
            return Err(CertificatesError::Armored);
        }

        let mut groups: Vec<Vec<RawPacket<'_>>> = Vec::new();
        for packet in packet::packets(bytes) {
            let packet = packet?;
            match (packet.tag, groups.last_mut()) {
                (tag::PUBLIC_KEY, _) => groups.push(vec![packet]),
                (
                    tag::USER_ID | tag::USER_ATTRIBUTE | tag::PUBLIC_SUBKEY | tag::SIGNATURE,
                    Some(group),
                ) => group.push(packet),
                (tag::TRUST | tag::MARKER | tag::PADDING | tag::FIRST_UNCRITICAL.., _) => {}
                (tag::SECRET_KEY | tag::SECRET_SUBKEY, _) => {
                    return Err(CertificatesError::SecretKey);
                }
                (other, _) => return Err(CertificatesError::ForeignPacket(other)),
            }
        }
        let mut all = Self::default();
        for group in groups {
            all.certificates.extend(Certificate::new(&group));
        }
        Ok(all)
    }

    /// The bytes of `keyring.gpg` for these keys, without trust packets.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.certificates
            .iter()
            .flat_map(|c| c.bytes.iter().copied())
            .collect()
    }

    /// Adds the keys of another set. A key that is in both is taken from the other, which is how
    /// a new expiry or a revocation gets into a keyring.
    pub fn update(&mut self, other: Self) {
        for new in other.certificates {
            match self
                .certificates
                .iter_mut()
                .find(|c| c.fingerprint == new.fingerprint)
            {
                Some(old) => *old = new,
                None => self.certificates.push(new),
            }
        }
    }

    /// The fingerprints of the primary keys, in the order of the file.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        self.certificates.iter().map(|c| c.fingerprint)
    }

    /// The number of certificates: of primary keys, whether they can be used or not.
    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The keys that `issuer` may mean; more than one if a key is in the file twice.
    pub(crate) fn find(&self, issuer: Issuer) -> impl Iterator<Item = &Arc<Key>> {
        let keys = self.certificates.iter().flat_map(|c| &c.keys);
        keys.filter(move |key| issuer.is(&key.fingerprint))
    }

    /// Whether any key of these sets, primary or subkey, is the one that `issuer` names.
    ///
    /// Keys that cannot be used count too: on a blacklist they must still match.
    pub(crate) fn names(&self, issuer: Issuer) -> bool {
        self.fingerprints()
            .any(|fingerprint| issuer.is(&fingerprint))
            || self.find(issuer).next().is_some()
    }
}

impl Certificate {
    fn new(packets: &[RawPacket<'_>]) -> Option<Self> {
        let mut bytes = Vec::new();
        for packet in packets {
            packet::write(&mut bytes, packet.tag, packet.body);
        }
        Some(Self {
            fingerprint: Fingerprint::of_key_body(packets.first()?.body)?,
            bytes,
            keys: certificate::keys(packets)
                .into_iter()
                .map(Arc::new)
                .collect(),
        })
    }
}

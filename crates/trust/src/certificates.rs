//! `keyring.gpg`: a set of public keys, as a plain sequence of OpenPGP packets.
//!
//! In: the file's bytes, verified by the caller or part of the installed system. Out: its keys,
//! ready to check signatures. GnuPG's own `pubring.gpg` is such a file, with trust packets in
//! between that mean nothing elsewhere; an empty file is an empty set (server spec, section 10).

use std::sync::Arc;

use crate::armor;
use crate::certificate::{self, Key, Standing};
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

/// What there is to know of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its primary key.
    pub fingerprint: Fingerprint,
    /// When that was made, in Unix seconds; unknown for kinds that are not understood.
    pub created: Option<i64>,
    /// The first second in which its signatures do not count any more; never when absent.
    pub expires: Option<i64>,
    /// Whether any of its keys can sign: understood, strong and not revoked.
    pub signs: bool,
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

    /// Reads public keys as people hand them around: a keyring, or its ASCII armour.
    pub fn parse_any(bytes: &[u8]) -> Result<Self, CertificatesError> {
        if !bytes.starts_with(b"-----BEGIN ") {
            return Self::parse(bytes);
        }
        match armor::read(bytes, armor::PUBLIC_KEY) {
            Ok(keyring) => Self::parse(&keyring),
            Err(_) => Err(CertificatesError::Armored),
        }
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

    /// What there is to know of each certificate, in the order of the file.
    pub fn facts(&self) -> impl Iterator<Item = CertificateFacts> {
        self.certificates.iter().map(|certificate| {
            let signing = certificate
                .keys
                .iter()
                .find(|key| key.standing == Standing::Signs);
            let primary = certificate.keys.first();
            CertificateFacts {
                fingerprint: certificate.fingerprint,
                created: primary.map(|key| key.created),
                expires: signing.or(primary).and_then(|key| key.expires),
                signs: signing.is_some(),
            }
        })
    }

    /// Whether the certificate of this fingerprint, or one that has it as a subkey, is here.
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        self.names((*fingerprint).into())
    }

    /// Takes a certificate out, told by its primary key. False when it is not there.
    pub fn remove(&mut self, fingerprint: &Fingerprint) -> bool {
        let before = self.certificates.len();
        self.certificates.retain(|c| c.fingerprint != *fingerprint);
        self.certificates.len() < before
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_core::OsRng;

    use super::*;
    use crate::secret_key::{KeyKind, SecretKey};

    fn certificate() -> Certificates {
        let key = SecretKey::generate(&mut OsRng, KeyKind::Ed25519, "Test", 1_750_000_000, None);
        key.unwrap().certificate().clone()
    }

    fn with(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = certificate().to_bytes();
        packet::write(&mut bytes, tag, body);
        bytes
    }

    #[test]
    fn several_keys_are_one_set_and_no_bytes_are_none() {
        let (a, b) = (certificate(), certificate());
        let mut both = a.clone();
        both.update(b.clone());
        both.update(a.clone());
        assert_eq!(both.to_bytes(), [a.to_bytes(), b.to_bytes()].concat());
        let read = Certificates::parse(&both.to_bytes()).unwrap();
        assert!(
            read.fingerprints()
                .eq(a.fingerprints().chain(b.fingerprints()))
        );
        assert!(Certificates::parse(b"").unwrap().is_empty());
    }

    #[test]
    fn trust_packets_are_ignored_and_not_written() {
        let bytes = with(tag::TRUST, &[0, 1]);
        let read = Certificates::parse(&bytes).unwrap();
        assert_eq!(read.to_bytes(), bytes[..bytes.len() - 4]);
    }

    #[test]
    fn what_is_no_keyring_says_what_it_is() {
        let mut keybox = vec![0; 32];
        keybox[8..12].copy_from_slice(b"KBXf");
        let armored = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n".to_vec();
        for (bytes, want) in [
            (keybox, CertificatesError::Keybox),
            (armored, CertificatesError::Armored),
            (with(tag::SECRET_KEY, b"x"), CertificatesError::SecretKey),
            (with(tag::SECRET_SUBKEY, b"x"), CertificatesError::SecretKey),
            (with(11, b"x"), CertificatesError::ForeignPacket(11)),
            (with(39, b"x"), CertificatesError::ForeignPacket(39)),
            (vec![0x88, 1, 0], CertificatesError::ForeignPacket(2)),
            (
                vec![0; 3],
                CertificatesError::Packets(PacketError::NotAPacket),
            ),
            (vec![0x99], CertificatesError::Packets(PacketError::CutOff)),
            (
                vec![0; MAX_KEYRING_LEN + 1],
                CertificatesError::TooLong(MAX_KEYRING_LEN + 1),
            ),
        ] {
            assert_eq!(Certificates::parse(&bytes).unwrap_err(), want);
        }
        assert!(
            Certificates::parse(&with(60, b"x")).is_ok(),
            "packets of the future that may be skipped"
        );
    }

    #[test]
    fn keys_of_other_versions_stay_but_are_never_used() {
        let mut bytes = with(tag::PUBLIC_KEY, &[6, 0, 0, 0, 0, 27, 0, 0, 0, 0]);
        packet::write(&mut bytes, tag::PUBLIC_KEY, b"");
        let read = Certificates::parse(&bytes).unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(
            read.certificates
                .iter()
                .map(|c| c.keys.len())
                .sum::<usize>(),
            1
        );
    }

    proptest! {
        #[test]
        fn no_change_of_a_keyring_panics(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
        ) {
            let mut bytes = certificate().to_bytes();
            for (at, byte) in changes {
                *at.get_mut(&mut bytes) = byte;
            }
            let _ = Certificates::parse(&bytes);
        }

        #[test]
        fn no_key_packet_panics(
            mut body in proptest::collection::vec(any::<u8>(), 0..120),
            version in 2u8..7, algorithm in prop::sample::select(vec![1u8, 2, 3, 16, 17, 18, 19, 22, 25, 26, 27, 28, 100]),
            sub in any::<bool>(),
        ) {
            for (place, byte) in body.iter_mut().zip([version, 0x60, 0, 0, 0, algorithm]) {
                *place = byte;
            }
            let kind = if sub { tag::PUBLIC_SUBKEY } else { tag::PUBLIC_KEY };
            let _ = Certificates::parse(&with(kind, &body));
        }
    }
}

//! The name of an OpenPGP key: the SHA-1 fingerprint of a version 4 key packet.

use std::fmt;
use std::str::FromStr;

use sha1::{Digest, Sha1};

/// A version 4 fingerprint, shown as 40 upper-case hexadecimal digits, as GnuPG does.
///
/// Its strength is that of SHA-1 against second pre-images: it names keys inside keyrings that
/// are trusted already, and is never the reason why a key is trusted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 20]);

impl Fingerprint {
    /// The fingerprint of a key packet's body.
    pub(crate) fn of_key_body(body: &[u8]) -> Option<Self> {
        let len = u16::try_from(body.len()).ok()?;
        let digest = Sha1::new()
            .chain_update([0x99])
            .chain_update(len.to_be_bytes())
            .chain_update(body)
            .finalize();
        Some(Self(digest.into()))
    }

    /// The fingerprint's 20 bytes.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    /// The key id, the form in which old signatures name their issuer: the last eight bytes.
    pub(crate) fn key_id(&self) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(&self.0[12..]);
        KeyId(id)
    }
}

impl From<[u8; 20]> for Fingerprint {
    fn from(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }
}

/// The text is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 40 hexadecimal digits")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Blanks between the digits, as GnuPG prints them, are skipped.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| *c != ' ')
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = digits.filter(|digits| digits.len() == 40);
        let digits = digits.ok_or(FingerprintError)?;
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The last eight bytes of a fingerprint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyId(pub(crate) [u8; 8]);

/// Whom a signature names as its maker: a fingerprint, or in old signatures only a key id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Issuer(pub(crate) Option<Fingerprint>, pub(crate) KeyId);

impl Issuer {
    /// Whether this is the key that it names.
    pub fn is(&self, key: &Fingerprint) -> bool {
        match &self.0 {
            Some(fingerprint) => fingerprint == key,
            None => self.1 == key.key_id(),
        }
    }
}

impl From<Fingerprint> for Issuer {
    fn from(fingerprint: Fingerprint) -> Self {
        Self(Some(fingerprint), fingerprint.key_id())
    }
}

impl From<KeyId> for Issuer {
    fn from(id: KeyId) -> Self {
        Self(None, id)
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(fingerprint) => fingerprint.fmt(f),
            None => self.1.0.iter().try_for_each(|byte| write!(f, "{byte:02X}")),
        }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({self})")
    }
}

//! `Verified<T>`: a value whose signature has been checked, and by whom it was made.

use std::ops::Deref;

use crate::fingerprint::Fingerprint;

/// A value whose bytes carried a good signature by a key that may sign them.
///
/// Only this crate makes one, in [`Signers`](crate::Signers) and [`Verifier`](crate::Verifier), so
/// a function that asks for it cannot be called with unchecked data. Verified bytes stay verified
/// through [`map`](Self::map) and [`try_map`](Self::try_map), which is how they are parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verified<T> {
    value: T,
    signature: Option<Made>,
}

/// Who made a signature, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) by: Fingerprint,
    /// The certificate that the key belongs to.
    pub(crate) primary: Fingerprint,
    pub(crate) at: i64,
}

impl<T> Verified<T> {
    pub(crate) fn new(value: T, signature: Made) -> Self {
        Self {
            value,
            signature: Some(signature),
        }
    }

    /// Takes a value as verified that nobody signed: for tests, and for the hidden option
    /// `--skip-gpg-verification`. Never a default.
    pub fn trust_unsigned_for_testing(value: T) -> Self {
        Self {
            value,
            signature: None,
        }
    }

    /// The key, primary or subkey, that made the signature; nobody for a value that was
    /// [trusted unsigned](Self::trust_unsigned_for_testing).
    pub fn signer(&self) -> Option<Fingerprint> {
        self.signature.map(|made| made.by)
    }

    /// The primary key of the certificate that the signer belongs to.
    pub(crate) fn signer_certificate(&self) -> Option<Fingerprint> {
        self.signature.map(|made| made.primary)
    }

    /// When the signature was made by its signer's clock, in Unix seconds.
    pub fn signed_at(&self) -> Option<i64> {
        self.signature.map(|made| made.at)
    }

    /// The same value, borrowed: for parsing one part of it after another.
    pub fn by_ref(&self) -> Verified<&T> {
        Verified {
            value: &self.value,
            signature: self.signature,
        }
    }

    /// What was verified, for instance parsed bytes.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Verified<U> {
        Verified {
            value: f(self.value),
            signature: self.signature,
        }
    }

    /// As [`map`](Self::map), with a parser that can fail.
    ///
    /// # Errors
    /// What the parser returned.
    pub fn try_map<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Verified<U>, E> {
        Ok(Verified {
            value: f(self.value)?,
            signature: self.signature,
        })
    }

    /// The value alone; from here on nothing says that it was verified.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> AsRef<T> for Verified<T> {
    fn as_ref(&self) -> &T {
        &self.value
    }
}

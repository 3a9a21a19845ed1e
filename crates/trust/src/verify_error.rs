//! Why a signature does not make a file acceptable, and what to do about it.

use std::io;

use crate::fingerprint::{Fingerprint, Issuer};
use crate::now::Utc;
use crate::signature::SignatureFormError;

/// Why a signature does not make a file acceptable.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The signature file itself is not what it must be.
    #[error("the signature cannot be used")]
    Form(#[from] SignatureFormError),
    /// None of the signatures was made by a key of the keyrings.
    #[error("signed by {}, which is not a trusted key here", list(issuers))]
    UnknownKey {
        /// Whom the signatures name; empty if they name nobody.
        issuers: Vec<Issuer>,
    },
    /// The key, or the certificate that it belongs to, is on the blacklist.
    #[error("signed by {key}, which is on the blacklist")]
    Blacklisted {
        /// The key, as the signature names it.
        key: Issuer,
    },
    /// The key, or its primary key, was revoked, for whatever reason and whenever.
    #[error("signed by {key}, which has been revoked")]
    Revoked {
        /// The key that signed.
        key: Fingerprint,
    },
    /// The signature does not match the content.
    #[error("the content does not match the signature by {key}")]
    Bad {
        /// The key that is named as signer.
        key: Fingerprint,
    },
    /// The key has expired since it signed.
    #[error("signed by {key}, which expired at {}", Utc(*expired))]
    KeyExpired {
        /// The key that signed.
        key: Fingerprint,
        /// Unix seconds.
        expired: i64,
    },
    /// The signature was made for a limited time, which is over.
    #[error("the signature by {key} expired at {}", Utc(*expired))]
    SignatureExpired {
        /// The key that signed.
        key: Fingerprint,
        /// Unix seconds.
        expired: i64,
    },
    /// The signature claims a time when the key did not exist yet, or not any more.
    #[error("the signature of {} was not made within the lifetime of {key}", Utc(*signed))]
    OutsideLifetime {
        /// The key that signed.
        key: Fingerprint,
        /// Unix seconds.
        signed: i64,
    },
    /// A key for encryption or certification, a subkey that does not acknowledge its primary key,
    /// or a key without a valid self-signature.
    #[error("signed by {key}, which is not a signing key")]
    CannotSign {
        /// The key that signed.
        key: Fingerprint,
    },
    /// RSA below 2048 bits, DSA, or a curve that is not accepted.
    #[error("signed by {key}, which is too weak")]
    WeakKey {
        /// The key that signed.
        key: Fingerprint,
    },
    /// The digest is MD5, SHA-1, RIPEMD-160 or unknown.
    #[error("the signature by {key} uses the digest {digest}, which is not accepted")]
    WeakDigest {
        /// The key that signed.
        key: Fingerprint,
        /// The digest's name.
        digest: String,
    },
    /// A signature over text, where line ends do not count, or over something else than a file.
    #[error("the signature by {key} is not one over binary data")]
    NotBinary {
        /// The key that signed.
        key: Fingerprint,
    },
    /// Not version 4, no single creation time, or a critical statement that is not understood.
    #[error("the signature by {key} says something that is not understood")]
    NotUnderstood {
        /// The key that signed.
        key: Fingerprint,
    },
    /// The signed data could not be read to its end.
    #[error("cannot read the signed data")]
    Read(#[source] io::Error),
}

impl VerifyError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Form(form) => form.hint(),
            Self::UnknownKey { .. } => {
                Some("check that the server's keyrings are the ones you trust")
            }
            Self::Blacklisted { .. } | Self::Revoked { .. } => {
                Some("do not use this file; its publisher must sign it with another key")
            }
            Self::Bad { .. } => Some("fetch the file and its signature again"),
            Self::KeyExpired { .. } | Self::SignatureExpired { .. } => Some(
                "check the clock; if it is right, the publisher must sign again with a valid key",
            ),
            Self::OutsideLifetime { .. } => Some("the publisher's clock was wrong when it signed"),
            Self::CannotSign { .. } | Self::WeakKey { .. } => {
                Some("the publisher must sign with a signing key of 2048 bits RSA or better")
            }
            Self::WeakDigest { .. } | Self::NotBinary { .. } | Self::NotUnderstood { .. } => {
                Some("sign with `gpg --armor --digest-algo SHA512 --detach-sign`")
            }
            Self::Read(_) => None,
        }
    }
}

fn list(issuers: &[Issuer]) -> String {
    match issuers {
        [] => "nobody".to_owned(),
        _ => issuers
            .iter()
            .map(Issuer::to_string)
            .collect::<Vec<_>>()
            .join(" and "),
    }
}

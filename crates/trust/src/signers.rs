//! Checks signatures: who may sign, who may not, and what time it is.
//!
//! In: keyrings, a blacklist, the present, a detached signature and the signed bytes, at once or
//! as a stream. Out: `Verified`, or why not. The rules for a file with several signatures:
//!
//! * A signature by a key in none of the keyrings says nothing and is passed over, as is one of a
//!   kind that we cannot attribute to a key: a second key may be known to others only.
//! * A signature by a known key that is wrong in any way refuses the file, whatever the others
//!   say: not matching, weak digest, text instead of binary, revoked or blacklisted key. A
//!   blacklisted or revoked key that is merely named refuses it too.
//! * A signature that was good and lapsed, because it or its key expired, is passed over if
//!   another one is good: files signed by the old and the new key outlive the old one.
//! * At least one must be good.

use std::io::{self, Read, Write};
use std::sync::Arc;

use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureConfig, SignatureType, SignatureVersion};
use sha2::Digest as _;
use sha2::digest::DynDigest;
use system_image_formats::checksum::Sha256;

use crate::certificate::{Key, Standing};
use crate::certificates::Certificates;
use crate::fingerprint::{Fingerprint, Issuer};
use crate::now::{Now, Utc};
use crate::signature::{self, DetachedSignature, SignatureFormError};
use crate::verified::{Made, Verified};

/// Read from a stream at a time.
const BUFFER: usize = 64 << 10;

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

/// The keys that may sign something: all of the keyrings', but none of the blacklist's.
#[derive(Clone, Debug)]
pub struct Signers<'a> {
    keyrings: Vec<&'a Certificates>,
    blacklist: Option<&'a Certificates>,
    now: Now,
}

impl<'a> Signers<'a> {
    /// Accepts any key of these keyrings that is not expired at `now`.
    pub fn new(keyrings: impl IntoIterator<Item = &'a Certificates>, now: Now) -> Self {
        Self {
            keyrings: keyrings.into_iter().collect(),
            blacklist: None,
            now,
        }
    }

    /// Refuses the keys of `blacklist`, and those that belong to the same certificates.
    #[must_use]
    pub fn refusing(mut self, blacklist: &'a Certificates) -> Self {
        self.blacklist = Some(blacklist);
        self
    }

    /// Checks bytes that are in memory against the text of their `.asc` file.
    pub fn verify<B: AsRef<[u8]>>(
        &self,
        bytes: B,
        signature: &[u8],
    ) -> Result<Verified<B>, VerifyError> {
        let mut verifier = self.verifier(signature)?;
        verifier.update(bytes.as_ref());
        Ok(verifier.finish()?.map(|_| bytes))
    }

    /// Checks a stream, read once to its end with a buffer of 64 KiB; returns the digest of
    /// exactly the bytes that were read.
    pub fn verify_reader(
        &self,
        mut data: impl Read,
        signature: &[u8],
    ) -> Result<Verified<Sha256>, VerifyError> {
        let mut verifier = self.verifier(signature)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            match data.read(&mut buffer) {
                Ok(0) => return verifier.finish(),
                Ok(len) => verifier.update(&buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(VerifyError::Read(error)),
            }
        }
    }

    /// Checks a file piece by piece, for instance while it is downloaded.
    ///
    /// # Errors
    /// Whatever is wrong whatever the content may be, so that nothing is fetched in vain.
    pub fn verifier(&self, signature: &[u8]) -> Result<Verifier, VerifyError> {
        let detached = DetachedSignature::parse(signature)?;
        let mut claims = Vec::new();
        for signature in &detached.signatures {
            claims.extend(self.claim(signature)?);
        }
        if claims.iter().all(|claim| claim.lapsed.is_some()) {
            let first = claims.into_iter().find_map(|claim| claim.lapsed);
            let issuers = detached.issuers();
            return Err(first.map_or(VerifyError::UnknownKey { issuers }, Lapse::into));
        }
        Ok(Verifier {
            claims,
            content: sha2::Sha256::new(),
        })
    }

    /// What one signature claims, if it is by a key that is known here.
    fn claim(&self, signature: &Signature) -> Result<Option<Claim>, VerifyError> {
        let Some(issuer) = signature::issuer(signature) else {
            return Ok(None);
        };
        if self.is_blacklisted(issuer) {
            return Err(VerifyError::Blacklisted { key: issuer });
        }
        let found: Vec<_> = self
            .keyrings
            .iter()
            .flat_map(|keyring| keyring.find(issuer))
            .collect();
        let revoked = found.iter().find(|key| key.standing == Standing::Revoked);
        // If a key is in the keyrings twice, it is the copy that says it lives longest: the other
        // has not seen its extension yet. A revocation counts in any copy.
        let longest = found
            .iter()
            .max_by_key(|key| key.expires.unwrap_or(i64::MAX));
        let Some(&key) = revoked.or(longest) else {
            return Ok(None);
        };
        if self.is_blacklisted(key.primary.into()) || self.is_blacklisted(key.fingerprint.into()) {
            return Err(VerifyError::Blacklisted {
                key: key.fingerprint.into(),
            });
        }
        let config = acceptable(signature, key)?;
        let signed = made_at(config, key)?;
        let end = signature::validity(config).map(|seconds| signed + seconds);
        let hasher = (config.hash_alg != HashAlgorithm::Sha256).then(|| {
            config
                .hash_alg
                .new_hasher()
                .expect("every strong digest is built in")
        });
        let lapsed = match (key.expires, end) {
            (Some(expired), _) if self.now.is_past(expired) => {
                Some(Lapse::Key(key.fingerprint, expired))
            }
            (_, Some(end)) if self.now.is_past(end) => Some(Lapse::Signature(key.fingerprint, end)),
            _ => None,
        };
        Ok(Some(Claim {
            signature: signature.clone(),
            hasher,
            key: Arc::clone(key),
            signed,
            lapsed,
        }))
    }

    fn is_blacklisted(&self, key: Issuer) -> bool {
        self.blacklist.is_some_and(|blacklist| blacklist.names(key))
    }
}

/// The signature's statement, if it and its key are of a kind that counts.
fn acceptable<'s>(signature: &'s Signature, key: &Key) -> Result<&'s SignatureConfig, VerifyError> {
    let key_named = key.fingerprint;
    match key.standing {
        Standing::Signs => {}
        Standing::Revoked => return Err(VerifyError::Revoked { key: key_named }),
        Standing::CannotSign => return Err(VerifyError::CannotSign { key: key_named }),
        Standing::Weak => return Err(VerifyError::WeakKey { key: key_named }),
    }
    let config = signature
        .config()
        .filter(|config| config.version() == SignatureVersion::V4)
        .ok_or(VerifyError::NotUnderstood { key: key_named })?;
    if config.typ != SignatureType::Binary {
        return Err(VerifyError::NotBinary { key: key_named });
    }
    if !signature::is_strong(config.hash_alg) {
        let digest = config.hash_alg.to_string();
        return Err(VerifyError::WeakDigest {
            key: key_named,
            digest,
        });
    }
    if signature::has_unknown_critical(config) {
        return Err(VerifyError::NotUnderstood { key: key_named });
    }
    Ok(config)
}

/// When the signature was made, which must be within the key's lifetime, whatever time it is now.
fn made_at(config: &SignatureConfig, key: &Key) -> Result<i64, VerifyError> {
    let signed = signature::created(config).ok_or(VerifyError::NotUnderstood {
        key: key.fingerprint,
    })?;
    if signed < key.created || key.expires.is_some_and(|end| signed >= end) {
        return Err(VerifyError::OutsideLifetime {
            key: key.fingerprint,
            signed,
        });
    }
    Ok(signed)
}

/// A signature by a known key, acceptable in form; what is left to check is the content.
struct Claim {
    signature: Signature,
    /// Takes the content; none for SHA-256, which is computed of everything anyway.
    hasher: Option<Box<dyn DynDigest + Send>>,
    key: Arc<Key>,
    signed: i64,
    lapsed: Option<Lapse>,
}

impl Claim {
    /// Whether the signature is one over the content that was hashed.
    fn matches(self, content: &sha2::Sha256) -> bool {
        let hasher = self.hasher.unwrap_or_else(|| Box::new(content.clone()));
        matches(&self.signature, hasher, &self.key).unwrap_or(false)
    }
}

fn matches(
    signature: &Signature,
    mut hasher: Box<dyn DynDigest + Send>,
    key: &Key,
) -> Option<bool> {
    let config = signature.config()?;
    let statement = config.hash_signature_data(&mut hasher).ok()?;
    hasher.update(&config.trailer(statement).ok()?);
    let digest = hasher.finalize();
    // The first two bytes of the digest stand in the signature: a quick check before a slow one.
    let quick = digest.starts_with(&signature.signed_hash_value()?);
    Some(quick && key.verifies(config.hash_alg, &digest, signature.signature()?))
}

/// Why a signature that was good is not any more.
#[derive(Clone, Copy)]
enum Lapse {
    Key(Fingerprint, i64),
    Signature(Fingerprint, i64),
}

impl From<Lapse> for VerifyError {
    fn from(lapse: Lapse) -> Self {
        match lapse {
            Lapse::Key(key, expired) => Self::KeyExpired { key, expired },
            Lapse::Signature(key, expired) => Self::SignatureExpired { key, expired },
        }
    }
}

/// Takes the signed bytes piece by piece, by [`update`](Self::update) or as a writer.
///
/// One pass computes the signature's digest and the SHA-256. Nothing may be believed of the bytes
/// before [`finish`](Self::finish).
#[must_use]
pub struct Verifier {
    claims: Vec<Claim>,
    content: sha2::Sha256,
}

impl Verifier {
    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.content, bytes);
        for hasher in self
            .claims
            .iter_mut()
            .filter_map(|claim| claim.hasher.as_mut())
        {
            hasher.update(bytes);
        }
    }

    /// Says whether all bytes together were signed; returns their digest.
    pub fn finish(self) -> Result<Verified<Sha256>, VerifyError> {
        let mut made = None;
        for claim in self.claims {
            let by = claim.key.fingerprint;
            if claim.lapsed.is_none() {
                let (primary, at) = (claim.key.primary, claim.signed);
                made.get_or_insert(Made { by, primary, at });
            }
            if !claim.matches(&self.content) {
                return Err(VerifyError::Bad { key: by });
            }
        }
        let made = made.expect("a verifier is only made with a claim that has not lapsed");
        let digest: [u8; 32] = self.content.finalize().into();
        Ok(Verified::new(digest.into(), made))
    }
}

impl Write for Verifier {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self
            .claims
            .iter()
            .map(|claim| claim.key.fingerprint)
            .collect();
        f.debug_struct("Verifier")
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

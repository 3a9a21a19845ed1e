//! Checks content against signatures that are acceptable in form, as it streams by.
//!
//! In: claims, made by `signers`, and the content in pieces. Out: the content's SHA-256, verified.

use std::io::{self, Write};
use std::sync::Arc;

use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureConfig};
use sha2::Digest as _;
use sha2::digest::DynDigest;
use system_image_formats::checksum::Sha256;

use crate::certificate::Key;
use crate::fingerprint::Fingerprint;
use crate::now::Now;
use crate::signature;
use crate::verified::{Made, Verified};
use crate::verify_error::VerifyError;

/// A signature by a known key, acceptable in form; what is left to check is the content.
pub(crate) struct Claim {
    signature: Signature,
    /// Takes the content; none for SHA-256, which is computed of everything anyway.
    hasher: Option<Box<dyn DynDigest + Send>>,
    key: Arc<Key>,
    signed: i64,
    lapsed: Option<Lapse>,
}

impl Claim {
    /// A claim that a key made this signature, whose statement is `config`, at `signed`.
    pub(crate) fn new(
        signature: &Signature,
        config: &SignatureConfig,
        key: &Arc<Key>,
        signed: i64,
        now: Now,
    ) -> Self {
        let end = signature::validity(config).map(|seconds| signed + seconds);
        let lapsed = match (key.expires, end) {
            (Some(end), _) if now.is_past(end) => Some(Lapse::Key(key.fingerprint, end)),
            (_, Some(end)) if now.is_past(end) => Some(Lapse::Signature(key.fingerprint, end)),
            _ => None,
        };
        let hash = config.hash_alg;
        let hasher = || hash.new_hasher().expect("every strong digest is built in");
        Self {
            signature: signature.clone(),
            hasher: (hash != HashAlgorithm::Sha256).then(hasher),
            key: Arc::clone(key),
            signed,
            lapsed,
        }
    }

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
    /// Whether somebody wants the SHA-256: the caller, or one of the claims.
    digests: bool,
    /// Whether nobody has to have signed.
    anybody: bool,
}

impl Verifier {
    /// A verifier for these claims, if one of them can still be good; else the first lapse, or
    /// nothing if there is no claim at all.
    pub(crate) fn new(claims: Vec<Claim>) -> Result<Self, Option<VerifyError>> {
        if claims.iter().all(|claim| claim.lapsed.is_some()) {
            let first = claims.into_iter().find_map(|claim| claim.lapsed);
            return Err(first.map(Lapse::into));
        }
        Ok(Self {
            claims,
            content: sha2::Sha256::new(),
            digests: true,
            anybody: false,
        })
    }

    /// A verifier that nothing is wrong for.
    pub(crate) fn of_anybody() -> Self {
        Self {
            claims: Vec::new(),
            content: sha2::Sha256::new(),
            digests: true,
            anybody: true,
        }
    }

    /// Whether all of `bytes` was signed, and by whom; without a digest that nobody asks for.
    pub(crate) fn check(mut self, bytes: &[u8]) -> Result<Verified<()>, VerifyError> {
        self.digests = self.claims.iter().any(|claim| claim.hasher.is_none());
        self.update(bytes);
        Ok(self.finish()?.map(drop))
    }

    /// Takes the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        if self.digests {
            sha2::Digest::update(&mut self.content, bytes);
        }
        for claim in &mut self.claims {
            if let Some(hasher) = &mut claim.hasher {
                hasher.update(bytes);
            }
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
        let digest: [u8; 32] = self.content.finalize().into();
        if self.anybody {
            return Ok(Verified::trust_unsigned_for_testing(digest.into()));
        }
        let made = made.expect("a verifier is only made with a claim that has not lapsed");
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

//! Keyrings, signatures and the chain of trust: what makes bytes [`Verified`].
//!
//! | to | use |
//! | --- | --- |
//! | load keyrings in order, from the installed anchor down | [`Chain`] |
//! | check `channels.json` | [`Chain::channel_signers`], then [`Signers::verify`] |
//! | check `index.json` and payloads | [`Chain::index_signers`], then [`Signers::verify`], [`Signers::verify_reader`] or, while downloading, [`Signers::verifier`] |
//! | parse what was checked | [`Verified::try_map`] |
//! | generate, store and use a key | [`SecretKey`] |
//! | make a keyring and publish it | [`Keyring`], [`Certificates`], [`Keyring::pack`] |
//!
//! The rules for a signature stand in `signers`, those for a key in `certificate`, what is done
//! with a clock in [`Now`]. OpenPGP itself is the `pgp` crate's; packet framing, armour and every
//! decision are here, because they are where implementations differ. No file, clock or thread:
//! bytes and readers, the time and the random generator come in as arguments.

mod armor;
mod certificate;
mod certificates;
mod chain;
mod fingerprint;
mod keyring;
mod now;
mod packet;
mod rsa;
mod secret_key;
mod signature;
mod signers;
mod verified;
mod verifier;
mod verify_error;

pub use armor::ArmorError;
pub use certificates::{CertificateFacts, Certificates, CertificatesError, MAX_KEYRING_LEN};
pub use chain::{Chain, ChainError};
pub use fingerprint::{Fingerprint, FingerprintError, Issuer};
pub use keyring::{Keyring, KeyringError};
pub use now::Now;
pub use packet::PacketError;
pub use secret_key::{KeyKind, SecretKey, SecretKeyError};
pub use signature::{DetachedSignature, MAX_SIGNATURE_LEN, SignatureFormError};
pub use signers::Signers;
pub use verified::Verified;
pub use verifier::Verifier;
pub use verify_error::VerifyError;

//! The chain of trust: archive-master → image-master → image-signing → device-signing, and the
//! blacklist beside it (server spec, section 10.1).
//!
//! In: keyring archives with their signatures, in an order in which each follows its signer. Out:
//! who may sign what. Only direct signatures count: a file signed one level too high is refused.
//! A key on the blacklist is refused everywhere, also for keyrings that were loaded before the
//! blacklist was.

use std::collections::BTreeMap;

use system_image_formats::keyring::KeyringType;
use system_image_formats::name::DeviceName;

use crate::certificates::Certificates;
use crate::fingerprint::Issuer;
use crate::keyring::{Keyring, KeyringError};
use crate::now::Now;
use crate::signers::{Signers, VerifyError};
use crate::verified::Verified;

/// Why a keyring was not taken into the chain, or nobody can sign what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The archive's signature is not good.
    #[error("the {} has no good signature", name(*kind))]
    Signature {
        /// The type that was asked for; none if it was to be learnt from the archive.
        kind: Option<KeyringType>,
        /// What is wrong with it.
        source: VerifyError,
    },
    /// The archive is not the keyring that was asked for.
    #[error("the {} is not usable", name(*kind))]
    Keyring {
        /// The type that was asked for; none if it was to be learnt from the archive.
        kind: Option<KeyringType>,
        /// What is wrong with it.
        source: KeyringError,
    },
    /// The archive is signed, but not by the keyring that signs its type.
    #[error("the {kind} keyring is not signed by a key of {signer}")]
    WrongSigner {
        /// What the archive says it is.
        kind: KeyringType,
        /// Who must sign that.
        signer: KeyringType,
        /// What the check against that keyring said.
        source: VerifyError,
    },
    /// A keyring of that type is in the chain already.
    #[error("the {kind} keyring is loaded already")]
    Twice {
        /// The type.
        kind: KeyringType,
    },
    /// A keyring that is needed is not in the chain.
    #[error("the {kind} keyring is not loaded")]
    NotLoaded {
        /// The type.
        kind: KeyringType,
    },
    /// A keyring was loaded, but its signer is on the blacklist that was loaded later.
    #[error("the {kind} keyring is signed by {key}, which is on the blacklist")]
    SignerBlacklisted {
        /// The type.
        kind: KeyringType,
        /// The key.
        key: Issuer,
    },
}

fn name(kind: Option<KeyringType>) -> String {
    kind.map_or_else(|| "keyring".to_owned(), |kind| format!("{kind} keyring"))
}

impl ChainError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Signature { source, .. } => source.hint().map(str::to_owned),
            Self::Keyring { source, .. } => source.hint(),
            Self::WrongSigner { signer, .. } => Some(format!(
                "only direct signatures count: the publisher must sign it with {signer}"
            )),
            Self::NotLoaded { kind } => Some(format!("load the {kind} keyring first")),
            Self::SignerBlacklisted { .. } => Some(
                "fetch the keyring again; its publisher must sign it with another key".to_owned(),
            ),
            Self::Twice { .. } => None,
        }
    }
}

/// The keyrings of one run, each verified by the one above it.
#[derive(Clone, Debug)]
pub struct Chain {
    device: DeviceName,
    now: Now,
    keyrings: BTreeMap<KeyringType, Verified<Keyring>>,
}

impl Chain {
    /// A chain with nothing but its anchor: the archive-master keyring of the installed system,
    /// which is trusted because it is there, for the device `device`.
    pub fn new(anchor: &[u8], device: DeviceName, now: Now) -> Result<Self, ChainError> {
        let kind = KeyringType::ArchiveMaster;
        let refused = |source| ChainError::Keyring {
            kind: Some(kind),
            source,
        };
        let keyring = Keyring::unpack(anchor).map_err(refused)?;
        keyring.check(kind, &device, now).map_err(refused)?;
        // Its signature would be by itself and so prove nothing.
        let keyring = Verified::trust_unsigned_for_testing(keyring);
        Ok(Self {
            device,
            now,
            keyrings: BTreeMap::from([(kind, keyring)]),
        })
    }

    /// Takes a keyring that must be of type `wanted`, as the client does, which asks for each.
    pub fn load_as(
        &mut self,
        wanted: KeyringType,
        archive: &[u8],
        signature: &[u8],
    ) -> Result<&Keyring, ChainError> {
        let kind = Some(wanted);
        let verified = self
            .signers_of(wanted)?
            .verify(archive, signature)
            .map_err(|source| ChainError::Signature { kind, source })?;
        let keyring = verified
            .try_map(Keyring::unpack)
            .map_err(|source| ChainError::Keyring { kind, source })?;
        self.take(wanted, keyring)
    }

    /// Takes a keyring of whatever type it says it is, as the upgrader does, whose command file
    /// does not name the type. That is only looked at once a loaded keyring has verified the
    /// archive; then the keyring that signs this type must have been the one.
    pub fn load(&mut self, archive: &[u8], signature: &[u8]) -> Result<&Keyring, ChainError> {
        let usable = self
            .keyrings
            .keys()
            .filter(|kind| **kind != KeyringType::Blacklist);
        let usable = usable.filter_map(|kind| self.usable(*kind).ok());
        let verified = self
            .signers(usable)
            .verify(archive, signature)
            .map_err(|source| ChainError::Signature { kind: None, source })?;
        let keyring = verified
            .try_map(Keyring::unpack)
            .map_err(|source| ChainError::Keyring { kind: None, source })?;
        let kind = keyring.info.kind;
        let keyring = keyring.into_inner();
        let direct = self
            .signers_of(kind)?
            .verify(archive, signature)
            .map_err(|source| ChainError::WrongSigner {
                kind,
                signer: kind.signer(),
                source,
            })?;
        self.take(kind, direct.map(|_| keyring))
    }

    fn take(
        &mut self,
        kind: KeyringType,
        keyring: Verified<Keyring>,
    ) -> Result<&Keyring, ChainError> {
        let now = keyring
            .signed_at()
            .map_or(self.now, |signed| self.now.at_least(signed));
        keyring
            .check(kind, &self.device, now)
            .map_err(|source| ChainError::Keyring {
                kind: Some(kind),
                source,
            })?;
        if self.keyrings.contains_key(&kind) {
            return Err(ChainError::Twice { kind });
        }
        self.now = now;
        Ok(self.keyrings.entry(kind).or_insert(keyring))
    }

    /// Who may sign `index.json` and the files that it names: image-signing, and device-signing
    /// if it is loaded.
    pub fn index_signers(&self) -> Result<Signers<'_>, ChainError> {
        let image = self.usable(KeyringType::ImageSigning)?;
        let device = self.usable_if_loaded(KeyringType::DeviceSigning)?;
        Ok(self.signers([image].into_iter().chain(device)))
    }

    /// Who may sign `channels.json`: image-signing.
    pub fn channel_signers(&self) -> Result<Signers<'_>, ChainError> {
        Ok(self.signers([self.usable(KeyringType::ImageSigning)?]))
    }

    /// Who may sign a keyring of type `kind`.
    pub fn signers_of(&self, kind: KeyringType) -> Result<Signers<'_>, ChainError> {
        Ok(self.signers([self.usable(kind.signer())?]))
    }

    /// Whether a keyring of type `kind` has been loaded.
    pub fn has(&self, kind: KeyringType) -> bool {
        self.keyrings.contains_key(&kind)
    }

    /// The present: the clock, or the time of the newest keyring signature if that is later.
    pub fn now(&self) -> Now {
        self.now
    }

    fn signers<'a>(&'a self, keyrings: impl IntoIterator<Item = &'a Certificates>) -> Signers<'a> {
        let signers = Signers::new(keyrings, self.now);
        match self.keyrings.get(&KeyringType::Blacklist) {
            Some(blacklist) => signers.refusing(&blacklist.certificates),
            None => signers,
        }
    }

    /// A keyring, if neither its signer nor one further up has been blacklisted since.
    fn usable(&self, kind: KeyringType) -> Result<&Certificates, ChainError> {
        let keyring = self
            .keyrings
            .get(&kind)
            .ok_or(ChainError::NotLoaded { kind })?;
        let signers = [keyring.signer(), keyring.signer_certificate()];
        let mut signers = signers.into_iter().flatten().map(Issuer::from).peekable();
        if signers.peek().is_none() {
            return Ok(&keyring.certificates);
        }
        self.usable(kind.signer())?;
        let blacklist = self.keyrings.get(&KeyringType::Blacklist);
        let listed = signers.find(|key| blacklist.is_some_and(|b| b.certificates.names(*key)));
        if let Some(key) = listed {
            return Err(ChainError::SignerBlacklisted { kind, key });
        }
        Ok(&keyring.certificates)
    }

    fn usable_if_loaded(&self, kind: KeyringType) -> Result<Option<&Certificates>, ChainError> {
        match self.usable(kind) {
            Ok(keyring) => Ok(Some(keyring)),
            Err(ChainError::NotLoaded { .. }) if !self.has(kind) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

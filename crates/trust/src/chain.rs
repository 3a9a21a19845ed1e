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
use crate::signers::Signers;
use crate::verified::Verified;
use crate::verify_error::VerifyError;

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
    anybody: bool,
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
            anybody: false,
        })
    }

    /// Looks at no signature from now on, only at what keyrings say of themselves: for the hidden
    /// option `--skip-gpg-verification`. Never a default.
    pub fn trust_anybody_for_testing(&mut self) {
        self.anybody = true;
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
        let mut signers = Signers::new(keyrings, self.now);
        if self.anybody {
            signers = signers.trust_anybody_for_testing();
        }
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

#[cfg(test)]
mod tests {
    use rand_core::OsRng;
    use system_image_formats::keyring::KeyringInfo;

    use super::*;
    use crate::secret_key::{KeyKind, SecretKey};

    const MADE: i64 = 1_750_000_000;

    fn key() -> SecretKey {
        SecretKey::generate(&mut OsRng, KeyKind::Ed25519, "Test", MADE, None).unwrap()
    }

    /// One key for each keyring, in the order of [`KeyringType::ALL`].
    struct Keys(Vec<SecretKey>);

    impl Keys {
        fn new() -> Self {
            Self(KeyringType::ALL.iter().map(|_| key()).collect())
        }

        fn of(&self, kind: KeyringType) -> &SecretKey {
            let place = KeyringType::ALL.iter().position(|k| *k == kind).unwrap();
            &self.0[place]
        }

        fn keyring(&self, kind: KeyringType) -> Keyring {
            Keyring {
                info: KeyringInfo::new(kind),
                certificates: self.of(kind).certificate().clone(),
            }
        }

        fn chain(&self) -> Chain {
            let anchor = self.keyring(KeyringType::ArchiveMaster).pack();
            Chain::new(
                &anchor,
                "tango".parse().unwrap(),
                Now::from_clock(MADE + 1000),
            )
            .unwrap()
        }

        fn loaded(&self, kinds: &[KeyringType]) -> Chain {
            let mut chain = self.chain();
            for kind in kinds {
                let (archive, signature) = signed(&self.keyring(*kind), self.of(kind.signer()));
                chain.load_as(*kind, &archive, &signature).unwrap();
            }
            chain
        }
    }

    fn signed(keyring: &Keyring, by: &SecretKey) -> (Vec<u8>, Vec<u8>) {
        let archive = keyring.pack();
        let signature = by.sign(&archive[..], MADE + 10).unwrap().into_bytes();
        (archive, signature)
    }

    use KeyringType::{ArchiveMaster, Blacklist, DeviceSigning, ImageMaster, ImageSigning};

    #[test]
    fn only_the_keyring_right_above_may_sign_a_keyring() {
        let keys = Keys::new();
        for kind in [ImageMaster, ImageSigning, DeviceSigning, Blacklist] {
            for signer in KeyringType::ALL {
                let above: &[_] = match kind {
                    ImageMaster => &[],
                    DeviceSigning => &[ImageMaster, ImageSigning],
                    _ => &[ImageMaster],
                };
                let (archive, signature) = signed(&keys.keyring(kind), keys.of(signer));
                let by_type = keys
                    .loaded(above)
                    .load_as(kind, &archive, &signature)
                    .map(|_| ());
                let by_content = keys.loaded(above).load(&archive, &signature).map(|_| ());
                assert_eq!(
                    by_type.is_ok(),
                    kind.signer() == signer,
                    "{kind} by {signer}: {by_type:?}"
                );
                assert_eq!(
                    by_content.is_ok(),
                    kind.signer() == signer,
                    "{kind} by {signer}: {by_content:?}"
                );
            }
        }
    }

    #[test]
    fn a_keyring_needs_its_signer_loaded_before() {
        let keys = Keys::new();
        let (archive, signature) = signed(&keys.keyring(ImageSigning), keys.of(ImageMaster));
        let refused = keys
            .chain()
            .load_as(ImageSigning, &archive, &signature)
            .unwrap_err();
        assert!(
            matches!(refused, ChainError::NotLoaded { kind: ImageMaster }),
            "{refused:?}"
        );
        let refused = keys.chain().load(&archive, &signature).unwrap_err();
        assert!(
            matches!(refused, ChainError::Signature { kind: None, .. }),
            "{refused:?}"
        );
        assert!(matches!(
            keys.chain().channel_signers(),
            Err(ChainError::NotLoaded { kind: ImageSigning })
        ));
    }

    #[test]
    fn a_keyring_signed_too_high_says_so_when_its_type_was_not_asked_for() {
        let keys = Keys::new();
        let mut chain = keys.loaded(&[ImageMaster]);
        let (archive, signature) = signed(&keys.keyring(ImageSigning), keys.of(ArchiveMaster));
        let refused = chain.load(&archive, &signature).unwrap_err();
        assert!(
            matches!(
                refused,
                ChainError::WrongSigner {
                    kind: ImageSigning,
                    signer: ImageMaster,
                    ..
                }
            ),
            "{refused:?}"
        );
    }

    #[test]
    fn a_type_is_loaded_once_and_the_anchor_never_replaced() {
        let keys = Keys::new();
        let mut chain = keys.loaded(&[ImageMaster]);
        for kind in [ArchiveMaster, ImageMaster] {
            let (archive, signature) = signed(&keys.keyring(kind), keys.of(ArchiveMaster));
            let refused = chain.load(&archive, &signature).unwrap_err();
            assert!(matches!(refused, ChainError::Twice { .. }), "{refused:?}");
        }
    }

    #[test]
    fn the_type_asked_for_is_the_type_that_counts() {
        let keys = Keys::new();
        let (archive, signature) = signed(&keys.keyring(Blacklist), keys.of(ImageMaster));
        let refused = keys
            .loaded(&[ImageMaster])
            .load_as(ImageSigning, &archive, &signature)
            .unwrap_err();
        assert!(
            matches!(
                refused,
                ChainError::Keyring {
                    source: KeyringError::Type { .. },
                    ..
                }
            ),
            "{refused:?}"
        );
    }

    #[test]
    fn a_keyring_for_another_device_or_past_its_expiry_is_refused_by_client_and_upgrader() {
        let keys = Keys::new();
        let above = [ImageMaster, ImageSigning];
        for (model, expiry, good) in [
            (None, None, true),
            (Some("tango"), Some(MADE + 1000), true),
            (Some("disco"), None, false),
            (None, Some(MADE + 999), false),
        ] {
            let mut keyring = keys.keyring(DeviceSigning);
            keyring.info.model = model.map(|name| name.parse().unwrap());
            keyring.info.expiry = expiry;
            let (archive, signature) = signed(&keyring, keys.of(ImageSigning));
            let as_client = keys
                .loaded(&above)
                .load_as(DeviceSigning, &archive, &signature)
                .is_ok();
            let as_upgrader = keys.loaded(&above).load(&archive, &signature).is_ok();
            assert_eq!(
                (as_client, as_upgrader),
                (good, good),
                "{model:?} {expiry:?}"
            );
        }
    }

    #[test]
    fn a_clock_that_is_behind_is_moved_to_what_a_signature_proves() {
        let keys = Keys::new();
        let anchor = keys.keyring(ArchiveMaster).pack();
        let mut chain = Chain::new(&anchor, "tango".parse().unwrap(), Now::UNKNOWN).unwrap();
        let (archive, signature) = signed(&keys.keyring(ImageMaster), keys.of(ArchiveMaster));
        chain.load(&archive, &signature).unwrap();
        assert_eq!(chain.now(), Now::from_clock(MADE + 10));

        let mut old = keys.keyring(ImageSigning);
        old.info.expiry = Some(MADE + 9);
        let (archive, signature) = signed(&old, keys.of(ImageMaster));
        let refused = chain.load(&archive, &signature).unwrap_err();
        assert!(
            matches!(
                refused,
                ChainError::Keyring {
                    source: KeyringError::Expired { .. },
                    ..
                }
            ),
            "{refused:?}"
        );
    }

    #[test]
    fn indexes_are_for_two_keyrings_and_channels_for_one() {
        let keys = Keys::new();
        let without = keys.loaded(&[ImageMaster, ImageSigning]);
        let with = keys.loaded(&[ImageMaster, ImageSigning, DeviceSigning]);
        for signer in KeyringType::ALL {
            let signature = keys.of(signer).sign(&b"index"[..], MADE + 20).unwrap();
            let good = |signers: Result<Signers<'_>, ChainError>| {
                signers
                    .unwrap()
                    .verify(b"index", signature.as_bytes())
                    .is_ok()
            };
            let image = signer == ImageSigning;
            assert_eq!(good(without.index_signers()), image, "{signer}");
            assert_eq!(
                good(with.index_signers()),
                image || signer == DeviceSigning,
                "{signer}"
            );
            assert_eq!(good(with.channel_signers()), image, "{signer}");
        }
    }

    /// A chain whose blacklist, loaded last, holds the key of `listed`.
    fn blacklisting(keys: &Keys, listed: KeyringType) -> Chain {
        let mut chain = keys.loaded(&[ImageMaster, ImageSigning, DeviceSigning]);
        let mut blacklist = keys.keyring(Blacklist);
        blacklist.certificates = keys.of(listed).certificate().clone();
        let (archive, signature) = signed(&blacklist, keys.of(ImageMaster));
        chain.load(&archive, &signature).unwrap();
        chain
    }

    #[test]
    fn a_blacklisted_key_signs_nothing_any_more() {
        let keys = Keys::new();
        let chain = blacklisting(&keys, ImageSigning);
        let signature = keys
            .of(ImageSigning)
            .sign(&b"index"[..], MADE + 20)
            .unwrap();
        for signers in [
            chain.channel_signers().unwrap(),
            chain.signers_of(DeviceSigning).unwrap(),
        ] {
            let refused = signers.verify(b"index", signature.as_bytes()).unwrap_err();
            assert!(
                matches!(refused, VerifyError::Blacklisted { .. }),
                "{refused:?}"
            );
        }
        // The device keyring is signed by that key, so nothing of it counts any more.
        let refused = chain.index_signers().unwrap_err();
        assert!(
            matches!(
                refused,
                ChainError::SignerBlacklisted {
                    kind: DeviceSigning,
                    ..
                }
            ),
            "{refused:?}"
        );
    }

    #[test]
    fn a_blacklisted_master_takes_with_it_what_it_signed() {
        let keys = Keys::new();
        for listed in [ArchiveMaster, ImageMaster] {
            let refused = blacklisting(&keys, listed).channel_signers().unwrap_err();
            assert!(
                matches!(refused, ChainError::SignerBlacklisted { .. }),
                "{refused:?}"
            );
        }
        assert!(blacklisting(&keys, Blacklist).index_signers().is_ok());
    }

    #[test]
    fn a_chain_starts_with_an_archive_master_keyring_for_this_device() {
        let keys = Keys::new();
        let start = |keyring: &Keyring| {
            Chain::new(
                &keyring.pack(),
                "tango".parse().unwrap(),
                Now::from_clock(MADE),
            )
        };
        assert!(start(&keys.keyring(ArchiveMaster)).is_ok());
        assert!(start(&keys.keyring(ImageMaster)).is_err());
        let mut other = keys.keyring(ArchiveMaster);
        other.info.model = Some("disco".parse().unwrap());
        assert!(start(&other).is_err());
    }
}

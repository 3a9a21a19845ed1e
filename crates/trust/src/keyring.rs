//! Keyring archives: a `.tar.xz` with `keyring.json` and `keyring.gpg` (server spec, 8.5 and 10.3).
//!
//! In: an archive's verified bytes. Out: a [`Keyring`], and the archive for a keyring that is to
//! be published. Only these two plain members are taken, from memory, whatever else an archive
//! holds; nothing is ever unpacked to a disk. Who must have signed the archive is `chain`'s.

use std::io::{self, Read, Write};

use liblzma::read::XzDecoder;
use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use liblzma::write::XzEncoder;
use system_image_formats::json::JsonError;
use system_image_formats::keyring::{KeyringInfo, KeyringType};
use system_image_formats::name::DeviceName;

use crate::certificates::{Certificates, CertificatesError, MAX_KEYRING_LEN};
use crate::now::{Now, Utc};
use crate::verified::Verified;

const INFO: &str = "keyring.json";
const KEYS: &str = "keyring.gpg";

/// Longest `keyring.json`, in bytes; the original's have less than a hundred.
const MAX_INFO_LEN: usize = 64 << 10;

/// Most that an archive may hold when decompressed, in bytes: both members and tar's overhead.
const MAX_UNPACKED: u64 = (MAX_KEYRING_LEN + MAX_INFO_LEN + (64 << 10)) as u64;

/// Memory of the decoder, in bytes. `xz -9`, which the original uses, asks for 65 MiB.
const DECODER_MEMORY: u64 = 100 << 20;

/// Dictionary of what we write, in bytes: keyrings are smaller, and a device must allocate it.
const DICTIONARY: u32 = 1 << 20;

/// Modification time of members, so that equal keyrings give equal archives: 1980-01-01, the
/// earliest that no tar finds implausible.
const MEMBER_TIME: u64 = 315_532_800;

/// GNU tar writes whole records of twenty blocks.
const TAR_RECORD: usize = 10_240;

/// Why an archive is not the keyring that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Not a `.tar.xz`, or one that needs more than 100 MiB or 4 MiB of content to unpack.
    #[error("cannot unpack the keyring archive")]
    Unpack(#[source] io::Error),
    /// A member is missing.
    #[error("`{0}` is missing in the keyring archive")]
    Missing(&'static str),
    /// A member stands there twice, or is no plain file, or is too long.
    #[error("`{0}` is not one plain file of sensible size in the keyring archive")]
    BadMember(&'static str),
    /// `keyring.json` cannot be read.
    #[error("cannot read `keyring.json`")]
    Info(#[from] JsonError),
    /// `keyring.gpg` cannot be read.
    #[error("cannot read `keyring.gpg`")]
    Keys(#[from] CertificatesError),
    /// The keyring is of another type.
    #[error("keyring type mismatch; wanted: {wanted}, got: {got}")]
    Type {
        /// The type that was asked for.
        wanted: KeyringType,
        /// The type that `keyring.json` names.
        got: KeyringType,
    },
    /// The keyring is for another device.
    #[error("keyring model mismatch; wanted: {wanted}, got: {got}")]
    Model {
        /// This device.
        wanted: DeviceName,
        /// The device that `keyring.json` names.
        got: DeviceName,
    },
    /// The keyring's expiry is in the past.
    #[error("expired keyring timestamp")]
    Expired {
        /// Unix seconds.
        expiry: i64,
        /// The present that it was compared with, in Unix seconds.
        now: i64,
    },
}

impl KeyringError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Keys(keys) => keys.hint().map(str::to_owned),
            Self::Expired { expiry, now } => Some(format!(
                "it expired at {}, and the clock says {}; if the clock is right, the publisher must issue it again",
                Utc(*expiry),
                Utc(*now),
            )),
            Self::Type { .. } => Some("the server has another keyring at this place".to_owned()),
            Self::Model { .. } => Some("check the device name in the configuration".to_owned()),
            _ => None,
        }
    }
}

/// A set of keys, and what they may sign.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// What `keyring.json` says.
    pub info: KeyringInfo,
    /// The keys of `keyring.gpg`.
    pub certificates: Certificates,
}

impl Keyring {
    /// Opens an archive whose signature has been checked.
    pub fn open<B: AsRef<[u8]>>(archive: &Verified<B>) -> Result<Self, KeyringError> {
        Self::unpack(archive.as_ref().as_ref())
    }

    pub(crate) fn unpack(archive: &[u8]) -> Result<Self, KeyringError> {
        let (info, keys) = members(archive)?;
        let info = info.ok_or(KeyringError::Missing(INFO))?;
        let keys = keys.ok_or(KeyringError::Missing(KEYS))?;
        Ok(Self {
            info: KeyringInfo::parse(&info)?,
            certificates: Certificates::parse(&keys)?,
        })
    }

    /// Whether this is a keyring of type `wanted`, for `device`, and not expired, in the order of
    /// client spec 8.3.
    pub fn check(
        &self,
        wanted: KeyringType,
        device: &DeviceName,
        now: Now,
    ) -> Result<(), KeyringError> {
        if self.info.kind != wanted {
            return Err(KeyringError::Type {
                wanted,
                got: self.info.kind,
            });
        }
        if let Some(model) = self.info.model.as_ref().filter(|model| *model != device) {
            return Err(KeyringError::Model {
                wanted: device.clone(),
                got: model.clone(),
            });
        }
        match self.info.expiry {
            Some(expiry) if self.info.is_expired(now.seconds()) => Err(KeyringError::Expired {
                expiry,
                now: now.seconds(),
            }),
            _ => Ok(()),
        }
    }

    /// The archive of this keyring: GNU tar, xz with CRC64; equal keyrings give equal bytes.
    pub fn pack(&self) -> Vec<u8> {
        const MEMORY: &str = "writing to memory does not fail";
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in [
            (INFO, self.info.to_bytes()),
            (KEYS, self.certificates.to_bytes()),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(MEMBER_TIME);
            header.set_username("root").expect("fits");
            header.set_groupname("root").expect("fits");
            tar.append_data(&mut header, name, &bytes[..])
                .expect(MEMORY);
        }
        let mut tar = tar.into_inner().expect(MEMORY);
        tar.resize(tar.len().next_multiple_of(TAR_RECORD), 0);

        let mut options = LzmaOptions::new_preset(6).expect("a preset of the library");
        options.dict_size(DICTIONARY);
        let stream = Stream::new_stream_encoder(Filters::new().lzma2(&options), Check::Crc64)
            .expect("plain LZMA2 is always available");
        let mut xz = XzEncoder::new_stream(Vec::new(), stream);
        xz.write_all(&tar).expect(MEMORY);
        xz.finish().expect(MEMORY)
    }
}

type Members = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The content of `keyring.json` and `keyring.gpg`.
fn members(archive: &[u8]) -> Result<Members, KeyringError> {
    let stream = Stream::new_stream_decoder(DECODER_MEMORY, liblzma::stream::CONCATENATED)
        .expect("a decoder with a sensible memory limit is always available");
    let unpacked = XzDecoder::new_stream(archive, stream).take(MAX_UNPACKED + 1);
    let mut tar = tar::Archive::new(unpacked);
    let (mut info, mut keys) = (None, None);
    for entry in tar.entries().map_err(KeyringError::Unpack)? {
        let mut entry = entry.map_err(KeyringError::Unpack)?;
        let (name, place, max) = match &*entry.path_bytes() {
            b"keyring.json" | b"./keyring.json" => (INFO, &mut info, MAX_INFO_LEN),
            b"keyring.gpg" | b"./keyring.gpg" => (KEYS, &mut keys, MAX_KEYRING_LEN),
            _ => continue,
        };
        let fits = entry.size() <= max as u64;
        if place.is_some() || !fits || entry.header().entry_type() != tar::EntryType::Regular {
            return Err(KeyringError::BadMember(name));
        }
        // Grows as data arrives; the size in the header is never allocated at once.
        let mut bytes = Vec::new();
        entry
            .read_to_end(&mut bytes)
            .map_err(KeyringError::Unpack)?;
        *place = Some(bytes);
    }
    // To its end: xz's checksum comes last, and an archive that is too long is no keyring.
    let mut rest = tar.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(KeyringError::Unpack)?;
    if rest.limit() == 0 {
        let error = io::Error::new(
            io::ErrorKind::FileTooLarge,
            "more content than a keyring has",
        );
        return Err(KeyringError::Unpack(error));
    }
    Ok((info, keys))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_core::OsRng;

    use super::*;
    use crate::secret_key::{KeyKind, SecretKey};

    fn keyring(kind: KeyringType) -> Keyring {
        let key = SecretKey::generate(&mut OsRng, KeyKind::Ed25519, "Test", 1_750_000_000, None);
        Keyring {
            info: KeyringInfo::new(kind),
            certificates: key.unwrap().certificate().clone(),
        }
    }

    fn tar(members: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, kind, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            if kind.is_symlink() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut xz = XzEncoder::new(Vec::new(), 1);
        xz.write_all(bytes).unwrap();
        xz.finish().unwrap()
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;
    const JSON: &[u8] = b"{\"type\": \"image-signing\"}";

    #[test]
    fn what_is_packed_is_read_and_equal_keyrings_give_equal_bytes() {
        let mut packed = keyring(KeyringType::DeviceSigning);
        packed.info.expiry = Some(7);
        let archive = packed.pack();
        assert_eq!(archive, packed.pack());
        let read = Keyring::open(&Verified::trust_unsigned_for_testing(&archive[..])).unwrap();
        assert_eq!(read.info, packed.info);
        assert_eq!(read.certificates.to_bytes(), packed.certificates.to_bytes());
    }

    #[test]
    fn a_blacklist_without_keys_is_an_empty_set() {
        let blacklist = Keyring {
            info: KeyringInfo::new(KeyringType::Blacklist),
            certificates: Certificates::default(),
        };
        let read = Keyring::unpack(&blacklist.pack()).unwrap();
        assert!(read.certificates.is_empty());
    }

    #[test]
    fn only_the_two_plain_members_are_taken() {
        let keys = keyring(KeyringType::ImageSigning).certificates.to_bytes();
        let dir = tar::EntryType::Directory;
        for members in [
            &[(INFO, FILE, JSON), (KEYS, FILE, &keys)][..],
            &[(KEYS, FILE, &keys), (INFO, FILE, JSON)],
            &[
                (".", dir, b""),
                ("./keyring.json", FILE, JSON),
                ("./keyring.gpg", FILE, &keys),
            ],
            &[
                ("x/keyring.json", FILE, b"no"),
                (INFO, FILE, JSON),
                (KEYS, FILE, &keys),
            ],
        ] {
            let read = Keyring::unpack(&xz(&tar(members))).unwrap();
            assert_eq!(read.certificates.len(), 1, "{members:?}");
        }
    }

    #[test]
    fn every_other_archive_is_refused() {
        let link = tar::EntryType::Symlink;
        let long = vec![b' '; MAX_INFO_LEN + 1];
        let junk = vec![0; 5 << 20];
        for (archive, want) in [
            (vec![], "Unpack"),
            (b"not xz".to_vec(), "Unpack"),
            (tar(&[(INFO, FILE, JSON)]), "Unpack"),
            (xz(b""), "Missing(\"keyring.json\")"),
            (xz(&tar(&[(KEYS, FILE, b"")])), "Missing(\"keyring.json\")"),
            (xz(&tar(&[(INFO, FILE, JSON)])), "Missing(\"keyring.gpg\")"),
            (
                xz(&tar(&[(INFO, FILE, JSON), (INFO, FILE, JSON)])),
                "BadMember",
            ),
            (
                xz(&tar(&[(INFO, link, b""), (KEYS, FILE, b"")])),
                "BadMember",
            ),
            (
                xz(&tar(&[(INFO, FILE, &long), (KEYS, FILE, b"")])),
                "BadMember",
            ),
            (xz(&tar(&[(INFO, FILE, b"[]"), (KEYS, FILE, b"")])), "Info"),
            (
                xz(&tar(&[(INFO, FILE, JSON), (KEYS, FILE, b"KBX")])),
                "Keys",
            ),
            (
                xz(&tar(&[
                    ("junk", FILE, &junk),
                    (INFO, FILE, JSON),
                    (KEYS, FILE, b""),
                ])),
                "Unpack",
            ),
            (
                xz(&tar(&[
                    (INFO, FILE, JSON),
                    (KEYS, FILE, b""),
                    ("junk", FILE, &junk),
                ])),
                "Unpack",
            ),
        ] {
            let got = format!("{:?}", Keyring::unpack(&archive).unwrap_err());
            assert!(got.starts_with(want), "{want}: {got}");
        }
    }

    #[test]
    fn a_truncated_or_trailed_archive_is_refused() {
        let archive = keyring(KeyringType::ImageSigning).pack();
        for len in [archive.len() - 1, archive.len() - 12, archive.len() / 2, 6] {
            assert!(Keyring::unpack(&archive[..len]).is_err(), "{len}");
        }
        assert!(Keyring::unpack(&[&archive[..], b"more"].concat()).is_err());
    }

    #[test]
    fn a_decoder_that_needs_too_much_memory_is_refused() {
        let mut options = LzmaOptions::new_preset(0).unwrap();
        options.dict_size(128 << 20);
        let stream =
            Stream::new_stream_encoder(Filters::new().lzma2(&options), Check::Crc64).unwrap();
        let mut xz = XzEncoder::new_stream(Vec::new(), stream);
        xz.write_all(&tar(&[(INFO, FILE, JSON), (KEYS, FILE, b"")]))
            .unwrap();
        let refused = Keyring::unpack(&xz.finish().unwrap()).unwrap_err();
        assert!(matches!(refused, KeyringError::Unpack(_)), "{refused:?}");
    }

    #[test]
    fn a_keyring_for_something_else_is_refused_in_the_specified_words() {
        let device: DeviceName = "tango".parse().unwrap();
        let mut keyring = keyring(KeyringType::ImageMaster);
        keyring.info.expiry = Some(100);
        keyring.info.model = Some("disco".parse().unwrap());
        let check = |keyring: &Keyring, wanted| {
            keyring
                .check(wanted, &device, Now::from_clock(101))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            check(&keyring, KeyringType::ImageSigning),
            "keyring type mismatch; wanted: image-signing, got: image-master"
        );
        assert_eq!(
            check(&keyring, KeyringType::ImageMaster),
            "keyring model mismatch; wanted: tango, got: disco"
        );
        keyring.info.model = Some(device.clone());
        assert_eq!(
            check(&keyring, KeyringType::ImageMaster),
            "expired keyring timestamp"
        );
        for now in [Now::from_clock(100), Now::from_clock(0), Now::UNKNOWN] {
            assert!(
                keyring
                    .check(KeyringType::ImageMaster, &device, now)
                    .is_ok(),
                "{now:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_tar_panics(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
        ) {
            let mut bytes = tar(&[(INFO, FILE, JSON), (KEYS, FILE, b"\x99\x00\x01x")]);
            for (at, byte) in changes {
                *at.get_mut(&mut bytes) = byte;
            }
            let _ = Keyring::unpack(&xz(&bytes));
        }

        #[test]
        fn no_archive_panics(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
        ) {
            let mut bytes = xz(&tar(&[(INFO, FILE, JSON), (KEYS, FILE, b"")]));
            for (at, byte) in changes {
                *at.get_mut(&mut bytes) = byte;
            }
            let _ = Keyring::unpack(&bytes);
        }
    }
}

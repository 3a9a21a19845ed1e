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
    pub(crate) fn check(
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

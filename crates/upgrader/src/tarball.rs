//! A tarball of the drop box: its signature is verified, then it is read without being opened again.

use std::fs::File;
use std::io::{self, Read, Seek};

use sha2::{Digest, Sha256 as Hasher};
use system_image_delta::{
    Applied, ApplyError, CheckError, Contents, Limits, Places, Privileges, Sink, apply, check,
};
use system_image_formats::checksum::Sha256;
use system_image_formats::command::SignedFile;
use system_image_trust::{MAX_SIGNATURE_LEN, Signers, Verified, VerifyError};

use crate::drop_box::{DropBox, DropBoxError};
use crate::xz::{plain_size, unpacked};

/// Told of each compressed byte that was read.
pub type OnRead<'a> = &'a mut dyn FnMut(u64);

/// A tarball whose signature is good.
#[derive(Debug)]
pub struct Tarball {
    /// Its name and its signature's.
    pub signed: SignedFile,
    /// Bytes that it has unpacked, as far as that can be told.
    pub plain_size: Option<u64>,
    file: File,
    digest: Verified<Sha256>,
}

/// Why a tarball is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarballError {
    /// It or its signature is not there.
    #[error(transparent)]
    DropBox(#[from] DropBoxError),
    /// Its signature is not good.
    #[error("`{name}` has no good signature")]
    Signature {
        /// The tarball.
        name: String,
        /// What is wrong.
        source: VerifyError,
    },
    /// It cannot be read again.
    #[error("cannot read `{name}` again")]
    Again {
        /// The tarball.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// It is signed, and still must not be applied.
    #[error("`{name}` cannot be applied")]
    Check {
        /// The tarball.
        name: String,
        /// What is wrong.
        source: CheckError,
    },
    /// The tree could not be changed as the archive says.
    #[error("cannot apply `{name}`")]
    Apply {
        /// The tarball.
        name: String,
        /// Why not.
        source: ApplyError,
    },
    /// Somebody wrote to the file after it was verified.
    #[error("`{name}` has changed since it was verified")]
    Changed {
        /// The tarball.
        name: String,
    },
}

impl Tarball {
    /// Opens a tarball and verifies its signature over its bytes. Nothing of it is parsed.
    pub fn verify(
        drop_box: &DropBox,
        signed: &SignedFile,
        signers: &Signers<'_>,
    ) -> Result<Self, TarballError> {
        let name = || signed.file().to_string();
        let signature = drop_box.read(signed.signature(), MAX_SIGNATURE_LEN as u64)?;
        let file = drop_box.file(signed.file())?;
        let verified = signers.verify_reader(&file, &signature);
        let digest = verified.map_err(|source| TarballError::Signature {
            name: name(),
            source,
        })?;
        let plain_size = plain_size(&file).map_err(|source| TarballError::Again {
            name: name(),
            source,
        })?;
        Ok(Self {
            signed: signed.clone(),
            plain_size,
            file,
            digest,
        })
    }

    /// Reads it to its end and finds out whether it can be applied. Changes nothing.
    pub fn check(
        &self,
        limits: Limits,
        sink: &mut dyn Sink,
        read: OnRead<'_>,
    ) -> Result<Contents, TarballError> {
        self.through(read, |archive| {
            check(archive, limits, sink).map_err(|source| TarballError::Check {
                name: self.name(),
                source,
            })
        })
    }

    /// Applies it, checking everything on the way.
    pub fn apply(
        &self,
        places: Places<'_>,
        limits: Limits,
        privileges: Privileges,
        sink: &mut dyn Sink,
        read: OnRead<'_>,
    ) -> Result<Applied, TarballError> {
        self.through(read, |archive| {
            apply(archive, limits, places, privileges, sink).map_err(|source| TarballError::Apply {
                name: self.name(),
                source,
            })
        })
    }

    /// Reads it once more, and finds out whether these were the bytes that were verified.
    fn through<T>(
        &self,
        read: OnRead<'_>,
        take: impl FnOnce(&mut dyn Read) -> Result<T, TarballError>,
    ) -> Result<T, TarballError> {
        let again = |source| TarballError::Again {
            name: self.name(),
            source,
        };
        let mut file = &self.file;
        file.rewind().map_err(again)?;
        let mut hashed = Hashed {
            file,
            hasher: Hasher::new(),
            read,
        };
        let taken = take(&mut unpacked(&mut hashed))?;
        io::copy(&mut hashed, &mut io::sink()).map_err(again)?;
        let digest: [u8; 32] = hashed.hasher.finalize().into();
        if Sha256::from(digest) == *self.digest {
            return Ok(taken);
        }
        Err(TarballError::Changed { name: self.name() })
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.signed.file().to_string()
    }
}

/// Hashes what is read, and tells of it.
struct Hashed<'a> {
    file: &'a File,
    hasher: Hasher,
    read: OnRead<'a>,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        (self.read)(got as u64);
        Ok(got)
    }
}

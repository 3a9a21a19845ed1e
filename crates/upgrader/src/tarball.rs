//! A tarball of the drop box: its signature is verified, then it is read without being opened again.
//!
//! In the place of one may be a patch, which makes the same archive, plain, out of what is installed.
//! What is checked and applied is that archive then.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256 as Hasher};
use system_image_delta::patch::tree::{self, Installed, TreePatch};
use system_image_delta::patch::{self, HeaderError, Identity};
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
    /// What a patch leads to; `None` if this is no patch.
    target: Option<Identity>,
    /// The archive that the patch has made.
    made: Option<File>,
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
    /// It is a patch that cannot be read.
    #[error("`{name}` is no patch that can be applied")]
    Header {
        /// The patch.
        name: String,
        /// Why not.
        source: HeaderError,
    },
    /// A patch could not make its archive.
    #[error("cannot apply `{name}` to the installed system")]
    Patch {
        /// The patch.
        name: String,
        /// Why not.
        source: patch::ApplyError,
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
        let again = |source| TarballError::Again {
            name: name(),
            source,
        };
        let target = target(&file).map_err(again)?;
        let target = target.transpose().map_err(|source| TarballError::Header {
            name: name(),
            source,
        })?;
        let plain_size = match target {
            Some(target) => Some(target.len),
            None => plain_size(&file).map_err(again)?,
        };
        Ok(Self {
            signed: signed.clone(),
            plain_size,
            file,
            digest,
            target,
            made: None,
        })
    }

    /// The length in bytes of the archive that it makes, if it is a patch.
    pub fn patched_len(&self) -> Option<u64> {
        self.target.map(|target| target.len)
    }

    /// Makes the archive out of what is installed, which is only read. It goes on
    /// behind what an earlier run left in `archive`; returns the length of that in bytes.
    pub fn make(
        &mut self,
        installed: &dyn Installed,
        mut archive: File,
        limits: patch::Limits,
    ) -> Result<u64, TarballError> {
        let applied = self.read_again(&mut |_| (), |packed| {
            let patch = TreePatch::open(BufReader::new(packed));
            let patch = patch.map_err(|source| TarballError::Header {
                name: self.name(),
                source,
            })?;
            let made = patch.apply(installed, &mut archive, limits);
            made.map_err(|source| TarballError::Patch {
                name: self.name(),
                source,
            })
        })?;
        self.made = Some(archive);
        Ok(applied.left)
    }

    /// Takes the archive that an earlier process has made. That it is the right one is found out
    /// when it is read.
    pub fn take_made(&mut self, archive: File) {
        self.made = Some(archive);
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

    /// Reads the plain archive, and finds out whether it is what was verified.
    fn through<T>(
        &self,
        read: OnRead<'_>,
        take: impl FnOnce(&mut dyn Read) -> Result<T, TarballError>,
    ) -> Result<T, TarballError> {
        let (Some(target), Some(made)) = (self.target, &self.made) else {
            return self.read_again(read, |packed| take(&mut unpacked(packed)));
        };
        // Progress counts the bytes of the file in the drop box.
        let share = target.len.max(1);
        let (mut plain, mut told) = (0, 0);
        let len = self.file.metadata().map_or(0, |meta| meta.len());
        let mut scaled = |bytes: u64| {
            plain = (plain + bytes).min(share);
            let now = u128::from(len) * u128::from(plain) / u128::from(share);
            let now = u64::try_from(now).unwrap_or(len);
            read(now - told);
            told = now;
        };
        self.hashed(made, &mut scaled, target.sha256.into(), take)
    }

    /// Reads it once more, and finds out whether these were the bytes that were verified.
    fn read_again<T>(
        &self,
        read: OnRead<'_>,
        take: impl FnOnce(&mut dyn Read) -> Result<T, TarballError>,
    ) -> Result<T, TarballError> {
        self.hashed(&self.file, read, *self.digest, take)
    }

    fn hashed<T>(
        &self,
        mut file: &File,
        read: OnRead<'_>,
        digest: Sha256,
        take: impl FnOnce(&mut dyn Read) -> Result<T, TarballError>,
    ) -> Result<T, TarballError> {
        let again = |source| TarballError::Again {
            name: self.name(),
            source,
        };
        file.rewind().map_err(again)?;
        let mut hashed = Hashed {
            file,
            hasher: Hasher::new(),
            read,
        };
        let taken = take(&mut hashed)?;
        io::copy(&mut hashed, &mut io::sink()).map_err(again)?;
        let found: [u8; 32] = hashed.hasher.finalize().into();
        if Sha256::from(found) == digest {
            return Ok(taken);
        }
        Err(TarballError::Changed { name: self.name() })
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.signed.file().to_string()
    }
}

/// What a file leads to if it is a patch, as its first bytes tell.
fn target(file: &File) -> io::Result<Option<Result<Identity, HeaderError>>> {
    let mut begin = [0; tree::MAGIC.len()];
    let is_short = file.metadata()?.len() < begin.len() as u64;
    if is_short
        || file
            .read_exact_at(&mut begin, 0)
            .map(|()| begin != tree::MAGIC)?
    {
        return Ok(None);
    }
    let mut file = file;
    file.rewind()?;
    let patch = TreePatch::open(BufReader::new(file));
    Ok(Some(patch.map(|patch| patch.header().target)))
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

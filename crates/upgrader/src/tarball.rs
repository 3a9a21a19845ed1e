//! A tarball of the drop box: verified, then read without being opened again.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use sha2::{Digest, Sha256 as Hasher};
use system_image_delta::{
    Applied, ApplyError, ArchiveError, Limits, Member, Privileges, Root, Route, Sink, apply, check,
};
use system_image_formats::checksum::Sha256;
use system_image_formats::command::SignedFile;
use system_image_trust::{MAX_SIGNATURE_LEN, Signers, Verified, VerifyError};

use crate::drop_box::{DropBox, DropBoxError};

/// Memory of the decoder, in bytes: `xz -9` asks for 65 MiB, as published files do (server spec,
/// section 9). More would not fit the devices.
const DECODER_MEMORY: u64 = 80 << 20;

/// Read from the drop box at a time, in bytes.
const BUFFER: usize = 128 << 10;

/// A tarball that may be applied.
#[derive(Debug)]
pub struct Tarball {
    /// Its name and its signature's.
    pub signed: SignedFile,
    /// Members that do not go to the system and were left out, for the log.
    pub left_out: Vec<Route>,
    /// Bytes that its files have in the system for certain once it is applied.
    pub solid_bytes: u64,
    file: File,
    digest: Verified<Sha256>,
}

/// Why a tarball is refused. Nothing has been changed then.
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
    Rewind {
        /// The tarball.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// It is signed, and still no archive that can be applied.
    #[error("`{name}` cannot be applied")]
    Archive {
        /// The tarball.
        name: String,
        /// What is wrong.
        source: ArchiveError,
    },
    /// It holds something that this build does not know how to install.
    #[error("`{name}` holds {what}, which this build cannot install yet")]
    Unsupported {
        /// The tarball.
        name: String,
        /// What it holds.
        what: String,
    },
}

/// Why a verified tarball could not be applied. The system is mixed then.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The system could not be changed as the archive says.
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
    /// The file cannot be read any more.
    #[error("cannot read `{name}` again")]
    Read {
        /// The tarball.
        name: String,
        /// Why not.
        source: io::Error,
    },
}

impl Tarball {
    /// Opens a tarball and verifies all of it: first its signature over its bytes, then that it
    /// is an archive which can be applied. `read` is told of each compressed byte once.
    pub fn verify(
        drop_box: &DropBox,
        signed: &SignedFile,
        signers: &Signers<'_>,
        limits: Limits,
        read: &mut dyn FnMut(u64),
    ) -> Result<Self, TarballError> {
        let name = || signed.file().to_string();
        let signature = drop_box.read(signed.signature(), MAX_SIGNATURE_LEN as u64)?;
        let mut file = drop_box.file(signed.file())?;
        let digest =
            signers
                .verify_reader(&file, &signature)
                .map_err(|source| TarballError::Signature {
                    name: name(),
                    source,
                })?;
        // Not before: nothing is parsed that nobody has signed.
        file.rewind().map_err(|source| TarballError::Rewind {
            name: name(),
            source,
        })?;
        let contents =
            check(unpacked(Counted { file: &file, read }), limits).map_err(|source| {
                TarballError::Archive {
                    name: name(),
                    source,
                }
            })?;
        let mut left_out = Vec::new();
        for route in contents.elsewhere {
            let what = match &route {
                Route::Partition(path) => format!("an image for the partition `{path}`"),
                Route::Data(path) => format!("`data/{path}` for the data partition"),
                Route::Core(path) => format!("the boot file `{path}`"),
                // Where the system is, is in our settings; and nobody relies on the rest.
                Route::Flag(_) | Route::Unknown(_) | Route::System(_) => {
                    left_out.push(route);
                    continue;
                }
            };
            return Err(TarballError::Unsupported { name: name(), what });
        }
        Ok(Self {
            signed: signed.clone(),
            left_out,
            solid_bytes: contents.solid_bytes,
            file,
            digest,
        })
    }

    /// Applies the tarball to the system at `root`, verifying its digest once more on the way.
    pub fn install(
        &self,
        root: &Root,
        limits: Limits,
        privileges: Privileges,
        read: &mut dyn FnMut(u64),
    ) -> Result<Applied, InstallError> {
        let name = || self.signed.file().to_string();
        let unreadable = |source| InstallError::Read {
            name: name(),
            source,
        };
        let mut file = &self.file;
        file.rewind().map_err(unreadable)?;
        let mut hashed = Hashed {
            inner: Counted { file, read },
            hasher: Hasher::new(),
        };
        let applied = apply(
            unpacked(&mut hashed),
            limits,
            root,
            privileges,
            &mut LeaveOut,
        )
        .map_err(|source| InstallError::Apply {
            name: name(),
            source,
        })?;
        io::copy(&mut hashed, &mut io::sink()).map_err(unreadable)?;
        let digest: [u8; 32] = hashed.hasher.finalize().into();
        if Sha256::from(digest) != *self.digest {
            return Err(InstallError::Changed { name: name() });
        }
        Ok(applied)
    }
}

/// Decompresses. Several streams in one file are one, as `xz` has it.
fn unpacked<R: Read>(compressed: R) -> XzDecoder<BufReader<R>> {
    let stream = Stream::new_stream_decoder(DECODER_MEMORY, CONCATENATED)
        .expect("a decoder with a sensible memory limit is always available");
    XzDecoder::new_stream(BufReader::with_capacity(BUFFER, compressed), stream)
}

/// What does not go to the system was looked at while verifying and is left out here.
struct LeaveOut;

impl Sink for LeaveOut {
    fn elsewhere(
        &mut self,
        _: &Member,
        _: &mut dyn Read,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
}

/// Tells how many bytes go through.
struct Counted<'a> {
    file: &'a File,
    read: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        (self.read)(got as u64);
        Ok(got)
    }
}

/// Hashes what goes through.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        Ok(got)
    }
}

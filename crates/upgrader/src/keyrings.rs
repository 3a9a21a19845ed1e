//! Loads the chain of trust of one run: the recovery's own anchor, the keyrings that the command
//! file names, and the blacklist, which nobody names (upgrader spec, section 6).

use std::fs::{self, File};
use std::io::{self, Read};

use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::command::SignedFile;
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::DeviceName;
use system_image_trust::{Chain, ChainError, MAX_KEYRING_LEN, MAX_SIGNATURE_LEN, Now, VerifyError};

use crate::drop_box::{DropBox, DropBoxError};

/// Where the running system keeps its blacklist, below the data partition.
pub const BLACKLIST: &str = "system-data/var/lib/system-image/blacklist.tar.xz";

/// Why there is no chain of trust.
#[derive(Debug, thiserror::Error)]
pub enum KeyringsError {
    /// A file of the recovery or the data partition cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the drop box cannot be read.
    #[error(transparent)]
    DropBox(#[from] DropBoxError),
    /// The anchor is none.
    #[error("`{path}` is no trust anchor")]
    Anchor {
        /// The file.
        path: Utf8PathBuf,
        /// Why not.
        source: ChainError,
    },
    /// A keyring that the command file names is refused.
    #[error("the keyring `{name}` is refused")]
    Keyring {
        /// The file.
        name: String,
        /// Why.
        source: ChainError,
    },
    /// A blacklist is there and cannot be believed. Going on without it is what an attacker
    /// would want.
    #[error("the blacklist `{path}` is refused")]
    Blacklist {
        /// The file.
        path: String,
        /// Why.
        source: ChainError,
    },
    /// The same, for its signature.
    #[error("the blacklist `{path}` has no good signature")]
    BlacklistSignature {
        /// The file.
        path: String,
        /// Why.
        source: VerifyError,
    },
}

/// Loads everything, or says why nothing will be done.
pub fn load(
    anchor: &Utf8Path,
    keyrings: &[SignedFile],
    drop_box: &DropBox,
    data: &Utf8Path,
    device: DeviceName,
    now: Now,
) -> Result<Chain, KeyringsError> {
    let refused = |source| KeyringsError::Anchor {
        path: anchor.to_owned(),
        source,
    };
    let bytes = fs::read(anchor).map_err(|source| KeyringsError::Read {
        path: anchor.to_owned(),
        source,
    })?;
    let mut chain = Chain::new(&bytes, device, now).map_err(refused)?;
    for signed in keyrings {
        let archive = drop_box.read(signed.file(), MAX_KEYRING_LEN as u64)?;
        let signature = drop_box.read(signed.signature(), MAX_SIGNATURE_LEN as u64)?;
        chain
            .load(&archive, &signature)
            .map_err(|source| KeyringsError::Keyring {
                name: signed.file().to_string(),
                source,
            })?;
    }
    if chain.has(KeyringType::ImageMaster) && !chain.has(KeyringType::Blacklist) {
        load_blacklist(&mut chain, drop_box, data)?;
    }
    Ok(chain)
}

/// Of the blacklists in the drop box and on the data partition, the one signed last: an old one
/// put beside it must not bring a key back to life.
fn load_blacklist(
    chain: &mut Chain,
    drop_box: &DropBox,
    data: &Utf8Path,
) -> Result<(), KeyringsError> {
    let mut newest: Option<(Option<i64>, String, [Vec<u8>; 2])> = None;
    let in_drop_box = in_drop_box(drop_box)?;
    for (path, files) in in_drop_box.into_iter().chain(on_data(data)?) {
        let [archive, signature] = &files;
        let refused = |source| KeyringsError::Blacklist {
            path: path.clone(),
            source,
        };
        let verified = chain
            .signers_of(KeyringType::Blacklist)
            .map_err(refused)?
            .verify(archive, signature)
            .map_err(|source| KeyringsError::BlacklistSignature {
                path: path.clone(),
                source,
            })?;
        let at = verified.signed_at();
        if newest.as_ref().is_none_or(|(newest, ..)| at > *newest) {
            newest = Some((at, path, files));
        }
    }
    if let Some((_, path, [archive, signature])) = newest {
        chain
            .load_as(KeyringType::Blacklist, &archive, &signature)
            .map_err(|source| KeyringsError::Blacklist { path, source })?;
    }
    Ok(())
}

type Found = Option<(String, [Vec<u8>; 2])>;

fn in_drop_box(drop_box: &DropBox) -> Result<Found, KeyringsError> {
    let name = "blacklist.tar.xz".parse().expect("a file name");
    let signed = SignedFile::of(name).expect("a file name");
    let Some(archive) = drop_box.read_if_there(signed.file(), MAX_KEYRING_LEN as u64)? else {
        return Ok(None);
    };
    let signature = drop_box.read(signed.signature(), MAX_SIGNATURE_LEN as u64)?;
    Ok(Some((signed.file().to_string(), [archive, signature])))
}

fn on_data(data: &Utf8Path) -> Result<Found, KeyringsError> {
    let path = data.join(BLACKLIST);
    // Cut where it is longer than any real one: then it fails to verify.
    let read_up_to = |path: &Utf8Path, longest: usize| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(longest as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let read = |path: &Utf8Path, longest| match read_up_to(path, longest) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyringsError::Read {
            path: path.to_owned(),
            source,
        }),
    };
    let signature = Utf8PathBuf::from(format!("{path}.asc"));
    // The original asks for both; a signature alone is no blacklist.
    let archive = read(&path, MAX_KEYRING_LEN)?;
    let (Some(archive), Some(signature)) = (archive, read(&signature, MAX_SIGNATURE_LEN)?) else {
        return Ok(None);
    };
    Ok(Some((path.into_string(), [archive, signature])))
}

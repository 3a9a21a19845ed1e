//! Images for partitions: written only where they differ, then read back (upgrader spec, section 8).
//!
//! Before anything is changed an image is a file among user data; from there it is written as often
//! as it takes.

mod sparse;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Advice, OFlags, fadvise};
use system_image_report::Size;

use sparse::Sparse;

/// Read and written at a time, in bytes.
const PIECE: usize = 1 << 20;

/// Why an image cannot be written to its partition.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// The partition's device cannot be used.
    #[error("cannot {action} `{device}`")]
    Device {
        /// What was tried.
        action: &'static str,
        /// The device.
        device: Utf8PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The image cannot be read.
    #[error("cannot read the image for `{name}`")]
    Image {
        /// The partition.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// It does not fit.
    #[error("the image for `{name}` has {image}, its partition only {partition}")]
    TooLarge {
        /// The partition.
        name: String,
        /// Its size when it is written.
        image: Size,
        /// The room for it.
        partition: Size,
    },
    /// What was written is not what is read.
    #[error("`{device}` does not give back what was written to it")]
    ReadBack {
        /// The device.
        device: Utf8PathBuf,
    },
}

impl PartitionError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Device { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                Some("it is in use: unmount it, or leave it out of `[partitions]`")
            }
            Self::Device { .. } => {
                Some("`system-image-upgrader check` looks at what the settings name")
            }
            Self::Image { .. } => None,
            Self::TooLarge { .. } => Some("the image is not for this device"),
            Self::ReadBack { .. } => Some("the disk may be failing; start again"),
        }
    }
}

/// An image for a partition.
#[derive(Debug)]
pub struct Image {
    name: String,
    file: File,
    size: u64,
    sparse: Option<Sparse>,
}

impl Image {
    /// Looks at an image: a raw one, or one in Android's sparse form.
    pub fn open(name: &str, file: File) -> Result<Self, PartitionError> {
        let failed = |source| PartitionError::Image {
            name: name.to_owned(),
            source,
        };
        let sparse = Sparse::open(&file).map_err(failed)?;
        let size = match &sparse {
            Some(sparse) => sparse.size(),
            None => file.metadata().map_err(failed)?.len(),
        };
        Ok(Self {
            name: name.to_owned(),
            file,
            size,
            sparse,
        })
    }

    /// Finds out whether it can be written there. Changes nothing.
    pub fn check(&self, device: &Utf8Path) -> Result<(), PartitionError> {
        let partition = open(device)
            .and_then(|mut file| file.seek(SeekFrom::End(0)))
            .map_err(device_failed("open", device))?;
        if self.size <= partition {
            return Ok(());
        }
        Err(PartitionError::TooLarge {
            name: self.name.clone(),
            image: Size(self.size),
            partition: Size(partition),
        })
    }

    /// Writes it where the device differs, and reads it back. Returns the bytes written.
    pub fn write(&self, device: &Utf8Path) -> Result<u64, PartitionError> {
        self.check(device)?;
        let out = open(device).map_err(device_failed("open", device))?;
        let mut written = 0;
        let mut there = vec![0; PIECE];
        self.each(&mut |at, piece| {
            let there = &mut there[..piece.len()];
            out.read_exact_at(there, at)
                .map_err(device_failed("read", device))?;
            if there != piece {
                out.write_all_at(piece, at)
                    .map_err(device_failed("write", device))?;
                written += piece.len() as u64;
            }
            Ok(())
        })?;
        if written == 0 {
            return Ok(0);
        }
        out.sync_all().map_err(device_failed("sync", device))?;
        // From the disk, not from memory.
        let _ = fadvise(&out, 0, None, Advice::DontNeed);
        self.each(&mut |at, piece| {
            let there = &mut there[..piece.len()];
            out.read_exact_at(there, at)
                .map_err(device_failed("read", device))?;
            if there == piece {
                return Ok(());
            }
            Err(PartitionError::ReadBack {
                device: device.to_owned(),
            })
        })?;
        Ok(written)
    }

    /// Calls `take` with the image's pieces, in order, each with its place on the partition. What a
    /// sparse image does not care for is left out.
    fn each(&self, take: Take<'_>) -> Result<(), PartitionError> {
        let failed = |source| PartitionError::Image {
            name: self.name.clone(),
            source,
        };
        if let Some(sparse) = &self.sparse {
            let mut buffer = vec![0; PIECE];
            let mut pieces = sparse.pieces(&self.file);
            while let Some((at, len)) = pieces.next(&mut buffer).map_err(failed)? {
                take(at, &buffer[..len])?;
            }
            return Ok(());
        }
        let mut buffer = vec![0; PIECE];
        let mut at = 0;
        while at < self.size {
            let len = usize::try_from(self.size - at).unwrap_or(PIECE).min(PIECE);
            self.file
                .read_exact_at(&mut buffer[..len], at)
                .map_err(failed)?;
            take(at, &buffer[..len])?;
            at += len as u64;
        }
        Ok(())
    }
}

/// Takes a piece of an image with its place on the partition.
type Take<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), PartitionError>;

/// Opens a block device for itself, so that nothing that is mounted is written to; or a file that
/// stands for one.
fn open(device: &Utf8Path) -> io::Result<File> {
    let found = device.metadata()?.file_type();
    if !found.is_block_device() && !found.is_file() {
        return Err(io::Error::other("it is no block device"));
    }
    let exclusive = if found.is_block_device() {
        OFlags::EXCL.bits().cast_signed()
    } else {
        0
    };
    File::options()
        .read(true)
        .write(true)
        .custom_flags(exclusive)
        .open(device)
}

fn device_failed(action: &'static str, device: &Utf8Path) -> impl Fn(io::Error) -> PartitionError {
    move |source| PartitionError::Device {
        action,
        device: device.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn image(name: &str, content: &[u8]) -> Image {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        Image::open(name, file).unwrap()
    }

    #[test]
    fn only_what_differs_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let device = Utf8PathBuf::try_from(directory.path().join("boot")).unwrap();
        let mut content = vec![7; 3 * PIECE + 100];
        fs::write(&device, vec![0; 4 * PIECE]).unwrap();
        assert_eq!(
            image("boot", &content).write(&device).unwrap(),
            content.len() as u64
        );
        assert_eq!(image("boot", &content).write(&device).unwrap(), 0);
        content[PIECE + 1] = 8;
        assert_eq!(
            image("boot", &content).write(&device).unwrap(),
            PIECE as u64
        );
        let there = fs::read(&device).unwrap();
        assert_eq!(there[..content.len()], content);
        assert!(there[content.len()..].iter().all(|&b| b == 0));
    }

    #[test]
    fn an_image_that_is_too_large_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let device = Utf8PathBuf::try_from(directory.path().join("boot")).unwrap();
        fs::write(&device, vec![0; 10]).unwrap();
        let refused = image("boot", &[1; 11]).write(&device).unwrap_err();
        assert!(
            matches!(refused, PartitionError::TooLarge { .. }),
            "{refused:?}"
        );
        assert_eq!(fs::read(&device).unwrap(), [0; 10]);
        let nowhere = image("boot", &[1]).check(Utf8Path::new("/dev/null"));
        assert!(matches!(nowhere, Err(PartitionError::Device { .. })));
    }
}

//! Images for partitions: written only where they differ, then read back (upgrader spec, section 8).
//!
//! Before anything is changed an image is a file among user data; from there it is written as often
//! as it takes. One for the slot that does not run need not wait, and goes straight to its partition.

mod sparse;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Advice, OFlags, fadvise};
use sha2::{Digest, Sha256};
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
        Device::open(device)?.has_room(&self.name, self.size)
    }

    /// Writes it where the device differs, and reads it back. Returns the bytes written.
    pub fn write(&self, device: &Utf8Path) -> Result<u64, PartitionError> {
        let mut device = Device::open(device)?;
        device.has_room(&self.name, self.size)?;
        let mut written = 0;
        self.each(&mut |at, piece| {
            written += device.put(at, piece)?;
            Ok(())
        })?;
        if written == 0 {
            return Ok(0);
        }
        device.settle()?;
        self.each(&mut |at, piece| device.has(at, piece))?;
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
            let len = piece_len(self.size - at);
            self.file
                .read_exact_at(&mut buffer[..len], at)
                .map_err(failed)?;
            take(at, &buffer[..len])?;
            at += len as u64;
        }
        Ok(())
    }
}

/// Writes a raw image of `len` bytes as it comes, where the device differs, and reads it back. Returns the
/// bytes written. After an error the device may hold a part of it.
pub fn write_through(
    name: &str,
    image: &mut dyn Read,
    len: u64,
    device: &Utf8Path,
) -> Result<u64, PartitionError> {
    let mut device = Device::open(device)?;
    device.has_room(name, len)?;
    let mut piece = vec![0; PIECE];
    let mut hasher = Sha256::new();
    let (mut at, mut written) = (0, 0);
    while at < len {
        let piece = &mut piece[..piece_len(len - at)];
        let read = image.read_exact(piece);
        read.map_err(|source| PartitionError::Image {
            name: name.to_owned(),
            source,
        })?;
        hasher.update(&*piece);
        written += device.put(at, piece)?;
        at += piece.len() as u64;
    }
    if written > 0 {
        device.settle()?;
        device.holds(len, hasher)?;
    }
    Ok(written)
}

/// How much of so many bytes is one piece.
fn piece_len(left: u64) -> usize {
    usize::try_from(left).unwrap_or(PIECE).min(PIECE)
}

/// Takes a piece of an image with its place on the partition.
type Take<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), PartitionError>;

/// A partition that is open for writing.
struct Device<'a> {
    path: &'a Utf8Path,
    file: File,
    /// What is there.
    there: Vec<u8>,
}

impl<'a> Device<'a> {
    fn open(path: &'a Utf8Path) -> Result<Self, PartitionError> {
        let file = open(path).map_err(device_failed("open", path))?;
        let there = Vec::new();
        Ok(Self { path, file, there })
    }

    /// Finds out whether an image of `len` bytes fits.
    fn has_room(&mut self, name: &str, len: u64) -> Result<(), PartitionError> {
        let room = self.file.seek(SeekFrom::End(0));
        let room = room.map_err(device_failed("open", self.path))?;
        if len <= room {
            return Ok(());
        }
        Err(PartitionError::TooLarge {
            name: name.to_owned(),
            image: Size(len),
            partition: Size(room),
        })
    }

    /// What is there, as many bytes as a piece has.
    fn there(&mut self, at: u64, len: usize) -> Result<&[u8], PartitionError> {
        self.there.resize(PIECE, 0);
        let there = &mut self.there[..len];
        let read = self.file.read_exact_at(there, at);
        read.map_err(device_failed("read", self.path))?;
        Ok(there)
    }

    /// Writes a piece if it is not there. Returns the bytes written.
    fn put(&mut self, at: u64, piece: &[u8]) -> Result<u64, PartitionError> {
        if self.there(at, piece.len())? == piece {
            return Ok(0);
        }
        let written = self.file.write_all_at(piece, at);
        written.map_err(device_failed("write", self.path))?;
        Ok(piece.len() as u64)
    }

    /// Writes all to the disk; from there it is read then, and not from memory.
    fn settle(&self) -> Result<(), PartitionError> {
        let synced = self.file.sync_all();
        synced.map_err(device_failed("sync", self.path))?;
        let _ = fadvise(&self.file, 0, None, Advice::DontNeed);
        Ok(())
    }

    /// Whether a piece is there.
    fn has(&mut self, at: u64, piece: &[u8]) -> Result<(), PartitionError> {
        if self.there(at, piece.len())? == piece {
            return Ok(());
        }
        Err(self.read_back())
    }

    /// Whether what is there is what this has seen.
    fn holds(&mut self, len: u64, seen: Sha256) -> Result<(), PartitionError> {
        let mut hasher = Sha256::new();
        let mut at = 0;
        while at < len {
            let piece = self.there(at, piece_len(len - at))?;
            hasher.update(piece);
            at += piece.len() as u64;
        }
        if hasher.finalize() == seen.finalize() {
            return Ok(());
        }
        Err(self.read_back())
    }

    fn read_back(&self) -> PartitionError {
        PartitionError::ReadBack {
            device: self.path.to_owned(),
        }
    }
}

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
    fn what_is_written_through_is_written_where_it_differs() {
        let directory = tempfile::tempdir().unwrap();
        let device = Utf8PathBuf::try_from(directory.path().join("boot")).unwrap();
        let mut content = vec![7; 2 * PIECE + 100];
        let len = content.len() as u64;
        fs::write(&device, vec![0; 3 * PIECE]).unwrap();
        let write = |mut content: &[u8], len| write_through("boot", &mut content, len, &device);
        assert_eq!(write(&content, len).unwrap(), len);
        assert_eq!(write(&content, len).unwrap(), 0);
        content[2 * PIECE] = 8;
        assert_eq!(write(&content, len).unwrap(), 100);
        let there = fs::read(&device).unwrap();
        assert!(there[..content.len()] == content);
        assert!(there[content.len()..].iter().all(|&byte| byte == 0));
        let cut = write(&content, len + 1).unwrap_err();
        assert!(matches!(cut, PartitionError::Image { .. }), "{cut:?}");
        let refused = write(&content, 4 * PIECE as u64).unwrap_err();
        assert!(matches!(refused, PartitionError::TooLarge { .. }));
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

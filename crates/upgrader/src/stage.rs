//! What archives bring beside the system, put where it can wait: images for partitions and the
//! payload for user data, below the directory `.system-image` of user data.
//!
//! All of it is there, checked and on the disk before anything is changed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use camino::Utf8PathBuf;
use rustix::fs::{self, Mode, OFlags};
use system_image_delta::{Kind, Member, Root, Route, SPARSE_IMAGE, Sink};
use system_image_formats::channel_ini::ChannelIni;
use system_image_report::Size;
use system_image_tree::STAGING_NAME;

use crate::config::block::BlockName;
use crate::log;
use crate::partition::{self, Image, PartitionError};

/// Directories in it.
const IMAGES: &str = "partitions";
const PAYLOAD: &str = "data";
const ARCHIVES: &str = "archives";

/// Longest `channel.ini` that is read, in bytes.
pub const MAX_CHANNEL_INI: u64 = 64 << 10;

/// Unit in which a file's room on the disk is told, in bytes.
const BLOCK: u64 = 512;

/// Where the system has it.
pub const CHANNEL_INI: &str = "etc/system-image/channel.ini";

/// The directory among user data.
#[derive(Debug)]
pub struct Stage {
    data: Root,
    /// Partitions that may be written to.
    partitions: Vec<(String, BlockName)>,
    slot: Option<String>,
    /// The partitions that archives have brought images for.
    brought: RefCell<BTreeSet<String>>,
}

/// Why something cannot be staged, or an image not be written.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// User data, or a partition of the running slot, cannot be used.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// An image cannot be written.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// Its partition is not there.
    #[error("the partition `{name}` cannot be found")]
    NotFound {
        /// The partition.
        name: String,
        /// Why not.
        source: crate::config::block::NotFound,
    },
}

impl StageError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Partition(error) => error.hint(),
            Self::NotFound { .. } => {
                Some("`system-image-upgrader check` looks at what the settings name")
            }
            Self::Io { .. } => None,
        }
    }
}

impl Stage {
    /// Among the user data at `data`, for these partitions, of the slot that is changed if there are
    /// slots.
    pub fn new(data: Root, partitions: Vec<(String, BlockName)>, slot: Option<String>) -> Self {
        Self {
            data,
            partitions,
            slot,
            brought: RefCell::default(),
        }
    }

    /// User data.
    pub fn data(&self) -> &Root {
        &self.data
    }

    /// Removes all that is staged.
    pub fn clear(&self) -> Result<(), StageError> {
        let cleared = self.data.remove(STAGING_NAME).map(drop);
        cleared.map_err(failed("remove what was staged"))
    }

    /// Removes what archives brought; archives that patches made stay, whole or not.
    pub fn clear_content(&self) -> Result<(), StageError> {
        let clear = || match self.data.child_if_there(STAGING_NAME)? {
            Some(staging) => staging.clear_but(|name| name == ARCHIVES.as_bytes()),
            None => Ok(()),
        };
        clear().map_err(failed("remove what was staged"))
    }

    /// Removes archives that patches made, but for those of these numbers.
    pub fn clear_archives(&self, but_for: &[usize]) -> Result<(), StageError> {
        let names: Vec<_> = but_for.iter().map(usize::to_string).collect();
        let clear = || {
            let Some(staging) = self.data.child_if_there(STAGING_NAME)? else {
                return Ok(());
            };
            match staging.child_if_there(ARCHIVES)? {
                Some(archives) => {
                    archives.clear_but(|name| names.iter().any(|spared| spared.as_bytes() == name))
                }
                None => Ok(()),
            }
        };
        clear().map_err(failed("remove what was staged"))
    }

    /// The file for the archive of this number, of `len` bytes, which a patch makes; with what an
    /// earlier run left of it.
    pub fn archive_to_make(&self, number: usize, len: u64) -> Result<File, StageError> {
        let create = || {
            let archives = self.data.make_child(STAGING_NAME)?.make_child(ARCHIVES)?;
            let flags = OFlags::RDWR | OFlags::CREATE;
            let archive = opened(&archives, &number.to_string(), flags)?;
            // What it has takes no more room, as much of it as there is on the disk.
            let has = archive.metadata()?.blocks() * BLOCK;
            if self.data.free()? < len.saturating_sub(has) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(archive)
        };
        create().map_err(failed("begin the archive that a patch makes"))
    }

    /// The archive of this number, which a patch has made.
    pub fn archive(&self, number: usize) -> Result<File, StageError> {
        let open = || {
            let archives = self.data.child(STAGING_NAME)?.child(ARCHIVES)?;
            opened(&archives, &number.to_string(), OFlags::RDONLY)
        };
        open().map_err(failed("open the archive that a patch has made"))
    }

    /// Writes all that is staged to the disk.
    pub fn sync(&self) -> Result<(), StageError> {
        self.data
            .sync()
            .map_err(failed("write what was staged to the disk"))
    }

    /// The tree for the payload of the archive of this number.
    pub fn payload(&self, number: usize) -> Result<Root, StageError> {
        let open = || {
            let payload = self.data.make_child(STAGING_NAME)?.make_child(PAYLOAD)?;
            payload.make_child(&number.to_string())
        };
        open().map_err(failed("begin a payload"))
    }

    /// Moves the payload of the archive of this number to its place, if there is any left.
    pub fn place_payload(&self, number: usize) -> Result<(), StageError> {
        let place = || {
            let Some(staging) = self.data.child_if_there(STAGING_NAME)? else {
                return Ok(());
            };
            let Some(payloads) = staging.child_if_there(PAYLOAD)? else {
                return Ok(());
            };
            match payloads.child_if_there(&number.to_string())? {
                Some(payload) => system_image_tree::merge(&payload, &self.data),
                None => Ok(()),
            }
        };
        place()
            .and_then(|()| self.data.sync())
            .map_err(failed("place a payload"))
    }

    /// The names of the partitions that images wait for, in the order in which they are written: a
    /// recovery comes last, because until it is complete it cannot continue anything.
    pub fn images(&self) -> Result<Vec<String>, StageError> {
        let there = |name: &str| match self.image_file(name, OFlags::RDONLY) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
        let mut names = Vec::new();
        for (name, _) in &self.partitions {
            if there(name).map_err(failed("look for images"))? {
                names.push(name.clone());
            }
        }
        names.sort_by_key(|name| name.starts_with("recovery"));
        Ok(names)
    }

    /// Whether all images that wait can be written. Changes nothing.
    pub fn check_images(&self) -> Result<(), StageError> {
        for name in self.images()? {
            let (image, device) = self.image(&name)?;
            image.check(&device)?;
        }
        Ok(())
    }

    /// Writes an image to its partition. Returns the bytes written.
    pub fn write_image(&self, name: &str) -> Result<u64, StageError> {
        let (image, device) = self.image(name)?;
        let written = image.write(&device)?;
        tell_written(name, written);
        Ok(written)
    }

    fn image(&self, name: &str) -> Result<(Image, Utf8PathBuf), StageError> {
        let file = self
            .image_file(name, OFlags::RDONLY)
            .map_err(failed("open an image"))?;
        let device = self.partition(name);
        let device = device.ok_or(io::ErrorKind::NotFound.into());
        let device = device.map_err(failed("find an image"))?;
        let path = find(name, device, self.slot.as_deref())?;
        Ok((Image::open(name, file)?, path))
    }

    fn partition(&self, name: &str) -> Option<&BlockName> {
        let mut partitions = self.partitions.iter();
        partitions.find_map(|(known, device)| (known == name).then_some(device))
    }

    /// Takes an image of `len` bytes for a partition: one of the slot that is changed goes there, any
    /// other one waits.
    fn take_image(&self, name: &str, content: &mut dyn Read, len: u64) -> Result<(), StageError> {
        let staging = failed("stage an image");
        self.brought.borrow_mut().insert(name.to_owned());
        let mut head = Vec::new();
        let mut begin = (&mut *content).take(SPARSE_IMAGE.len() as u64);
        begin.read_to_end(&mut head).map_err(&staging)?;
        let is_sparse = head == SPARSE_IMAGE;
        let mut content = head.chain(content);
        let of_slot = self.partition(name).filter(|device| device.is_slotted());
        if let (Some(device), Some(_), false) = (of_slot, &self.slot, is_sparse) {
            // One that an archive before this brought in another form would come after it.
            self.remove_image(name).map_err(&staging)?;
            let path = find(name, device, self.slot.as_deref())?;
            let written = partition::write_through(name, &mut content, len, &path)?;
            tell_written(name, written);
            return Ok(());
        }
        // The last one of a run counts.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = self.image_file(name, flags).map_err(&staging)?;
        io::copy(&mut content, &mut file).map_err(staging)?;
        Ok(())
    }

    /// Whether a slot has partitions of its own.
    pub fn has_slotted(&self) -> bool {
        self.partitions
            .iter()
            .any(|(_, device)| device.is_slotted())
    }

    /// Makes the partitions of the slot that is changed equal to those of the `running` one, but for
    /// those that archives have brought images for.
    pub fn mirror(&self, running: &str) -> Result<(), StageError> {
        let brought = self.brought.borrow();
        let left =
            |(name, device): &&(String, BlockName)| device.is_slotted() && !brought.contains(name);
        for (name, device) in self.partitions.iter().filter(left) {
            let from = find(name, device, Some(running))?;
            let open = || -> io::Result<(File, u64)> {
                let mut file = File::open(&from)?;
                let len = file.seek(SeekFrom::End(0))?;
                file.rewind()?;
                Ok((file, len))
            };
            let (mut file, len) = open().map_err(failed("read a partition"))?;
            let to = find(name, device, self.slot.as_deref())?;
            let copied = partition::write_through(name, &mut file, len, &to)?;
            if copied > 0 {
                log(&format!(
                    "copied {} of the running system's partition `{name}`",
                    Size(copied)
                ));
            }
        }
        Ok(())
    }

    fn remove_image(&self, name: &str) -> io::Result<()> {
        let images = match self.data.child_if_there(STAGING_NAME)? {
            Some(staging) => staging.child_if_there(IMAGES)?,
            None => None,
        };
        match images {
            Some(images) => images.remove(name).map(drop),
            None => Ok(()),
        }
    }

    fn image_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let staging = if flags.contains(OFlags::CREATE) {
            self.data.make_child(STAGING_NAME)?.make_child(IMAGES)?
        } else {
            self.data.child(STAGING_NAME)?.child(IMAGES)?
        };
        opened(&staging, name, flags)
    }

    /// The partition that a member is an image for, if this device has it, and the image's length in
    /// bytes.
    fn partition_of(&self, member: &Member) -> Option<(String, u64)> {
        let name = member.route.partition()?;
        let Kind::File { size } = member.header.kind else {
            return None;
        };
        self.partition(name).map(|_| (name.to_owned(), size))
    }
}

/// The path of a partition, of this slot where each has its own.
fn find(name: &str, device: &BlockName, slot: Option<&str>) -> Result<Utf8PathBuf, StageError> {
    device.find_in(slot).map_err(|source| StageError::NotFound {
        name: name.to_owned(),
        source,
    })
}

fn tell_written(name: &str, written: u64) {
    if written == 0 {
        log(&format!("the partition `{name}` is as it should be"));
    } else {
        log(&format!(
            "wrote {written} bytes to the partition `{name}` and read them back"
        ));
    }
}

fn opened(directory: &Root, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    Ok(fs::openat(directory, name, flags, mode)?.into())
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> StageError {
    move |source| StageError::Io { action, source }
}

/// Takes what an archive brings beside the trees.
#[derive(Debug)]
pub struct Taker<'a> {
    stage: &'a Stage,
    /// The archive's name, for the log.
    archive: String,
    /// What the archive says of the version that it leads to.
    pub channel_ini: Option<ChannelIni>,
}

impl<'a> Taker<'a> {
    /// For one archive.
    pub fn new(stage: &'a Stage, archive: String) -> Self {
        Self {
            stage,
            archive,
            channel_ini: None,
        }
    }
}

type Taken = Result<(), Box<dyn Error + Send + Sync>>;

impl Sink for Taker<'_> {
    fn elsewhere(&mut self, member: &Member, content: &mut dyn Read) -> Taken {
        match self.stage.partition_of(member) {
            Some((name, len)) => self.stage.take_image(&name, content, len)?,
            None => log(&format!("{}: left out `{}`", self.archive, member.path)),
        }
        Ok(())
    }

    fn system(&mut self, member: &Member, content: &mut dyn Read) -> Taken {
        if let Route::System(path) = &member.route
            && path.as_bytes() == CHANNEL_INI.as_bytes()
        {
            let mut bytes = Vec::new();
            content.take(MAX_CHANNEL_INI).read_to_end(&mut bytes)?;
            self.channel_ini = channel_ini(&bytes);
        }
        Ok(())
    }
}

/// Reads a `channel.ini`; one that cannot be read says nothing.
pub fn channel_ini(bytes: &[u8]) -> Option<ChannelIni> {
    match ChannelIni::parse(bytes) {
        Ok(ini) => Some(ini),
        Err(error) => {
            log(&format!("`channel.ini` is not understood: {error}"));
            None
        }
    }
}

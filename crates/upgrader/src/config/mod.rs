//! The device description: `upgrader.toml`.
//!
//! In: the file's text, and the recovery's fstab for what it leaves open. Out: checked
//! [`Settings`]; the rest of the program sees nothing else. What the original guessed from the
//! recovery it ran in is written down here instead.

pub mod block;
pub mod fstab;
mod written;

use camino::{Utf8Path, Utf8PathBuf};
use system_image_delta::{Limits, Privileges, patch};
use system_image_formats::name::{DeviceName, NameError};
use system_image_slots::SlotName;

use block::{BlockName, BlockNameError};

/// Where the settings are unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/system-image/upgrader.toml";

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The trust root: the archive-master keyring, part of the recovery.
    pub archive_master: Utf8PathBuf,
    /// The device's name; keyrings and images for other models are refused.
    pub device: DeviceName,
    /// Where the client left the files that the command file names.
    pub drop_box: Utf8PathBuf,
    /// The user data partition.
    pub data: Utf8PathBuf,
    /// Where the outcome is written for the running system to read.
    pub result: Utf8PathBuf,
    /// Where the log is written besides standard error.
    pub log: Option<Utf8PathBuf>,
    /// Where the system is.
    pub system: SystemAt,
    /// How the system is changed where it is.
    pub way: Way,
    /// What this process may do to the system's files.
    pub privileges: Privileges,
    /// Partitions that images may be written to, by name.
    pub partitions: Vec<(String, BlockName)>,
    /// What a reset spares.
    pub reset: Reset,
    /// The user whose password a flasher may set.
    pub user: String,
    /// Whether an image that is older than the installed one is taken.
    pub downgrade: bool,
    /// What an archive may cost.
    pub limits: Limits,
    /// What applying a patch may cost.
    pub patch_limits: patch::Limits,
    /// How often an update is continued that gets no further.
    pub attempts: u32,
}

/// Where the system is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SystemAt {
    /// In a directory: formatting empties it, mounting finds it.
    Directory(Utf8PathBuf),
    /// On a block device.
    Device(Mounted<BlockName>),
    /// In a file that holds a file system.
    Image {
        /// The file and where it is mounted meanwhile.
        mounted: Mounted<Utf8PathBuf>,
        /// Other names of the file, which some boot code looks for.
        names: Vec<Utf8PathBuf>,
        /// Its size in bytes when it is made.
        size: u64,
    },
    /// In the slots of an A/B device, of which one runs.
    Slots(Slots),
}

/// A file system on something, and where it is mounted while it is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted<T> {
    /// What the file system is on.
    pub on: T,
    /// The directory that it is mounted on meanwhile.
    pub mountpoint: Utf8PathBuf,
    /// What kind it is when it is made anew.
    pub filesystem: Filesystem,
}

/// Kinds of file systems that are made, checked and mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// Also for ext2 and ext3 that are there already.
    #[default]
    Ext4,
    /// Flash-friendly.
    F2fs,
    /// Copy on write.
    Btrfs,
}

/// How the system is changed where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Beside the old one where there is room, else directly.
    #[default]
    Auto,
    /// Beside the old one; without room it is refused.
    Beside,
    /// Directly.
    Direct,
}

/// The slots of an A/B device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Their names, two or more.
    pub names: Vec<SlotName>,
    /// Where the system of one slot is; `{slot}` in it stands for the slot's name.
    pub at: SlotAt,
    /// What decides which one boots.
    pub boot: BootLoader,
    /// The kernel's command line, which says which one runs.
    pub cmdline: Utf8PathBuf,
    /// How often a new one is tried.
    pub tries: u8,
    /// What this keeps about each slot.
    pub state: Utf8PathBuf,
    /// Programs with arguments; a new one that passes them all is confirmed.
    pub health: Vec<Vec<String>>,
    /// Seconds that each of them may take.
    pub health_seconds: u64,
}

/// Where the system of a slot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotAt {
    /// In a directory.
    Directory(String),
    /// On a block device.
    Device(Mounted<BlockName>),
}

/// A boot loader and where its state is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootLoader {
    /// GRUB's environment block.
    Grub(Utf8PathBuf),
    /// The partition with `loader/entries`.
    SystemdBoot(Utf8PathBuf),
    /// The configuration of `fw_setenv`, unless it is the usual one.
    UBoot(Option<Utf8PathBuf>),
    /// A program of the integrator's.
    Script(Utf8PathBuf),
}

/// What a reset of user data spares, beside what the program itself needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reset {
    /// Paths below user data.
    pub keep: Vec<Utf8PathBuf>,
    /// A list of more such paths, one a line.
    pub list: Utf8PathBuf,
}

/// Why settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, a key that does not exist, a missing one or a value of the wrong type.
    #[error("not as `upgrader.toml` must be")]
    Form(#[from] toml::de::Error),
    /// The device's name is none.
    #[error("`device`")]
    Device(#[from] NameError),
    /// A name of a partition's device is none.
    #[error("`{key}`")]
    Block {
        /// The setting.
        key: String,
        /// Why not.
        source: BlockNameError,
    },
    /// A relative path: its meaning would depend on who starts the program.
    #[error("`{key}` must be an absolute path, not `{path}`")]
    Relative {
        /// The setting.
        key: &'static str,
        /// Its value.
        path: Utf8PathBuf,
    },
    /// Settings that do not go together.
    #[error("{0}")]
    Together(&'static str),
    /// A value that makes no sense.
    #[error("`{key}` cannot be `{value}`")]
    Value {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
    },
}

impl Settings {
    /// Reads the text of a description. `fstab` gives the text of a table of file systems; it is asked
    /// for the one that the settings name, and without one for the usual ones.
    pub fn parse(
        text: &str,
        fstab: impl Fn(Option<&Utf8Path>) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        written::parse(text, fstab)
    }

    /// Whether the system is where it is being run from.
    pub fn slots(&self) -> Option<&Slots> {
        match &self.system {
            SystemAt::Slots(slots) => Some(slots),
            _ => None,
        }
    }
}

//! What the client knows from one run to the next: below `state` of the data partition, one small
//! JSON file per record, each replaced whole.
//!
//! None of them is proof of anything. What is installed is what the configuration of the system
//! says; what is prepared is what verifies in the drop box; these records say the rest: when, from
//! where, and why. One that is missing or broken is as if it had never been written.

mod applying;
mod history;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use system_image_durable as durable;
use system_image_formats::checksum::Sha256;
use system_image_formats::config::{ClientConfig, Service};
use system_image_formats::detail::VersionDetail;
use system_image_formats::name::{ChannelName, FileName};
use system_image_formats::version::ImageVersion;

pub use self::applying::{Applying, Ending, Settled, boot, result_path};
pub use self::history::{Event, Record};
use crate::files;

/// Largest record that is read, in bytes.
const MAX_RECORD: usize = 4 << 20;

/// What is installed, as the configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The channel.
    pub channel: ChannelName,
    /// The version.
    pub build: ImageVersion,
}

impl From<&Service> for Installed {
    fn from(service: &Service) -> Self {
        Self {
            channel: service.channel.clone(),
            build: service.build_number,
        }
    }
}

/// What a user chose that no image has brought yet: another channel, another version to start
/// from. It holds until what is installed changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What was installed when it was made.
    pub installed: Installed,
    /// The channel to follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// The version to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<ImageVersion>,
}

/// How the last check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// When, in Unix seconds.
    pub at: i64,
    /// The channel and version that it started from.
    pub from: Installed,
    /// What it found.
    pub found: Found,
    /// The channels that have this device, as the last check that read them saw them.
    #[serde(default)]
    pub channels: Vec<Offered>,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Found {
    /// An update.
    Update {
        /// Its version.
        version: ImageVersion,
        /// Bytes of all its files.
        size: u64,
        /// What it is made of.
        version_detail: VersionDetail,
    },
    /// None, for this reason.
    UpToDate {
        /// Why there is none.
        why: String,
    },
    /// It failed.
    Failed {
        /// Why.
        why: String,
    },
}

/// A channel that a device can be switched to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// Its name.
    pub name: ChannelName,
    /// Whether it is shown in lists: not hidden, no alias, not redirected.
    pub shown: bool,
}

/// An update for which a command file was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// When, in Unix seconds.
    pub at: i64,
    /// What was installed.
    pub installed: Installed,
    /// The channel that it comes from.
    pub channel: ChannelName,
    /// Its version.
    pub version: ImageVersion,
    /// What it is made of.
    pub version_detail: VersionDetail,
    /// Its files.
    pub files: Vec<PreparedFile>,
}

impl Prepared {
    /// Whether some of it are patches.
    pub fn is_patched(&self) -> bool {
        let mut files = self.files.iter();
        files.any(|file| file.name.as_str().strip_suffix(".patch").is_some())
    }
}

/// A file of a prepared update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedFile {
    /// Its name in the drop box.
    pub name: FileName,
    /// Its digest, from the signed index.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
}

/// The records, and the lock on everything that the client changes.
#[derive(Clone, Debug)]
pub struct State {
    directory: Utf8PathBuf,
}

/// Kept while the client changes something. The next one is told who has it.
#[derive(Debug)]
#[must_use]
pub struct Lock {
    _file: File,
}

/// Another client is at work.
#[derive(Debug, thiserror::Error)]
#[error("another client is at work{}", holder.map_or(String::new(), |pid| format!(", process {pid}")))]
pub struct Busy {
    /// Its process id.
    pub holder: Option<u32>,
}

impl State {
    /// The records of a configured device.
    pub fn of(config: &ClientConfig) -> Self {
        Self {
            directory: config.data_partition.join("state"),
        }
    }

    /// Keeps other clients out until the lock is dropped, or this process ends in any way.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        let path = self.path("lock");
        let failed = || format!("cannot lock `{path}`");
        files::make_directory(&self.directory)?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(failed)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error == rustix::io::Errno::WOULDBLOCK {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                bail!(Busy {
                    holder: text.trim().parse().ok()
                });
            }
            return Err(io::Error::from(error)).with_context(failed);
        }
        // Who has it is for eyes only: a full disk does not matter.
        let _ = file.set_len(0);
        let _ = write!(file, "{}", std::process::id());
        Ok(Lock { _file: file })
    }

    /// An error if there are records that this user may not read: they would look like none.
    pub fn readable(&self) -> anyhow::Result<()> {
        match self.directory.read_dir_utf8() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(error).with_context(|| format!("cannot read `{}`", self.directory))
            }
            _ => Ok(()),
        }
    }

    /// What the user chose, if it still holds.
    pub fn choice(&self, installed: &Installed) -> Option<Choice> {
        let choice: Choice = self.read("choice.json")?;
        (choice.installed == *installed).then_some(choice)
    }

    /// Keeps what the user chose; nothing when it is what is installed.
    pub fn choose(&self, choice: &Choice) -> anyhow::Result<()> {
        let installed = &choice.installed;
        let as_installed = (choice.channel.as_ref()).is_none_or(|c| *c == installed.channel)
            && choice.build.is_none_or(|build| build == installed.build);
        if as_installed {
            return self.forget("choice.json");
        }
        self.write("choice.json", choice)
    }

    /// How the last check ended.
    pub fn checked(&self) -> Option<Checked> {
        self.read("checked.json")
    }

    /// Keeps how a check ended.
    pub fn note_checked(&self, checked: &Checked) -> anyhow::Result<()> {
        self.write("checked.json", checked)
    }

    /// When this version of this channel was seen first: now, if it was not before.
    pub fn seen(&self, update: &Installed, now: i64) -> anyhow::Result<i64> {
        if let Some((known, at)) = self.read::<(Installed, i64)>("seen.json")
            && known == *update
        {
            return Ok(at);
        }
        self.write("seen.json", &(update, now))?;
        Ok(now)
    }

    /// The update that was prepared last.
    pub fn prepared(&self) -> Option<Prepared> {
        self.read("prepared.json")
    }

    /// Keeps what is being prepared. Written before the command file: a record without command
    /// file is harmless, a command file without record would be a stranger's.
    pub fn note_prepared(&self, prepared: &Prepared) -> anyhow::Result<()> {
        self.write("prepared.json", prepared)
    }

    /// Forgets the prepared update.
    pub fn forget_prepared(&self) -> anyhow::Result<()> {
        self.forget("prepared.json")
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        self.directory.join(name)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let bytes = durable::read(self.path(name), MAX_RECORD).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    fn write<T: Serialize>(&self, name: &str, record: &T) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(record).context("a record is JSON")?;
        text.push(b'\n');
        replace(&self.path(name), &text)
    }

    fn forget(&self, name: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        durable::remove(&path).with_context(|| format!("cannot remove `{path}`"))
    }
}

/// A record that is there already is not written again: flash wears out.
fn replace(path: &Utf8Path, text: &[u8]) -> anyhow::Result<()> {
    if durable::read(path, MAX_RECORD).ok().flatten().as_deref() == Some(text) {
        return Ok(());
    }
    files::replace(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let place = tempfile::tempdir().unwrap();
        let directory = Utf8PathBuf::from_path_buf(place.path().join("state")).unwrap();
        (place, State { directory })
    }

    fn installed(channel: &str, build: u32) -> Installed {
        Installed {
            channel: channel.parse().unwrap(),
            build: ImageVersion::new(build),
        }
    }

    #[test]
    fn a_choice_holds_until_what_is_installed_changes() {
        let (_place, state) = state();
        let choice = Choice {
            installed: installed("a", 5),
            channel: Some("b".parse().unwrap()),
            build: Some(ImageVersion::NONE),
        };
        state.choose(&choice).unwrap();
        assert_eq!(state.choice(&installed("a", 5)), Some(choice));
        assert_eq!(state.choice(&installed("a", 6)), None);
        assert_eq!(state.choice(&installed("b", 5)), None);
    }

    #[test]
    fn choosing_what_is_installed_is_no_choice() {
        let (_place, state) = state();
        let now = installed("a", 5);
        let choice = |channel: &str, build| Choice {
            installed: now.clone(),
            channel: Some(channel.parse().unwrap()),
            build,
        };
        state.choose(&choice("b", None)).unwrap();
        state
            .choose(&choice("a", Some(ImageVersion::new(5))))
            .unwrap();
        assert_eq!(state.choice(&now), None);
    }

    #[test]
    fn a_broken_record_is_none() {
        let (_place, state) = state();
        files::replace(&state.path("checked.json"), b"{\"at\": 1").unwrap();
        assert_eq!(state.checked(), None);
    }

    #[test]
    fn who_holds_the_lock_is_told() {
        let (_place, state) = state();
        let lock = state.lock().unwrap();
        let refused = state.lock().unwrap_err();
        let refused: &Busy = refused.downcast_ref().unwrap();
        assert_eq!(refused.holder, Some(std::process::id()));
        drop(lock);
        let _ = state.lock().unwrap();
    }
}

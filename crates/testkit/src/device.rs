//! A device: its configuration, trust root and drop box in a temporary directory.

use std::collections::BTreeMap;
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::keyring::KeyringType;
use tempfile::TempDir;

use crate::keys::Keys;
use crate::published::{CHANNEL, DEVICE};
use crate::web::Web;

/// A device with nothing installed, removed when dropped.
#[derive(Debug)]
pub struct Device {
    place: TempDir,
}

impl Device {
    /// A device that trusts these keys' archive-master and has no server yet.
    pub fn new(keys: &Keys) -> Self {
        let device = Self {
            place: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(device.config()).unwrap();
        let anchor = keys.keyring(KeyringType::ArchiveMaster).pack();
        fs::write(device.archive_master(), anchor).unwrap();
        let at = |name: &str| device.path(name);
        let text = format!(
            "[service]\nbase: 127.0.0.1\nhttp_port: 9\nhttps_port: disabled\n\
             [system]\ntempdir: {}\nlogfile: {}\nsettings_db: {}\n\
             [gpg]\narchive_master: {}\nimage_master: {}\nimage_signing: {}\ndevice_signing: {}\n\
             [updater]\ncache_partition: {}\ndata_partition: {}\n\
             [hooks]\napply: systemimage.apply.Noop\n",
            at("tmp"),
            device.log(),
            at("settings.db"),
            device.archive_master(),
            device.kept(KeyringType::ImageMaster),
            device.kept(KeyringType::ImageSigning),
            device.kept(KeyringType::DeviceSigning),
            device.drop_box(),
            at("data"),
        );
        device.configure("00_client.ini", &text);
        device.at_version(0)
    }

    /// Has this version installed.
    pub fn at_version(self, version: u32) -> Self {
        self.installed(CHANNEL, version, "");
        self
    }

    /// Takes its updates from this server.
    pub fn served_by(self, web: &Web) -> Self {
        let text = format!("[service]\nhttp_port: {}\n", web.port());
        self.configure("10_server.ini", &text);
        self
    }

    /// Has a version of a channel installed; `more` are lines of `[service]`.
    pub fn installed(&self, channel: &str, version: u32, more: &str) {
        let text = format!(
            "[service]\nchannel: {channel}\ndevice: {DEVICE}\nbuild_number: {version}\n{more}"
        );
        self.configure("01_channel.ini", &text);
    }

    /// Writes a file of the configuration directory.
    pub fn configure(&self, name: &str, text: &str) {
        fs::write(self.config().join(name), text).unwrap();
    }

    /// The configuration directory.
    pub fn config(&self) -> Utf8PathBuf {
        self.path("config.d")
    }

    /// The trust root.
    pub fn archive_master(&self) -> Utf8PathBuf {
        self.path("archive-master.tar.xz")
    }

    /// Where a keyring is kept between runs.
    pub fn kept(&self, kind: KeyringType) -> Utf8PathBuf {
        match kind {
            KeyringType::Blacklist => self.path("data/blacklist.tar.xz"),
            kind => self.path("keyrings").join(format!("{kind}.tar.xz")),
        }
    }

    /// The directory in which updates are left for the upgrader.
    pub fn drop_box(&self) -> Utf8PathBuf {
        self.path("cache/recovery")
    }

    /// The names and contents in the drop box.
    pub fn dropped(&self) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = self.drop_box().read_dir_utf8() else {
            return BTreeMap::new();
        };
        entries
            .map(|entry| {
                let entry = entry.unwrap();
                let content = fs::read(entry.path()).unwrap();
                (entry.file_name().to_owned(), content)
            })
            .collect()
    }

    /// The prepared update, if there is one.
    pub fn command_file(&self) -> Option<String> {
        fs::read_to_string(self.drop_box().join("ubuntu_command")).ok()
    }

    /// The log file.
    pub fn log(&self) -> Utf8PathBuf {
        self.path("log/client.log")
    }

    /// A place in the device's directory.
    pub fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.place.path()).unwrap().join(name)
    }
}

//! The device's side of the journey: its partitions, its client, its upgrader.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};

use crate::measure::{Cost, Step};
use crate::server::{CHANNEL, DEVICE, quiet};

/// Size of the system partition in bytes; the file behind it is sparse.
const PARTITION: u64 = 3 << 30;

/// A device: directories for its partitions, a loop device for its system when run by root.
#[derive(Debug)]
pub struct Device {
    root: Utf8PathBuf,
    programs: Utf8PathBuf,
    system: System,
}

#[derive(Debug)]
enum System {
    Directory,
    Loop { device: String },
}

impl Device {
    /// A device without a system, that trusts the server whose archive-master keyring it is given.
    pub fn new(
        root: &Utf8Path,
        programs: &Utf8Path,
        trust_root: &Utf8Path,
    ) -> anyhow::Result<Self> {
        for directory in [
            "config.d",
            "cache/recovery",
            "data",
            "keyrings",
            "tmp",
            "system",
        ] {
            fs::create_dir_all(root.join(directory))?;
        }
        for suffix in ["", ".asc"] {
            let name = format!("archive-master.tar.xz{suffix}");
            fs::copy(format!("{trust_root}{suffix}"), root.join(name))
                .context("cannot copy the trust root")?;
        }
        let system = if rustix::process::geteuid().is_root() {
            let image = root.join("system.img");
            fs::File::create(&image)?.set_len(PARTITION)?;
            quiet("mkfs.ext4", &["-q", image.as_str()])?;
            let output = Command::new("losetup")
                .args(["--find", "--show", image.as_str()])
                .output()?;
            if !output.status.success() {
                bail!(
                    "losetup failed: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
            }
            System::Loop {
                device: String::from_utf8(output.stdout)?.trim().to_owned(),
            }
        } else {
            System::Directory
        };
        let device = Self {
            root: root.to_owned(),
            programs: programs.to_owned(),
            system,
        };
        fs::write(
            device.root.join("upgrader.toml"),
            device.upgrader_settings(),
        )?;
        Ok(device)
    }

    fn upgrader_settings(&self) -> String {
        let root = &self.root;
        let system = match &self.system {
            System::Directory => {
                format!(
                    "directory = \"{}\"\nprivileges = \"user\"",
                    self.system_root()
                )
            }
            System::Loop { device } => {
                format!(
                    "device = \"{device}\"\nmountpoint = \"{}\"",
                    self.system_root()
                )
            }
        };
        format!(
            "archive_master = \"{root}/archive-master.tar.xz\"\n\
             device = \"{DEVICE}\"\n\
             drop_box = \"{root}/cache/recovery\"\n\
             data = \"{root}/data\"\n\n\
             [system]\n{system}\n"
        )
    }

    /// What the installed system is, in a word.
    pub fn describe(&self) -> &'static str {
        match self.system {
            System::Directory => "a directory (run as root for a real partition)",
            System::Loop { .. } => "an ext4 partition on a loop device",
        }
    }

    /// Whether owners, devices and attributes cannot be set.
    pub fn is_unprivileged(&self) -> bool {
        matches!(self.system, System::Directory)
    }

    /// Points the client at a server and tells it what is installed, and whether the upgrader applies
    /// patches.
    pub fn configure(&self, server: SocketAddr, build: &str, patches: bool) -> anyhow::Result<()> {
        let patch_memory = if patches { 96 } else { 0 };
        let root = &self.root;
        let text = format!(
            "[service]\nbase: {}\nhttp_port: {}\nhttps_port: disabled\nchannel: {CHANNEL}\n\
             device: {DEVICE}\nbuild_number: {build}\n\
             [system]\ntempdir: {root}/tmp\nlogfile: {root}/client.log\n\
             settings_db: {root}/settings.db\n\
             [gpg]\narchive_master: {root}/archive-master.tar.xz\n\
             image_master: {root}/keyrings/image-master.tar.xz\n\
             image_signing: {root}/keyrings/image-signing.tar.xz\n\
             device_signing: {root}/keyrings/device-signing.tar.xz\n\
             [updater]\ncache_partition: {root}/cache/recovery\ndata_partition: {root}/data/system-data/var/lib/system-image\n\
             patch_memory: {patch_memory}\n\
             [hooks]\napply: systemimage.apply.Noop\n",
            server.ip(),
            server.port(),
        );
        fs::write(root.join("config.d/00_default.ini"), text)?;
        Ok(())
    }

    fn client(&self, arguments: &[&str]) -> anyhow::Result<Step> {
        let step = Step::new(self.programs.join("system-image-cli"))?;
        Ok(step
            .args(["-C", self.root.join("config.d").as_str()])
            .args(arguments))
    }

    /// Runs the client, which must succeed.
    pub fn update(&self) -> anyhow::Result<Cost> {
        Ok(self.client(&[])?.succeed()?.1)
    }

    /// Runs the client, which may fail; says nothing itself.
    pub fn try_update(&self, options: &[&str]) -> anyhow::Result<Output> {
        Ok(self.client(options)?.finish(true)?.0)
    }

    /// What the client would do.
    pub fn dry_run(&self) -> anyhow::Result<String> {
        Ok(self.client(&["--dry-run", "-p", "0"])?.succeed()?.0)
    }

    /// Runs the upgrader on what the client prepared, as a recovery does.
    pub fn upgrade(&self) -> anyhow::Result<Cost> {
        let step = Step::new(self.programs.join("system-image-upgrader"))?;
        let settings = self.root.join("upgrader.toml");
        let commands = self.drop_box().join("ubuntu_command");
        let step = step.args(["--config", settings.as_str(), commands.as_str()]);
        Ok(step.succeed()?.1)
    }

    /// Where the client leaves what the upgrader takes.
    pub fn drop_box(&self) -> Utf8PathBuf {
        self.root.join("cache/recovery")
    }

    /// Bytes of payloads in the drop box.
    pub fn fetched(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for entry in self.drop_box().read_dir_utf8()? {
            let entry = entry?;
            let is_payload = matches!(entry.path().extension(), Some("xz" | "patch"));
            if entry.file_name().contains('-') && is_payload {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    /// Forgets everything that was fetched for an update.
    pub fn empty_drop_box(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(self.drop_box())?;
        Ok(fs::create_dir(self.drop_box())?)
    }

    /// The mount point of the system.
    fn system_root(&self) -> Utf8PathBuf {
        self.root.join("system")
    }

    /// Looks at the installed system.
    pub fn with_system<T>(
        &self,
        look: impl FnOnce(&Utf8Path) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let place = self.system_root();
        let System::Loop { device } = &self.system else {
            return look(&place);
        };
        quiet("mount", &["-o", "ro", device, place.as_str()])?;
        let seen = look(&place);
        quiet("umount", &[place.as_str()])?;
        seen
    }

    /// The build number that the installed system says it has.
    pub fn installed(&self) -> anyhow::Result<String> {
        self.with_system(|system| {
            let path = system.join("etc/ubuntu-build");
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
            Ok(text.trim().to_owned())
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let System::Loop { device } = &self.system {
            // Left mounted only by a run that failed in between.
            let _ = quiet("umount", &[self.system_root().as_str()]);
            let _ = quiet("losetup", &["--detach", device]);
        }
    }
}

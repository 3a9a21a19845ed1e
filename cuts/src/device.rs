//! The devices: how their storage is laid out, what switching them on takes, and what can be seen
//! of them afterwards.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use system_image_testkit::tree::{Snapshot, snapshot};
use system_image_testkit::{LoopDevice, Recovery};

use crate::lab::Lab;

/// Bytes of the file system for all that is not the system: drop box, outcome, user data.
const STORAGE: u64 = 16 << 20;

/// Bytes of the system's partition.
const SYSTEM: u64 = 32 << 20;

/// The highest status of `e2fsck` that means: all is well now.
const CORRECTED: i32 = 1;

/// How a device's storage is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Everything in directories.
    Directory,
    /// The system on a partition, the rest in directories.
    Partition,
    /// One disk with a partition for the system and one for the rest.
    Disk,
}

impl Layout {
    /// Its name in the summary.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Partition => "partition",
            Self::Disk => "disk",
        }
    }

    /// Whether such a device can only be had by root.
    pub(crate) fn needs_root(self) -> bool {
        self != Self::Directory
    }

    /// The partitions of its disk, if it has one: that of the storage, that of the system.
    fn partitions(self) -> (Option<Range<u64>>, Option<Range<u64>>) {
        match self {
            Self::Directory => (None, None),
            Self::Partition => (None, Some(0..SYSTEM)),
            Self::Disk => (Some(0..STORAGE), Some(STORAGE..STORAGE + SYSTEM)),
        }
    }
}

/// A device that is switched off: directories, and an image of its disk if it has one.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) recovery: Recovery,
    layout: Layout,
    place: PathBuf,
}

impl Device {
    /// A device in this directory, with nothing on its disk.
    pub(crate) fn new(lab: &Lab, layout: Layout, place: &Path) -> Self {
        fs::create_dir_all(place).expect("the lab's directory is writable");
        Self {
            recovery: Recovery::at(place, lab.upgrader(), lab.keys()),
            layout,
            place: place.to_owned(),
        }
    }

    /// The image of its disk.
    pub(crate) fn image(&self) -> PathBuf {
        self.place.join("disk.img")
    }

    /// Gives it a disk whose storage is an empty file system.
    pub(crate) fn partition(&self) -> anyhow::Result<()> {
        let (storage, system) = self.layout.partitions();
        let Some(system) = system else { return Ok(()) };
        File::create(self.image())?.set_len(system.end)?;
        let Some(storage) = storage else {
            return Ok(());
        };
        let size = format!("{}k", storage.end >> 10);
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F"]).arg(self.image()).arg(size);
        succeed(&mut mkfs)
    }

    /// Makes it what `other` is.
    pub(crate) fn become_like(&self, other: &Self) -> anyhow::Result<()> {
        let storage = self.recovery.storage();
        if storage.exists() {
            fs::remove_dir_all(&storage).context("cannot empty a device")?;
        }
        // Not written over: a helper that outlived its upgrader may still write to it.
        if self.image().exists() {
            fs::remove_file(self.image())?;
        }
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--sparse=auto"]);
        copy.arg(other.recovery.storage());
        if other.image().exists() {
            copy.arg(other.image());
        }
        succeed(copy.arg(&self.place))
    }

    /// Switches it on as its own image says.
    pub(crate) fn start(&self) -> anyhow::Result<Running<'_>> {
        self.start_from(&self.image())
    }

    /// Switches it on with the disk that is at `image`. A recovery checks its storage before it
    /// mounts it, and so does this.
    pub(crate) fn start_from(&self, image: &Path) -> anyhow::Result<Running<'_>> {
        let (storage, system) = self.layout.partitions();
        let mut running = Running {
            system: None,
            storage: None,
            device: self,
        };
        if let Some(part) = storage {
            let storage = running.storage.insert(LoopDevice::over(image, part));
            repair(&storage.path)?;
            storage.mount(&self.recovery.storage());
        }
        if let Some(part) = system {
            let system = running.system.insert(LoopDevice::over(image, part));
            self.recovery.on_partition(system);
        }
        Ok(running)
    }
}

/// A device that is switched on. Dropped, it is switched off: nothing stays mounted.
#[derive(Debug)]
pub(crate) struct Running<'d> {
    // Dropped first: its mount point is on the storage.
    system: Option<LoopDevice>,
    storage: Option<LoopDevice>,
    device: &'d Device,
}

impl Running<'_> {
    /// Its recovery.
    pub(crate) fn recovery(&self) -> &Recovery {
        &self.device.recovery
    }

    /// Makes its storage write everything at once, as if the kernel always found the time. What is
    /// written late without this may be written at any time before.
    pub(crate) fn write_at_once(&self) -> anyhow::Result<()> {
        let mut remount = Command::new("mount");
        remount.args(["-o", "remount,sync,dirsync"]);
        succeed(remount.arg(self.recovery().storage()))
    }

    /// All that an update must leave old or make new, as the device would see it.
    pub(crate) fn look(&self) -> anyhow::Result<Snapshot> {
        let root = self.recovery().system();
        let Some(system) = &self.system else {
            return Ok(snapshot(&root));
        };
        // An upgrader that was killed leaves it mounted.
        system.unmount();
        system.mount(&root);
        let seen = snapshot(&root);
        system.unmount();
        let mut check = Command::new("e2fsck");
        succeed(check.args(["-f", "-n", &system.path]))
            .context("the system's file system is damaged")?;
        Ok(seen)
    }
}

/// What a recovery does with its storage before it mounts it.
fn repair(device: &str) -> anyhow::Result<()> {
    let output = Command::new("e2fsck").args(["-y", device]).output()?;
    let status = output.status.code().unwrap_or(i32::MAX);
    ensure!(
        (0..=CORRECTED).contains(&status),
        "the storage cannot be repaired: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// Runs a program that must succeed.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    bail!(
        "{command:?} failed with {}: {}",
        output.status,
        String::from_utf8_lossy(&said).trim()
    )
}

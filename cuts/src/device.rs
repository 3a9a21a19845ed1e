//! The devices: how their storage is laid out, what switching them on takes, and what can be seen
//! of them afterwards.

use std::fs::{self, File};
use std::iter::once;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use camino::Utf8PathBuf;
use system_image_slots::{BootControl, Grub};
use system_image_testkit::tree::{Bytes, Snapshot, snapshot};
use system_image_testkit::{LoopDevice, Recovery};

use crate::lab::Lab;

/// Bytes of the file system for all that is not the system: drop box, outcome, user data.
const STORAGE: u64 = 16 << 20;

/// Bytes of the system's partition.
const SYSTEM: u64 = 32 << 20;

/// Partitions that images are written to, as files on the storage.
const PARTITIONS: [&str; 2] = ["boot", "recovery"];

/// The highest status of `e2fsck` that means: all is well now.
const CORRECTED: i32 = 1;

/// How a device's storage is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Everything in directories.
    Directory,
    /// The same, and the system is changed directly.
    DirectDirectory,
    /// The system on a partition, the rest in directories.
    Partition,
    /// The same, and the system is changed directly.
    DirectPartition,
    /// One disk with a partition for the system and one for the rest.
    Disk,
    /// The same, and the system is changed directly.
    DirectDisk,
    /// Two slots in directories.
    Slots,
    /// One disk with a partition for each of two slots and one for the rest.
    SlotsDisk,
}

/// The slots of those devices that have some. The first one runs when nothing was installed yet.
const SLOTS: [&str; 2] = ["a", "b"];

impl Layout {
    /// Its name in the summary.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::DirectDirectory => "direct-directory",
            Self::Partition => "partition",
            Self::DirectPartition => "direct-partition",
            Self::Disk => "disk",
            Self::DirectDisk => "direct-disk",
            Self::Slots => "slots",
            Self::SlotsDisk => "slots-disk",
        }
    }

    /// Whether all that an update touches is on one disk.
    pub(crate) fn is_disk(self) -> bool {
        matches!(self, Self::Disk | Self::DirectDisk | Self::SlotsDisk)
    }

    fn has_slots(self) -> bool {
        matches!(self, Self::Slots | Self::SlotsDisk)
    }

    /// How the system is changed, in the settings' words.
    fn way(self) -> &'static str {
        match self {
            Self::DirectDirectory | Self::DirectPartition | Self::DirectDisk => "direct",
            _ => "auto",
        }
    }

    /// Whether such a device can only be had by root.
    pub(crate) fn needs_root(self) -> bool {
        !matches!(self, Self::Directory | Self::DirectDirectory | Self::Slots)
    }

    /// The partitions of its disk, if it has one: that of the storage, those of the system.
    fn partitions(self) -> (Option<Range<u64>>, Vec<Range<u64>>) {
        match self {
            Self::Directory | Self::DirectDirectory | Self::Slots => (None, Vec::new()),
            Self::Partition | Self::DirectPartition => (None, once(0..SYSTEM).collect()),
            Self::Disk | Self::DirectDisk => {
                (Some(0..STORAGE), once(STORAGE..STORAGE + SYSTEM).collect())
            }
            Self::SlotsDisk => {
                let first = STORAGE..STORAGE + SYSTEM;
                let second = first.end..first.end + SYSTEM;
                (Some(0..STORAGE), vec![first, second])
            }
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
        let (storage, systems) = self.layout.partitions();
        let Some(system) = systems.last() else {
            return Ok(());
        };
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
        let (storage, systems) = self.layout.partitions();
        let mut running = Running {
            systems: Vec::new(),
            storage: None,
            device: self,
        };
        if let Some(part) = storage {
            let storage = running.storage.insert(LoopDevice::over(image, part));
            repair(&storage.path)?;
            storage.mount(&self.recovery.storage());
        }
        let systems = systems.into_iter();
        running.systems = systems.map(|part| LoopDevice::over(image, part)).collect();
        running.configure()?;
        if self.layout.has_slots() && self.recovery.path("grubenv").exists() {
            // What the boot loader does.
            running.run(&running.next()?)?;
        }
        Ok(running)
    }

    /// Puts on its storage what a device has besides a system: partitions, and somebody's data.
    pub(crate) fn furnish(&self) -> anyhow::Result<()> {
        let path = |path: &str| self.recovery.path(path);
        for part in PARTITIONS {
            fs::write(path(part), [0; 8192])?;
        }
        fs::create_dir_all(path("data/user/album"))?;
        fs::write(path("data/user/album/photo"), "mine\n")?;
        fs::write(path("data/.hidden"), "mine too\n")?;
        if self.layout.has_slots() {
            let mut grubenv = b"# GRUB Environment Block\n".to_vec();
            grubenv.resize(1024, b'#');
            fs::write(path("grubenv"), grubenv)?;
            for slot in SLOTS.iter().filter(|_| self.layout == Layout::Slots) {
                fs::create_dir(path(&format!("slot-{slot}")))?;
            }
        }
        Ok(())
    }
}

/// A device that is switched on. Dropped, it is switched off: nothing stays mounted.
#[derive(Debug)]
pub(crate) struct Running<'d> {
    // Dropped first: their mount point is on the storage.
    systems: Vec<LoopDevice>,
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

    /// Writes the device description.
    fn configure(&self) -> anyhow::Result<()> {
        let (recovery, layout) = (self.recovery(), self.device.layout);
        let quoted = |path: &Path| format!("\"{}\"", path.display());
        let mountpoint = format!("mountpoint = {}", quoted(&recovery.system()));
        let place = match (layout, &self.systems[..]) {
            (Layout::Slots, _) => {
                format!("directory = {}", quoted(&recovery.path("slot-{slot}")))
            }
            (Layout::SlotsDisk, systems) => {
                let link = |slot: &str| self.device.place.join(format!("part-{slot}"));
                for (slot, system) in SLOTS.iter().zip(systems) {
                    let _ = fs::remove_file(link(slot));
                    std::os::unix::fs::symlink(&system.path, link(slot))?;
                }
                format!("device = {}\n{mountpoint}", quoted(&link("{slot}")))
            }
            (_, [system, ..]) => format!("device = \"{}\"\n{mountpoint}", system.path),
            (_, []) => format!("directory = {}", quoted(&recovery.system())),
        };
        let mut text = format!("{place}\nway = \"{}\"\n", layout.way());
        if layout.has_slots() {
            text += &format!(
                "[slots]\nnames = [\"a\", \"b\"]\nboot = \"grub\"\nat = {}\ncmdline = {}\n",
                quoted(&recovery.path("grubenv")),
                quoted(&self.device.place.join("cmdline")),
            );
        }
        text += "[partitions]\n";
        for part in PARTITIONS {
            text += &format!("{part} = {}\n", quoted(&recovery.path(part)));
        }
        recovery.configure(&text);
        Ok(())
    }

    fn control(&self) -> anyhow::Result<Grub> {
        let names = SLOTS.iter().map(|name| name.parse());
        let grubenv = Utf8PathBuf::try_from(self.recovery().path("grubenv"))?;
        Ok(Grub::new(grubenv, names.collect::<Result<_, _>>()?))
    }

    /// The slot that the boot loader starts next.
    fn next(&self) -> anyhow::Result<String> {
        Ok(self.control()?.read()?.next().to_string())
    }

    /// The slot runs from now on.
    fn run(&self, slot: &str) -> anyhow::Result<()> {
        let text = format!("quiet system_image.slot={slot}\n");
        Ok(fs::write(self.device.place.join("cmdline"), text)?)
    }

    /// What has been installed runs, and is there to stay.
    pub(crate) fn settle_in(&self) -> anyhow::Result<()> {
        if self.device.layout.has_slots() {
            let next = self.next()?;
            self.run(&next)?;
            self.control()?.confirm(&next.parse()?)?;
        }
        Ok(())
    }

    /// All that an update must leave old or make new, as the device would see it.
    pub(crate) fn look(&self) -> anyhow::Result<Snapshot> {
        let mut seen = self.look_at_system()?;
        seen.extend(self.look_beside()?);
        Ok(seen)
    }

    /// Partitions and user data, without their times.
    pub(crate) fn look_beside(&self) -> anyhow::Result<Snapshot> {
        let mut seen = Snapshot::new();
        let mut add = |prefix: &str, found: Snapshot| {
            for (path, mut entry) in found {
                let path = [format!("@{prefix}/").as_bytes(), &path[..]].concat();
                (entry.mtime, entry.first_name) = ((0, 0), Bytes(Vec::new()));
                seen.insert(path, entry);
            }
        };
        let mut data = snapshot(&self.recovery().path("data"));
        // Kept by resets, and of a time of its own.
        data.retain(|path, _| path != b".last_update" && !path.starts_with(b"system-image"));
        add("data", data);
        for part in PARTITIONS {
            let directory = tempfile::tempdir()?;
            fs::copy(self.recovery().path(part), directory.path().join(part))?;
            add("partitions", snapshot(directory.path()));
        }
        Ok(seen)
    }

    fn look_at_system(&self) -> anyhow::Result<Snapshot> {
        let root = self.recovery().system();
        let next = if self.device.layout.has_slots() {
            self.next()?
        } else {
            SLOTS[0].to_owned()
        };
        if self.device.layout == Layout::Slots {
            return Ok(snapshot(&self.recovery().path(&format!("slot-{next}"))));
        }
        let at = SLOTS.iter().position(|slot| *slot == next).unwrap_or(0);
        let Some(system) = self.systems.get(at) else {
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

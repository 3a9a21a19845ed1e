//! A system on a block device, mounted only while it is changed.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{OFlags, major, minor};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use system_image_delta::Root;

use super::{Storage, SystemError, failed, mounts};
use crate::config::Filesystem;
use crate::log;

/// A program with its options, and the worst exit status that is no failure.
type Tool = (&'static str, &'static [&'static str], i32);

impl Filesystem {
    /// Makes it. Older recoveries' e2fsck must be able to check it later, so what it does not know
    /// stays off (upgrader spec, section 9).
    fn maker(self) -> Tool {
        match self {
            Self::Ext4 => (
                "mkfs.ext4",
                &[
                    "-F",
                    "-q",
                    "-O",
                    "^metadata_csum,^64bit",
                    "-Elazy_itable_init=0",
                ],
                0,
            ),
            Self::F2fs => ("mkfs.f2fs", &["-f", "-q"], 0),
            Self::Btrfs => ("mkfs.btrfs", &["-f", "-q"], 0),
        }
    }

    /// Checks it and repairs what can be repaired without asking; e2fsck says 1 then. Btrfs does so
    /// when it is mounted.
    fn checker(self) -> Option<Tool> {
        match self {
            Self::Ext4 => Some(("e2fsck", &["-f", "-y"], 1)),
            Self::F2fs => Some(("fsck.f2fs", &["-a"], 1)),
            Self::Btrfs => None,
        }
    }

    fn name(self) -> &'static CStr {
        match self {
            Self::Ext4 => c"ext4",
            Self::F2fs => c"f2fs",
            Self::Btrfs => c"btrfs",
        }
    }
}

/// How often to ask whether the device is free, and how long to wait in between. Five minutes: a
/// `mkfs.ext4` that outlived its upgrader writes all inode tables of a large, slow card.
const PATIENCE: (u32, Duration) = (1500, Duration::from_millis(200));

/// The device and its mount point.
#[derive(Debug)]
pub(super) struct Device {
    path: Utf8PathBuf,
    mountpoint: Utf8PathBuf,
    filesystem: Filesystem,
}

impl Device {
    pub(super) fn new(path: Utf8PathBuf, mountpoint: Utf8PathBuf, filesystem: Filesystem) -> Self {
        Self {
            path,
            mountpoint,
            filesystem,
        }
    }

    /// Unmounts what an interrupted run left, and nothing else.
    fn leave(&self) -> Result<(), SystemError> {
        while self.mounted_here()? {
            self.unmount_once()?;
        }
        Ok(())
    }

    /// The same, but it may be in use elsewhere. The kernel does not mount it twice on one mount point.
    fn leave_mountpoint(&self) -> Result<(), SystemError> {
        let number = self.number()?;
        let on = self.canonical_mountpoint()?;
        let is_here = |mount: &mounts::Mount| mount.number == number && mount.on == on;
        while mounts::all()?.iter().any(is_here) {
            self.unmount_once()?;
        }
        Ok(())
    }

    fn unmount_once(&self) -> Result<(), SystemError> {
        unmount(self.mountpoint.as_std_path(), UnmountFlags::empty())
            .map_err(|error| failed("unmount", &self.mountpoint, error.into()))
    }

    fn mount_with(&self, flags: MountFlags) -> Result<Root, SystemError> {
        let (device, mountpoint) = (self.path.as_std_path(), self.mountpoint.as_std_path());
        mount(device, mountpoint, self.filesystem.name(), flags, None)
            .map_err(|error| failed("mount", &self.path, error.into()))?;
        Root::open(mountpoint).map_err(|error| failed("open", &self.mountpoint, error))
    }

    /// Waits until no other program has the device for itself. A killed upgrader leaves the
    /// `mkfs.ext4` or `e2fsck` that it had started, and two at once would spoil the file system.
    fn wait_until_free(&self) -> Result<(), SystemError> {
        let (attempts, pause) = PATIENCE;
        for attempt in 0..attempts {
            let opened = File::options()
                .read(true)
                .custom_flags(OFlags::EXCL.bits().cast_signed())
                .open(&self.path);
            match opened {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy => {
                    return Err(failed("open", &self.path, error));
                }
                Err(_) => {}
            }
            if attempt == 0 {
                log(&format!(
                    "waiting for another program to let go of `{}`",
                    self.path
                ));
            }
            sleep(pause);
        }
        let device = self.path.clone();
        Err(SystemError::Busy { device })
    }

    /// Whether the device, and only it, is mounted on its mount point and nowhere else.
    fn mounted_here(&self) -> Result<bool, SystemError> {
        let number = self.number()?;
        let mountpoint = self.canonical_mountpoint()?;
        let mut here = false;
        for mount in mounts::all()? {
            match (mount.number == number, mount.on == mountpoint) {
                (true, true) => here = true,
                (true, false) => {
                    let device = self.path.clone();
                    return Err(SystemError::InUse {
                        device,
                        mountpoint: mount.on,
                    });
                }
                (false, true) => {
                    let (device, mountpoint) = (self.path.clone(), mountpoint);
                    return Err(SystemError::Occupied { device, mountpoint });
                }
                (false, false) => {}
            }
        }
        Ok(here)
    }

    /// The mount point as mount tables write it.
    fn canonical_mountpoint(&self) -> Result<Utf8PathBuf, SystemError> {
        let found = self.mountpoint.canonicalize_utf8();
        found.map_err(|error| failed("find", &self.mountpoint, error))
    }

    /// The device's number as mount tables write it.
    fn number(&self) -> Result<String, SystemError> {
        let meta = self
            .path
            .metadata()
            .map_err(|error| failed("find", &self.path, error))?;
        if !meta.file_type().is_block_device() {
            let path = self.path.clone();
            return Err(SystemError::Kind {
                path,
                wanted: "block device",
            });
        }
        Ok(format!("{}:{}", major(meta.rdev()), minor(meta.rdev())))
    }
}

impl Storage for Device {
    fn check(&self) -> Result<(), SystemError> {
        if !self.mountpoint.is_dir() {
            let path = self.mountpoint.clone();
            return Err(SystemError::Kind {
                path,
                wanted: "directory",
            });
        }
        self.mounted_here()?;
        let checker = self.filesystem.checker();
        for (program, ..) in [self.filesystem.maker()].into_iter().chain(checker) {
            // Asked for its version it does nothing.
            Command::new(program)
                .arg("-V")
                .output()
                .map_err(|source| SystemError::Run { program, source })?;
        }
        Ok(())
    }

    fn capacity(&self) -> Result<Option<u64>, SystemError> {
        let size = File::open(&self.path).and_then(|mut device| device.seek(SeekFrom::End(0)));
        let size = size.map_err(|error| failed("ask for the size of", &self.path, error))?;
        Ok(Some(size))
    }

    fn format(&self) -> Result<(), SystemError> {
        self.leave()?;
        self.wait_until_free()?;
        run(self.filesystem.maker(), &self.path)?;
        File::open(&self.path)
            .and_then(|device| device.sync_all())
            .map_err(|error| failed("sync", &self.path, error))
    }

    fn mount(&self) -> Result<Root, SystemError> {
        self.leave()?;
        self.wait_until_free()?;
        if let Some(checker) = self.filesystem.checker() {
            run(checker, &self.path)?;
        }
        self.mount_with(MountFlags::empty())
    }

    fn look(&self) -> Result<Root, SystemError> {
        self.leave_mountpoint()?;
        match self.mount_with(MountFlags::RDONLY) {
            // A file system that is mounted to be written to cannot be mounted otherwise as well.
            Err(SystemError::Io { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => {
                self.mount_with(MountFlags::empty())
            }
            other => other,
        }
    }

    fn unmount(&self, root: Root) -> Result<(), SystemError> {
        root.sync()
            .map_err(|error| failed("sync", &self.mountpoint, error))?;
        // It keeps the mount busy.
        drop(root);
        self.unmount_once()
    }
}

/// Runs a program on the device.
fn run((program, options, worst): Tool, device: &Utf8Path) -> Result<(), SystemError> {
    let output = Command::new(program)
        .args(options)
        .arg(device)
        .output()
        .map_err(|source| SystemError::Run { program, source })?;
    if output
        .status
        .code()
        .is_some_and(|code| (0..=worst).contains(&code))
    {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(1000)..]);
    let output_end = said.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(SystemError::Program {
        program,
        status: output.status,
        output: output_end,
    })
}

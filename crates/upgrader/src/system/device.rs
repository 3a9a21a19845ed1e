//! A system on a block device with an ext4 file system, mounted only while it is changed.

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

use super::{Deployment, SystemError};
use crate::log;

/// Makes the file system. Older recoveries' e2fsck must be able to check it later, so what it
/// does not know stays off (upgrader spec, section 9).
const MKFS: (&str, [&str; 5]) = (
    "mkfs.ext4",
    [
        "-F",
        "-q",
        "-O",
        "^metadata_csum,^64bit",
        "-Elazy_itable_init=0",
    ],
);

/// Checks it and repairs what can be repaired without asking.
const FSCK: (&str, [&str; 2]) = ("e2fsck", ["-f", "-y"]);

/// What e2fsck says when errors were found and all corrected.
const CORRECTED: i32 = 1;

/// How often to ask whether the device is free, and how long to wait in between. Five minutes: a
/// `mkfs.ext4` that outlived its upgrader writes all inode tables of a large, slow card.
const PATIENCE: (u32, Duration) = (1500, Duration::from_millis(200));

/// The device and its mount point.
#[derive(Debug)]
pub(super) struct Device {
    device: Utf8PathBuf,
    mountpoint: Utf8PathBuf,
}

impl Device {
    pub(super) fn new(device: Utf8PathBuf, mountpoint: Utf8PathBuf) -> Self {
        Self { device, mountpoint }
    }

    /// Unmounts what an interrupted run left, and nothing else.
    fn leave(&self) -> Result<(), SystemError> {
        while self.mounted_here()? {
            unmount(self.mountpoint.as_std_path(), UnmountFlags::empty())
                .map_err(|error| failed("unmount", &self.mountpoint, error.into()))?;
        }
        Ok(())
    }

    /// Waits until no other program has the device for itself. A killed upgrader leaves the
    /// `mkfs.ext4` or `e2fsck` that it had started, and two at once would spoil the file system.
    fn wait_until_free(&self) -> Result<(), SystemError> {
        let (attempts, pause) = PATIENCE;
        for attempt in 0..attempts {
            let opened = File::options()
                .read(true)
                .custom_flags(OFlags::EXCL.bits().cast_signed())
                .open(&self.device);
            match opened {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy => {
                    return Err(failed("open", &self.device, error));
                }
                Err(_) => {}
            }
            if attempt == 0 {
                log(&format!(
                    "waiting for another program to let go of `{}`",
                    self.device
                ));
            }
            sleep(pause);
        }
        let device = self.device.clone();
        Err(SystemError::Busy { device })
    }

    /// Whether the device, and only it, is mounted on its mount point and nowhere else.
    fn mounted_here(&self) -> Result<bool, SystemError> {
        let path = Utf8Path::new("/proc/self/mountinfo");
        let table = std::fs::read_to_string(path).map_err(|error| failed("read", path, error))?;
        let number = self.number()?;
        let mountpoint = self
            .mountpoint
            .canonicalize_utf8()
            .map_err(|error| failed("find", &self.mountpoint, error))?;
        let mut here = false;
        for (mounted, on) in mounts(&table) {
            match (mounted == number, on == mountpoint) {
                (true, true) => here = true,
                (true, false) => {
                    let device = self.device.clone();
                    return Err(SystemError::InUse {
                        device,
                        mountpoint: on,
                    });
                }
                (false, true) => {
                    let (device, mountpoint) = (self.device.clone(), mountpoint);
                    return Err(SystemError::Occupied { device, mountpoint });
                }
                (false, false) => {}
            }
        }
        Ok(here)
    }

    /// The device's number as mount tables write it.
    fn number(&self) -> Result<String, SystemError> {
        let meta = self
            .device
            .metadata()
            .map_err(|error| failed("find", &self.device, error))?;
        if !meta.file_type().is_block_device() {
            let path = self.device.clone();
            return Err(SystemError::Kind {
                path,
                wanted: "block device",
            });
        }
        Ok(format!("{}:{}", major(meta.rdev()), minor(meta.rdev())))
    }
}

impl Deployment for Device {
    fn check(&self) -> Result<(), SystemError> {
        if !self.mountpoint.is_dir() {
            let path = self.mountpoint.clone();
            return Err(SystemError::Kind {
                path,
                wanted: "directory",
            });
        }
        self.mounted_here()?;
        for program in [MKFS.0, FSCK.0] {
            // Asked for its version it does nothing.
            Command::new(program)
                .arg("-V")
                .output()
                .map_err(|source| SystemError::Run { program, source })?;
        }
        Ok(())
    }

    fn capacity(&self) -> Result<Option<u64>, SystemError> {
        let size = File::open(&self.device).and_then(|mut device| device.seek(SeekFrom::End(0)));
        let size = size.map_err(|error| failed("ask for the size of", &self.device, error))?;
        Ok(Some(size))
    }

    fn format(&self) -> Result<(), SystemError> {
        self.leave()?;
        self.wait_until_free()?;
        run(MKFS.0, &MKFS.1, &self.device, 0)?;
        File::open(&self.device)
            .and_then(|device| device.sync_all())
            .map_err(|error| failed("sync", &self.device, error))
    }

    fn mount(&self) -> Result<Root, SystemError> {
        self.leave()?;
        self.wait_until_free()?;
        run(FSCK.0, &FSCK.1, &self.device, CORRECTED)?;
        let (device, mountpoint) = (self.device.as_std_path(), self.mountpoint.as_std_path());
        mount(device, mountpoint, c"ext4", MountFlags::empty(), None)
            .map_err(|error| failed("mount", &self.device, error.into()))?;
        Root::open(mountpoint).map_err(|error| failed("open", &self.mountpoint, error))
    }

    fn unmount(&self, root: Root) -> Result<(), SystemError> {
        root.sync()
            .map_err(|error| failed("sync", &self.mountpoint, error))?;
        // It keeps the mount busy.
        drop(root);
        unmount(self.mountpoint.as_std_path(), UnmountFlags::empty())
            .map_err(|error| failed("unmount", &self.mountpoint, error.into()))
    }
}

fn failed(action: &'static str, path: &Utf8Path, source: io::Error) -> SystemError {
    SystemError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Runs a program on the device; its status may be up to `worst`.
fn run(
    program: &'static str,
    options: &[&str],
    device: &Utf8Path,
    worst: i32,
) -> Result<(), SystemError> {
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

/// Device numbers and mount points of a mount table (`proc(5)`, `mountinfo`).
fn mounts(table: &str) -> impl Iterator<Item = (&str, Utf8PathBuf)> {
    table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let number = fields.next()?;
        Some((number, unescaped(fields.nth(1)?)))
    })
}

/// Blanks in mount points are written as `\040` and the like.
fn unescaped(field: &str) -> Utf8PathBuf {
    let path = field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n");
    path.replace("\\134", "\\").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_tables_are_read() {
        let table = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
                     37 35 7:3 / /a\\040b\\134c rw - ext4 /dev/loop3 rw\n";
        let got: Vec<_> = mounts(table).collect();
        assert_eq!(got, [("98:0", "/mnt2".into()), ("7:3", r"/a b\c".into())]);
    }
}

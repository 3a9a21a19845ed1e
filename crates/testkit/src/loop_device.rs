//! A block device for a test: a loop device over a file.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use tempfile::NamedTempFile;

/// How often to try to unmount what is in use, and how long to wait in between: five seconds.
const ATTEMPTS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// A loop device; unmounted and detached when dropped, also by a test that fails.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its device node.
    pub path: String,
    file: Option<NamedTempFile>,
}

impl LoopDevice {
    /// A device of `len` bytes over a file of its own; none where that is not allowed, which only
    /// root is.
    pub fn attach(len: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let file = NamedTempFile::new().unwrap();
        file.as_file().set_len(len).unwrap();
        let mut device = Self::over(file.path(), 0..len);
        device.file = Some(file);
        Some(device)
    }

    /// A device over these bytes of a file, like a partition of a disk.
    ///
    /// # Panics
    /// If this is not root, or the kernel refuses.
    pub fn over(file: &Path, part: Range<u64>) -> Self {
        let attached = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(format!("--offset={}", part.start))
            .arg(format!("--sizelimit={}", part.end - part.start))
            .arg(file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&attached.stderr);
        assert!(attached.status.success(), "{said}");
        let path = String::from_utf8(attached.stdout).unwrap();
        Self {
            path: path.trim().to_owned(),
            file: None,
        }
    }

    /// Mounts the file system that is on it.
    ///
    /// # Panics
    /// If there is none.
    pub fn mount(&self, on: &Path) {
        let mounted = Command::new("mount").arg(&self.path).arg(on).output();
        let mounted = mounted.unwrap();
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "{said}");
    }

    /// Unmounts it, wherever and however often it is mounted. A program that another thread
    /// is just starting has for a moment what is open here, so that it is tried more than once.
    pub fn unmount(&self) {
        for _ in 0..ATTEMPTS {
            if !self.is_mounted() {
                return;
            }
            let unmounted = Command::new("umount").arg(&self.path).output();
            if !unmounted.is_ok_and(|done| done.status.success()) {
                sleep(PAUSE);
            }
        }
    }

    /// Whether it is mounted anywhere that the calling thread can see.
    fn is_mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        // `proc(5)`: what follows the dash is the file system's type and its device.
        let devices = table.lines().filter_map(|line| {
            let (_, described) = line.split_once(" - ")?;
            described.split(' ').nth(1)
        });
        devices.collect::<Vec<_>>().contains(&self.path.as_str())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        self.unmount();
        let _ = Command::new("losetup").args(["-d", &self.path]).status();
    }
}

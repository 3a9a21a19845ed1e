//! A file system that is soon full.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system in memory over a directory, taken away when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `size`, for instance `1m`; none where that is not allowed, which only root is.
    pub fn mount(place: impl AsRef<Path>, size: &str) -> Option<Self> {
        let place = place.as_ref().to_owned();
        if mount(&place, &format!("size={size}")) {
            return Some(Self { place });
        }
        eprintln!("not tested: only root may mount a small file system");
        None
    }

    /// Changes its size.
    pub fn resize(&self, size: &str) {
        assert!(mount(&self.place, &format!("remount,size={size}")));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.place).status();
    }
}

fn mount(place: &Path, options: &str) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", options, "none"]);
    let mounted = mount.arg(place).output();
    mounted.is_ok_and(|out| out.status.success())
}

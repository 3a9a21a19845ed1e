//! A system in a file that holds a file system, mounted over a loop device while it is changed.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::mount::{UnmountFlags, unmount};
use system_image_delta::Root;

use super::device::Device;
use super::loopback::{self, Loop};
use super::{Storage, SystemError, failed, mounts};
use crate::config::{Filesystem, Mounted};

/// The file, its size when it is made, and its mount point.
#[derive(Debug)]
pub struct Image {
    file: Utf8PathBuf,
    mountpoint: Utf8PathBuf,
    filesystem: Filesystem,
    size: u64,
    /// Held from the mount on until the file system is unmounted.
    attached: RefCell<Option<(Loop, Device)>>,
}

impl Image {
    /// For the file of the settings.
    pub fn new(mounted: Mounted<Utf8PathBuf>, size: u64) -> Self {
        Self {
            file: mounted.on,
            mountpoint: mounted.mountpoint,
            filesystem: mounted.filesystem,
            size,
            attached: RefCell::new(None),
        }
    }

    /// Unmounts what an interrupted run left, and nothing else; its loop device goes with it.
    fn leave(&self) -> Result<(), SystemError> {
        let mountpoint = self
            .mountpoint
            .canonicalize_utf8()
            .map_err(|error| failed("find", &self.mountpoint, error))?;
        loop {
            let ours = loopback::over(&self.file);
            let mut here = false;
            for mount in mounts::all()? {
                let is_ours = ours.contains(&mount.number);
                if is_ours && mount.on != mountpoint {
                    return Err(SystemError::InUse {
                        device: self.file.clone(),
                        mountpoint: mount.on,
                    });
                }
                if mount.on == mountpoint {
                    here = is_ours;
                    if !is_ours {
                        return Err(SystemError::Occupied {
                            device: self.file.clone(),
                            mountpoint,
                        });
                    }
                }
            }
            if !here {
                return Ok(());
            }
            unmount(mountpoint.as_std_path(), UnmountFlags::empty())
                .map_err(|error| failed("unmount", &mountpoint, error.into()))?;
        }
    }

    fn attach(&self) -> Result<(Loop, Device), SystemError> {
        let attached =
            Loop::attach(&self.file).map_err(|error| failed("attach", &self.file, error))?;
        let device = Device::new(
            attached.path.clone(),
            self.mountpoint.clone(),
            self.filesystem,
        );
        Ok((attached, device))
    }

    fn mounted(
        &self,
        mount: impl Fn(&Device) -> Result<Root, SystemError>,
    ) -> Result<Root, SystemError> {
        self.leave()?;
        let (attached, device) = self.attach()?;
        let root = mount(&device)?;
        *self.attached.borrow_mut() = Some((attached, device));
        Ok(root)
    }
}

impl Storage for Image {
    fn check(&self) -> Result<(), SystemError> {
        let wanted = "directory";
        for path in [Some(&*self.mountpoint), self.file.parent()]
            .into_iter()
            .flatten()
        {
            if !path.is_dir() {
                let path = path.to_owned();
                return Err(SystemError::Kind { path, wanted });
            }
        }
        self.leave()
    }

    fn capacity(&self) -> Result<Option<u64>, SystemError> {
        match self.file.metadata() {
            Ok(found) if found.is_file() => Ok(Some(found.len())),
            Ok(_) => Err(SystemError::Kind {
                path: self.file.clone(),
                wanted: "file",
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(self.size)),
            Err(error) => Err(failed("look at", &self.file, error)),
        }
    }

    fn format(&self) -> Result<(), SystemError> {
        self.leave()?;
        let made = make(&self.file, self.size);
        made.map_err(|error| failed("make", &self.file, error))?;
        let (_attached, device) = self.attach()?;
        device.format()
    }

    fn mount(&self) -> Result<Root, SystemError> {
        self.mounted(Storage::mount)
    }

    fn look(&self) -> Result<Root, SystemError> {
        self.mounted(Storage::look)
    }

    fn unmount(&self, root: Root) -> Result<(), SystemError> {
        match self.attached.borrow_mut().take() {
            Some((_attached, device)) => device.unmount(root),
            None => Ok(()),
        }
    }
}

/// Makes an empty file in place of what is there: no byte of an old one is left in it.
fn make(path: &Utf8Path, size: u64) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.set_len(size)?;
    file.sync_all()
}

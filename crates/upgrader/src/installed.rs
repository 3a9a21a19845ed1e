//! What patches read: the installed system and its partitions.

use std::fs::File;
use std::io;

use system_image_delta::patch::tree::Installed;
use system_image_delta::{MemberPath, Root};

use crate::config::Settings;
use crate::deploy::{DeployError, slot};

/// The installed system, and the partitions that belong to it.
#[derive(Debug)]
pub struct InstalledSystem<'a> {
    root: &'a Root,
    settings: &'a Settings,
    /// The slot that runs, where there are slots.
    running: Option<String>,
}

impl<'a> InstalledSystem<'a> {
    /// The system whose tree this is.
    pub fn new(settings: &'a Settings, root: &'a Root) -> Result<Self, DeployError> {
        let running = settings.slots().map(slot::running).transpose()?;
        Ok(Self {
            root,
            settings,
            running: running.map(|slot| slot.to_string()),
        })
    }
}

impl Installed for InstalledSystem<'_> {
    fn file(&self, path: &MemberPath) -> io::Result<Option<File>> {
        self.root.file(path)
    }

    fn partition(&self, name: &str) -> io::Result<Option<File>> {
        let mut known = self.settings.partitions.iter();
        let Some((_, device)) = known.find(|(known, _)| known == name) else {
            return Ok(None);
        };
        let found = device.find_in(self.running.as_deref());
        found.ok().map(File::open).transpose()
    }
}

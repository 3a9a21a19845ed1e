//! A full image in a new image file: it takes the place of the old file in one step.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use system_image_delta::Root;
use system_image_durable as durable;

use super::{DeployError, Deployment, State, failed};
use crate::config::Mounted;
use crate::storage::{Image, Storage};

/// Room that user data keeps for itself, in bytes.
const MARGIN: u64 = 32 << 20;

/// The file, its other names, and the new one while it is mounted.
#[derive(Debug)]
pub struct NewImage {
    file: Utf8PathBuf,
    new: Utf8PathBuf,
    names: Vec<Utf8PathBuf>,
    storage: Image,
    tree: Option<Root>,
}

impl NewImage {
    /// For the file of the settings.
    pub fn new(mounted: Mounted<Utf8PathBuf>, names: Vec<Utf8PathBuf>, size: u64) -> Self {
        let file = mounted.on.clone();
        let new = Utf8PathBuf::from(format!("{file}.new"));
        let on = new.clone();
        Self {
            file,
            new,
            names,
            storage: Image::new(Mounted { on, ..mounted }, size),
            tree: None,
        }
    }
}

impl Deployment for NewImage {
    fn check(&self) -> Result<(), DeployError> {
        Ok(self.storage.check()?)
    }

    fn open(&mut self, _is_full: bool, bytes: u64) -> Result<(), DeployError> {
        let parent = self.file.parent().unwrap_or(Utf8Path::new("/"));
        let free = Root::open(parent.as_std_path()).and_then(|parent| parent.free());
        let free = free.map_err(failed("ask for the room that is left"))?;
        if free < bytes.saturating_add(MARGIN) {
            return Err(DeployError::NoRoom);
        }
        self.storage.format()?;
        self.tree = Some(self.storage.mount()?);
        Ok(())
    }

    fn tree(&self) -> &Root {
        self.tree
            .as_ref()
            .expect("a tree is asked for after it was opened")
    }

    fn seal(&mut self) -> Result<(), DeployError> {
        self.put_away()?;
        let sync = || File::open(&self.new)?.sync_all();
        sync().map_err(failed("write the new image file to the disk"))
    }

    fn commit(&mut self) -> Result<(), DeployError> {
        let place = || -> io::Result<()> {
            // Without it, this step was taken already.
            if self.new.exists() {
                durable::rename(self.new.as_std_path(), self.file.as_std_path())?;
            }
            fs::set_permissions(&self.file, Permissions::from_mode(0o600))?;
            link_names(&self.file, &self.names)
        };
        place().map_err(failed("put the new image file in the place of the old one"))
    }

    fn finish(&mut self) -> Result<(), DeployError> {
        self.put_away()
    }

    fn abandon(&mut self) -> Result<(), DeployError> {
        self.put_away()?;
        durable::remove(&self.new).map_err(failed("remove the new image file"))
    }

    fn put_away(&mut self) -> Result<(), DeployError> {
        match self.tree.take() {
            Some(tree) => Ok(self.storage.unmount(tree)?),
            None => Ok(()),
        }
    }

    fn state(&mut self) -> Result<State, DeployError> {
        // Put in place, and not noted: nothing is lost if it is made once more.
        Ok(if self.new.exists() {
            State::Prepared
        } else {
            State::Nothing
        })
    }
}

/// Gives the image file its other names.
pub fn link_names(file: &Utf8Path, names: &[Utf8PathBuf]) -> io::Result<()> {
    for name in names {
        let staged = Utf8PathBuf::from(format!("{name}.new"));
        durable::remove(&staged)?;
        fs::hard_link(file, &staged)?;
        durable::rename(staged.as_std_path(), name.as_std_path())?;
        // Two names of one file: renaming one over the other does nothing.
        durable::remove(&staged)?;
    }
    Ok(())
}

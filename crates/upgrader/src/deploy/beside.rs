//! A new tree on the system's own file system, beside the old one.
//!
//! For deltas its files are those of the old tree, by hard links: nothing is copied, and what the
//! deltas replace stays in the old tree until the end.

use system_image_delta::Root;
use system_image_tree::attributes::Attributes;
use system_image_tree::links;

use super::{DeployError, Deployment, failed, swap};
use crate::log;
use crate::storage::Storage;

/// Room for directories, links and the file system's own tables, in bytes. If that is not enough, the
/// disk is full before anything was changed.
const MARGIN: u64 = 8 << 20;

/// The storage, and what is open of it.
#[derive(Debug)]
pub struct Beside {
    storage: Box<dyn Storage>,
    root: Option<Root>,
    tree: Option<Root>,
}

impl Beside {
    /// On this storage.
    pub fn new(storage: Box<dyn Storage>) -> Self {
        Self {
            storage,
            root: None,
            tree: None,
        }
    }

    fn root(&mut self) -> Result<&Root, DeployError> {
        let root = match self.root.take() {
            Some(root) => root,
            None => self.storage.mount()?,
        };
        Ok(self.root.insert(root))
    }
}

impl Deployment for Beside {
    fn check(&self) -> Result<(), DeployError> {
        Ok(self.storage.check()?)
    }

    fn open(&mut self, is_full: bool, bytes: u64) -> Result<(), DeployError> {
        let root = self.root()?;
        if swap::is_under_way(root).map_err(failed("look for an interrupted update"))? {
            // What says so is the tree itself, whatever became of the command file.
            log("an earlier update is being put in place first");
            swap::swap(root).map_err(failed("put an earlier update in place"))?;
        }
        swap::clear(root).map_err(failed("remove what an interrupted update left"))?;
        let free = root
            .free()
            .map_err(failed("ask for the room that is left"))?;
        if free < bytes.saturating_add(MARGIN) {
            return Err(DeployError::NoRoom);
        }
        let open = || -> std::io::Result<Root> {
            let attributes = Attributes::of(root)?;
            let tree = swap::staging(root)?.make_child(swap::NEW)?;
            if is_full {
                attributes.give(&tree)?;
            } else {
                links::link(root, &tree)?;
            }
            Ok(tree)
        };
        let tree = open().map_err(failed("begin a tree beside the system"))?;
        self.tree = Some(tree);
        Ok(())
    }

    fn tree(&self) -> &Root {
        self.tree
            .as_ref()
            .expect("a tree is asked for after it was opened")
    }

    fn seal(&mut self) -> Result<(), DeployError> {
        self.root()?
            .sync()
            .map_err(failed("write the new system to the disk"))
    }

    fn commit(&mut self) -> Result<(), DeployError> {
        self.tree = None;
        swap::swap(self.root()?).map_err(failed("put the new system in the place of the old one"))
    }

    fn finish(&mut self) -> Result<(), DeployError> {
        let root = self.root()?;
        swap::clear(root).map_err(failed("remove the old system"))?;
        root.sync()
            .map_err(failed("write the system to the disk"))?;
        self.put_away()
    }

    fn abandon(&mut self) -> Result<(), DeployError> {
        self.tree = None;
        if self.root.is_none() {
            return Ok(());
        }
        let cleared = self
            .root()
            .and_then(|root| swap::clear(root).map_err(failed("remove what was prepared")));
        self.put_away()?;
        cleared
    }

    fn put_away(&mut self) -> Result<(), DeployError> {
        self.tree = None;
        match self.root.take() {
            Some(root) => Ok(self.storage.unmount(root)?),
            None => Ok(()),
        }
    }

    fn is_committing(&mut self) -> Result<bool, DeployError> {
        swap::is_under_way(self.root()?).map_err(failed("look for an interrupted update"))
    }
}

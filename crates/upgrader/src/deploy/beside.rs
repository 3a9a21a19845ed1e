//! A new tree on the system's own file system, beside the old one.
//!
//! For deltas its files are those of the old tree, by hard links: nothing is copied, and what the
//! deltas replace stays in the old tree until the end.

use std::io;

use system_image_delta::Root;
use system_image_tree::attributes::Attributes;
use system_image_tree::links;

use super::swap::{self, Record, Stage};
use super::{DeployError, Deployment, State, failed};
use crate::log;
use crate::storage::Storage;

/// Room for directories, links and the file system's own tables, in bytes. If that is not enough, the
/// disk is full before anything was changed.
const MARGIN: u64 = 8 << 20;

/// The storage, and what is open of it.
#[derive(Debug)]
pub struct Beside {
    storage: Box<dyn Storage>,
    record: Record,
    root: Option<Root>,
    tree: Option<Root>,
}

impl Beside {
    /// On this storage.
    pub fn new(storage: Box<dyn Storage>, record: Record) -> Self {
        Self {
            storage,
            record,
            root: None,
            tree: None,
        }
    }

    /// Does something with the file system, mounted if it is not yet, and its record.
    fn with<T>(
        &mut self,
        action: &'static str,
        take: impl FnOnce(&Root, &Record) -> io::Result<T>,
    ) -> Result<T, DeployError> {
        let root = match self.root.take() {
            Some(root) => root,
            None => self.storage.mount()?,
        };
        let root = self.root.insert(root);
        take(root, &self.record).map_err(failed(action))
    }

    fn stage(&mut self) -> Result<Stage, DeployError> {
        self.with("look for an interrupted update", |root, _| {
            swap::stage(root)
        })
    }
}

impl Deployment for Beside {
    fn check(&self) -> Result<(), DeployError> {
        Ok(self.storage.check()?)
    }

    fn open(&mut self, is_full: bool, bytes: u64) -> Result<(), DeployError> {
        if self.stage()? == Stage::UnderWay {
            // What says so is the tree itself, whatever became of the command file.
            log("an earlier update is being put in place first");
            self.with("put an earlier update in place", swap::swap)?;
        }
        self.with("remove what an interrupted update left", swap::clear)?;
        let free = self.with("ask for the room that is left", |root, _| root.free())?;
        if free < bytes.saturating_add(MARGIN) {
            return Err(DeployError::NoRoom);
        }
        let tree = self.with("begin a tree beside the system", |root, record| {
            let attributes = Attributes::of(root)?;
            let tree = swap::staging(root, record)?.make_child(swap::NEW)?;
            if !is_full {
                links::link(root, &tree)?;
            }
            attributes.give(&tree)?;
            Ok(tree)
        })?;
        self.tree = Some(tree);
        Ok(())
    }

    fn tree(&self) -> &Root {
        self.tree
            .as_ref()
            .expect("a tree is asked for after it was opened")
    }

    fn seal(&mut self) -> Result<(), DeployError> {
        self.with("write the new system to the disk", |root, _| root.sync())
    }

    fn commit(&mut self) -> Result<(), DeployError> {
        self.tree = None;
        self.with("put the new system in the place of the old one", swap::swap)
    }

    fn finish(&mut self) -> Result<(), DeployError> {
        self.with("remove the old system", swap::clear)?;
        self.put_away()
    }

    fn abandon(&mut self) -> Result<(), DeployError> {
        self.tree = None;
        if self.root.is_none() {
            return Ok(());
        }
        let cleared = self.with("remove what was prepared", swap::clear);
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

    fn state(&mut self) -> Result<State, DeployError> {
        Ok(match self.stage()? {
            Stage::Nothing => State::Nothing,
            Stage::New => State::Prepared,
            Stage::UnderWay | Stage::Placed => State::Committing,
        })
    }
}

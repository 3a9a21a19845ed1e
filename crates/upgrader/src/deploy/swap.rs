//! A tree that was prepared beside another one takes its place.
//!
//! Directories cannot change places in one step when they are the top of a file system, so their
//! entries are renamed one by one. How far that has got is seen from names alone, below the directory
//! `.system-image`:
//!
//! | name | meaning |
//! | --- | --- |
//! | `new` | a tree that is being prepared, or sealed |
//! | `ready` | a tree that takes the place: what is at the top is old, and moves to `old` |
//! | `placing` | everything old has moved; what is left in here moves to the top |
//!
//! Each step may be repeated, and after a cut the next start finishes the last two.

use std::io;
use std::os::fd::AsFd;

use system_image_delta::Root;
use system_image_tree::attributes::Attributes;
use system_image_tree::{STAGING_NAME, is_apart, remove};

/// A tree that is being prepared.
pub const NEW: &str = "new";
const READY: &str = "ready";
const PLACING: &str = "placing";
const OLD: &str = "old";

/// Makes or opens the directory in which trees are prepared, leaving no trace at the top.
pub fn staging(root: &Root) -> io::Result<Root> {
    if let Some(staging) = root.child_if_there(STAGING_NAME)? {
        return Ok(staging);
    }
    let before = Attributes::of(root)?;
    let staging = root.make_child(STAGING_NAME)?;
    before.give(root)?;
    Ok(staging)
}

/// Removes that directory and all in it, leaving no trace at the top.
pub fn clear(root: &Root) -> io::Result<()> {
    let before = Attributes::of(root)?;
    if root.remove(STAGING_NAME)? {
        before.give(root)?;
    }
    Ok(())
}

/// Whether a tree has begun to take the place of the other one.
pub fn is_under_way(root: &Root) -> io::Result<bool> {
    match root.child_if_there(STAGING_NAME)? {
        Some(staging) => Ok(staging.has(READY)? || staging.has(PLACING)?),
        None => Ok(false),
    }
}

/// Has the tree that was prepared take the place, or goes on with it. Without one nothing happens.
pub fn swap(root: &Root) -> io::Result<()> {
    let Some(staging) = root.child_if_there(STAGING_NAME)? else {
        return Ok(());
    };
    if staging.has(NEW)? {
        staging.rename(NEW, &staging, READY)?;
        root.sync()?;
    }
    if staging.has(READY)? {
        let old = staging.make_child(OLD)?;
        move_all(root, &old)?;
        root.sync()?;
        staging.rename(READY, &staging, PLACING)?;
        root.sync()?;
    }
    if let Some(placing) = staging.child_if_there(PLACING)? {
        let attributes = Attributes::of(&placing)?;
        move_all(&placing, root)?;
        attributes.give(root)?;
        root.sync()?;
        staging.remove(PLACING)?;
    }
    Ok(())
}

fn move_all(from: &Root, to: &Root) -> io::Result<()> {
    let before = Attributes::of(from)?;
    for name in remove::names(from.as_fd())? {
        if !is_apart(name.to_bytes()) {
            rustix::fs::renameat(from, &name, to, &name)?;
        }
    }
    // The new top still has to be told from the old one after a cut.
    before.give(from)
}

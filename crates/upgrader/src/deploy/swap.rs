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
//! | `old` | what was there before |
//!
//! Each step may be repeated, and after a cut the next start finishes them. All this changes the time
//! of the top itself, so what the top must have in the end stands in a [`Record`] elsewhere.

use std::io;
use std::os::fd::AsFd;

use system_image_delta::Root;
use system_image_tree::attributes::Attributes;
use system_image_tree::files::Access;
use system_image_tree::{PART_NAME, STAGING_NAME, TOP_NAME, is_apart, remove};

/// A tree that is being prepared.
pub const NEW: &str = "new";
const READY: &str = "ready";
const PLACING: &str = "placing";
const OLD: &str = "old";

/// The record's name among user data.
pub const RECORD: &str = TOP_NAME;

/// Longest record that is read, in bytes.
const MAX_RECORD: u64 = 256 << 10;

/// The attributes that the top of the system must have when all is over, in a file among user data.
#[derive(Debug)]
pub struct Record {
    data: Root,
}

impl Record {
    /// Among this user data.
    pub fn new(data: Root) -> Self {
        Self { data }
    }

    fn write(&self, attributes: &Attributes) -> io::Result<()> {
        let access = Access {
            mode: 0o600,
            owner: None,
        };
        let text = attributes.to_text();
        self.data.write_file(RECORD, text.as_bytes(), access, 0o755)
    }

    fn read(&self) -> io::Result<Option<Attributes>> {
        let text = self.data.read_file(RECORD, MAX_RECORD)?;
        Ok(text.and_then(|text| Attributes::parse(&String::from_utf8_lossy(&text))))
    }

    fn remove(&self) -> io::Result<()> {
        // One that a cut left incomplete, too.
        self.data.remove_file(PART_NAME)?;
        self.data.remove_file(RECORD)
    }
}

/// Makes the directory in which trees are prepared, noting first what the top is like.
pub fn staging(root: &Root, record: &Record) -> io::Result<Root> {
    if let Some(staging) = root.child_if_there(STAGING_NAME)? {
        return Ok(staging);
    }
    record.write(&Attributes::of(root)?)?;
    root.make_child(STAGING_NAME)
}

/// Removes that directory and all in it, and gives the top what it must have.
pub fn clear(root: &Root, record: &Record) -> io::Result<()> {
    root.remove(STAGING_NAME)?;
    if let Some(attributes) = record.read()? {
        attributes.give(root)?;
    }
    root.sync()?;
    record.remove()
}

/// How far a tree has got on its way to the place of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is none.
    Nothing,
    /// It may be complete or not.
    New,
    /// It is taking the place.
    UnderWay,
    /// It has taken it; the old one is still there.
    Placed,
}

/// Looks how far it has got.
pub fn stage(root: &Root) -> io::Result<Stage> {
    let Some(staging) = root.child_if_there(STAGING_NAME)? else {
        return Ok(Stage::Nothing);
    };
    Ok(if staging.has(READY)? || staging.has(PLACING)? {
        Stage::UnderWay
    } else if staging.has(NEW)? {
        Stage::New
    } else if staging.has(OLD)? {
        Stage::Placed
    } else {
        Stage::Nothing
    })
}

/// Has the tree that was prepared take the place, or goes on with it.
pub fn swap(root: &Root, record: &Record) -> io::Result<()> {
    let Some(staging) = root.child_if_there(STAGING_NAME)? else {
        return Ok(());
    };
    if let Some(new) = staging.child_if_there(NEW)? {
        record.write(&Attributes::of(&new)?)?;
        staging.rename(NEW, &staging, READY)?;
        root.sync()?;
    }
    if staging.has(READY)? {
        move_all(root, &staging.make_child(OLD)?)?;
        root.sync()?;
        staging.rename(READY, &staging, PLACING)?;
        root.sync()?;
    }
    if let Some(placing) = staging.child_if_there(PLACING)? {
        move_all(&placing, root)?;
        root.sync()?;
        staging.remove(PLACING)?;
    }
    Ok(())
}

fn move_all(from: &Root, to: &Root) -> io::Result<()> {
    for name in remove::names(from.as_fd())? {
        if !is_apart(name.to_bytes()) {
            rustix::fs::renameat(from, &name, to, &name)?;
        }
    }
    Ok(())
}

//! Garbage collection: files of ours that no document has named for a while (server spec, section
//! 15, without what section 21, 30 says of it).
//!
//! Clients and caches hold an index for a time after it was replaced, so its files stay until they
//! have been unnamed for a grace period. When each was first seen so is written down beside the
//! tree; should that be lost, the period only begins again. What is not ours is never touched.

use std::collections::BTreeMap;

use anyhow::Context;
use camino::Utf8PathBuf;
use serde::Serialize;
use system_image_durable as durable;
use system_image_formats::checksum::Sha256;
use system_image_formats::name::TreePath;
use system_image_store::Store;
use system_image_trust::Signers;

use crate::history::Event;
use crate::published::{DAY, MAX_SIGNATURE};
use crate::references::References;
use crate::tree::Tree;

/// Largest note of unnamed files that is read, in bytes.
const MAX_NOTE: usize = 256 << 20;

/// What garbage collection found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Files that were removed.
    pub removed: Vec<String>,
    /// Their bytes.
    pub bytes: u64,
    /// Files that nothing names, and when each may go, in Unix seconds.
    pub waiting: BTreeMap<String, i64>,
    /// Files that are not ours.
    pub foreign: Vec<String>,
}

/// A file that no document names.
struct Unnamed {
    path: TreePath,
    size: u64,
}

/// A tree to be cleaned.
#[expect(
    missing_debug_implementations,
    reason = "a store has no form for people"
)]
pub struct Ground<'a> {
    /// Its files.
    pub store: &'a dyn Store,
    /// Those that must stay.
    pub references: References,
    /// Who may have signed what is ours.
    pub signers: Signers<'a>,
    /// Where it is written down since when files are unnamed; nowhere in a dry run.
    pub note: Note,
    /// The clock, in Unix seconds.
    pub now: i64,
}

/// Removes what has been unnamed for the grace period; for all of it if that is 0.
pub fn collect(tree: &Tree, grace_days: u32) -> anyhow::Result<Collected> {
    let note = Note {
        place: tree.root().state().join("unnamed.json"),
        keeps: tree.changes().is_none(),
    };
    let ground = Ground {
        store: tree.store(),
        references: References::of(tree)?,
        signers: tree.signers(),
        note,
        now: tree.now(),
    };
    let collected = sweep(&ground, grace_days)?;
    if !collected.removed.is_empty() {
        let event = Event::new("gc").with("files", collected.removed.len());
        tree.record(&event.with("bytes", collected.bytes));
    }
    Ok(collected)
}

/// As [`collect`], of any tree.
pub fn sweep(ground: &Ground<'_>, grace_days: u32) -> anyhow::Result<Collected> {
    let grace = i64::from(grace_days) * DAY;
    let (unnamed, foreign) = unnamed(ground)?;
    let seen = ground.note.load()?;
    let mut still = BTreeMap::new();
    let mut collected = Collected {
        foreign,
        ..Collected::default()
    };
    let mut due = Vec::new();
    for file in unnamed {
        let relative = file.path.relative();
        let first = seen.get(relative).copied().unwrap_or(ground.now);
        // A clock that was set back must not keep a file for ever.
        let first = first.min(ground.now);
        if first + grace <= ground.now {
            due.push(file);
        } else {
            collected.waiting.insert(relative.to_owned(), first + grace);
            still.insert(relative.to_owned(), first);
        }
    }
    // First what is known, then what is done: a crash in between costs nothing.
    ground.note.save(&still)?;
    for file in due {
        if is_document(&file.path) {
            ground.store.remove_document(&file.path)?;
        } else {
            ground.store.remove(&file.path)?;
        }
        collected.bytes += file.size;
        collected.removed.push(file.path.relative().to_owned());
    }
    Ok(collected)
}

/// The files of ours that no document names, and the names of those that are not ours.
fn unnamed(ground: &Ground<'_>) -> anyhow::Result<(Vec<Unnamed>, Vec<String>)> {
    let mut candidates = Vec::new();
    let mut foreign = Vec::new();
    ground.store.each(&mut |path| {
        if ground.references.has(path) {
            return;
        }
        match path
            .parse::<TreePath>()
            .or_else(|_| format!("/{path}").parse())
        {
            Ok(path) => candidates.push(path),
            Err(_) => foreign.push(path.to_owned()),
        }
    })?;
    let mut ours = Vec::new();
    for path in candidates {
        if is_ours(ground, &path)? {
            // What a crash left of a document has no size.
            let size = ground.store.size(&path)?.unwrap_or(0);
            ours.push(Unnamed { path, size });
        } else {
            foreign.push(path.relative().to_owned());
        }
    }
    foreign.sort();
    Ok((ours, foreign))
}

/// Whether this server, or the original before it, has written a file: by the names that only we
/// give, else by a signature of ours.
fn is_ours(ground: &Ground<'_>, path: &TreePath) -> anyhow::Result<bool> {
    let relative = path.relative();
    let plain = relative.strip_suffix(".new").unwrap_or(relative);
    let plain = plain.strip_suffix(".asc").unwrap_or(plain);
    let plain = plain.strip_suffix(".new").unwrap_or(plain);
    let (directory, name) = plain.rsplit_once('/').unwrap_or(("", plain));
    let side = name.strip_suffix(".json");
    let stem = name
        .strip_suffix(".tar.xz")
        .or_else(|| side.unwrap_or(name).strip_suffix(".patch"))
        .or(side);
    let Some(stem) = stem else {
        return Ok(false);
    };
    let last = stem.rsplit_once('-').map(|(_, last)| last);
    if directory == "pool" && last.is_some_and(|hash| hash.parse::<Sha256>().is_ok()) {
        return Ok(true);
    }
    let is_version = stem
        .strip_prefix("version-")
        .is_some_and(|number| number.parse::<u32>().is_ok());
    if is_version && !directory.is_empty() {
        return Ok(true);
    }
    // Indexes, device keyrings, and names without a hash of old trees.
    let document: TreePath = format!("/{plain}").parse()?;
    if ground.store.size(&document)?.is_none() {
        // What a crash left of a document: only we have a directory for one.
        return Ok(relative == plain && name == "index.json");
    }
    let signature = document.with_suffix(".asc")?;
    let Some(signature) = ground.store.read(&signature, MAX_SIGNATURE)? else {
        return Ok(false);
    };
    let Some(data) = ground.store.open(&document)? else {
        return Ok(false);
    };
    Ok(ground.signers.verify_reader(data, &signature).is_ok())
}

/// Whether a file is replaced together with its signature.
fn is_document(path: &TreePath) -> bool {
    let name = path.relative().rsplit('/').next().unwrap_or_default();
    name == "index.json" || name == "device.tar.xz"
}

/// Where it is written down when each unnamed file was first seen so, in Unix seconds.
#[derive(Debug)]
pub struct Note {
    /// The file.
    pub place: Utf8PathBuf,
    /// Whether it is to be written; not so in a dry run.
    pub keeps: bool,
}

impl Note {
    fn load(&self) -> anyhow::Result<BTreeMap<String, i64>> {
        let bytes = durable::read(&self.place, MAX_NOTE);
        let bytes = bytes.with_context(|| format!("cannot read `{}`", self.place))?;
        // One that is damaged is as good as none.
        let note = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(note.unwrap_or_default())
    }

    fn save(&self, unnamed: &BTreeMap<String, i64>) -> anyhow::Result<()> {
        if !self.keeps {
            return Ok(());
        }
        durable::replace(&self.place, &serde_json::to_vec(unnamed)?, 0o644)
            .with_context(|| format!("cannot write `{}`", self.place))
    }
}

//! Whether the files of a delta image may be applied one by one.
//!
//! An image's files are laid over each other in order. A delta of one of them knows nothing of the
//! others: it would bring back what a later file replaces, or take away what another one holds.
//! Such a delta is not made; a full image is always right.

use std::collections::BTreeSet;
use std::fs::File;

use anyhow::Context;
use system_image_delta::{Archive, Kind, Limits, MemberPath, Reader};

use crate::input::rewound;

/// The names of one file of the new image that are no directories.
#[derive(Debug)]
pub struct Names(BTreeSet<MemberPath>);

impl Names {
    /// Of a canonical tarball.
    pub fn of(tar: &File) -> anyhow::Result<Self> {
        let mut reader = Reader::seeking(rewound(tar)?, Limits::default());
        let mut names = BTreeSet::new();
        while let Some(header) = reader.next_header()? {
            if header.kind != Kind::Directory {
                names.insert(MemberPath::parse(&header.path)?);
            }
        }
        Ok(Self(names))
    }

    /// Whether there is something of that name.
    pub fn has(&self, name: &MemberPath) -> bool {
        self.0.contains(name)
    }

    /// A name here that the delta's list of removals would take away.
    fn removed_by(&self, removed: &BTreeSet<MemberPath>) -> Option<&MemberPath> {
        let gone = |path: &[u8]| removed.contains(path);
        self.0
            .iter()
            .find(|name| gone(name.as_bytes()) || name.ancestors().any(gone))
    }
}

/// What a delta does to names.
#[derive(Debug)]
struct Touched {
    removed: BTreeSet<MemberPath>,
    written: BTreeSet<MemberPath>,
}

fn touched(delta: &File) -> anyhow::Result<Touched> {
    let mut archive = Archive::open(rewound(delta)?, Limits::default())?;
    let system = |path: &MemberPath| MemberPath::parse(&[b"system/", path.as_bytes()].concat());
    let removed = archive
        .removed()
        .iter()
        .map(system)
        .collect::<Result<_, _>>()?;
    let mut written = BTreeSet::new();
    while let Some(member) = archive.next_member()? {
        if member.header.kind != Kind::Directory {
            written.insert(member.path);
        }
    }
    Ok(Touched { removed, written })
}

/// Finds a name of another file of the new image that a delta would leave wrong. A file that comes
/// earlier is replaced by the delta's in the full image too; one that comes `later` is not.
pub fn conflict(delta: &File, other: &Names, later: bool) -> anyhow::Result<Option<MemberPath>> {
    let touched = touched(delta).context("cannot read the delta back")?;
    if let Some(name) = other.removed_by(&touched.removed) {
        return Ok(Some(name.clone()));
    }
    let replaced = touched.written.intersection(&other.0).next();
    Ok(replaced.filter(|_| later).cloned())
}

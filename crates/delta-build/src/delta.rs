//! The classic delta between two images (server spec, section 11): a list of paths to remove and
//! every changed file whole, without the original's omissions (section 21, 1 to 9).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};

use system_image_delta::path::Shown;
use system_image_delta::{Header, Kind, MemberPath, PathError, ReadError, Route};

use crate::compare::{Comparer, Difference, add_parents};
use crate::index::{Index, Side};
use crate::removed::{self, is_misread};
use crate::writer::Writer;

/// What the delta is to carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What to do with members whose time alone has changed.
    pub times: Times,
    /// What to do with directories that are gone.
    pub removal: Removal,
}

/// Modification times of what is the same in everything else.
///
/// The classic format has no entry for metadata alone: to change a file's time, the file has to be
/// carried whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// Carry them: after the delta the tree equals the full image, times included.
    #[default]
    Exact,
    /// Leave them as they are, as the original does: for builds that touch every file. Directories
    /// in which something comes or goes still get theirs, or it would be the time of the update.
    Ignored,
}

/// How names that are gone are listed for removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Removal {
    /// The tops of the trees that are gone. For an archive that alone makes up its directories:
    /// a root file system.
    #[default]
    Trees,
    /// Each name that is not a directory. For an archive that is laid over another one (device
    /// and custom files): the directories may hold files of that one too, so they stay.
    Names,
}

/// What a delta carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Names that the base has not.
    pub added: u64,
    /// Names whose content, metadata or links differ; directories carried for the sake of their
    /// time included.
    pub changed: u64,
    /// Of these, names carried for their time alone.
    pub times_carried: u64,
    /// Names left out although their time differs ([`Times::Ignored`]).
    pub times_ignored: u64,
    /// Lines of `removed`.
    pub removed: u64,
    /// Lines of `removed` that the shells of old recoveries misread: blanks, patterns, backslashes.
    pub misread: Vec<MemberPath>,
    /// Names that are gone and stay on the device all the same: outside of `system/`, or
    /// directories under [`Removal::Names`].
    pub left: u64,
    /// Length of the delta in bytes.
    pub bytes: u64,
}

/// Why there is no delta between two archives. A full image is always possible.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// An archive cannot be read.
    #[error("cannot read the {side} archive")]
    Read {
        /// Which one.
        side: Side,
        /// Why.
        source: ReadError,
    },
    /// A name leads out of the archive.
    #[error("{side} archive, member `{}`: {why}", Shown(.path))]
    Path {
        /// Which archive.
        side: Side,
        /// The name.
        path: Vec<u8>,
        /// What is wrong with it.
        why: PathError,
    },
    /// The archive has something that [`normalise`](crate::normalise::normalise) would change.
    #[error("{side} archive, member `{path}`: {why}; normalise it first")]
    NotCanonical {
        /// Which archive.
        side: Side,
        /// The member.
        path: MemberPath,
        /// What is not canonical.
        why: &'static str,
    },
    /// A hard link to nothing.
    #[error("{side} archive: `{path}` is a hard link to `{}`, which does not come before it", Shown(.target))]
    Link {
        /// Which archive.
        side: Side,
        /// The link.
        path: MemberPath,
        /// What it names.
        target: Vec<u8>,
    },
    /// A member below something that is no directory in the same archive.
    #[error("{side} archive: `{path}` lies below `{}`, which is no directory", Shown(.parent))]
    Through {
        /// Which archive.
        side: Side,
        /// The member.
        path: MemberPath,
        /// What is no directory.
        parent: Vec<u8>,
    },
    /// A name that is gone and that the list of removals cannot express.
    #[error("`{path}` is to be removed, but a name with a line end cannot be listed")]
    Newline {
        /// The name.
        path: MemberPath,
    },
    /// Content cannot be read or the output not be written.
    #[error("cannot write the delta")]
    Copy(#[source] io::Error),
}

/// Writes the delta that takes a device from `base` to `target`, both uncompressed canonical
/// archives, to `out`.
///
/// The first member is `removed`; the others are sorted by the bytes of their paths. A file that
/// has several names is carried under its first one, followed by hard links for the others, so
/// that link structure arrives too. Both archives are read where they lie; memory grows with
/// the number of members only.
pub fn delta(
    base: &File,
    target: &File,
    options: Options,
    out: impl Write,
) -> Result<Summary, DeltaError> {
    let base = Index::read(base, Side::Base)?;
    let target = Index::read(target, Side::Target)?;
    let mut summary = Summary::default();

    let removed = removed::find(&base, &target, options.removal)?;
    summary.removed = removed.paths.len() as u64;
    summary.left = removed.left;
    summary.misread = removed
        .paths
        .iter()
        .filter(|path| is_misread(path))
        .cloned()
        .collect();

    let carried = carried(&base, &target, options, &removed.paths, &mut summary)?;
    summary.added = carried
        .iter()
        .filter(|path| !base.names.contains_key(*path))
        .count() as u64;
    summary.changed = carried.len() as u64 - summary.added;

    let mut writer = Writer::new(out);
    let written = write_removed(&mut writer, &removed.paths)
        .and_then(|()| write_members(&mut writer, &target, &carried))
        .and_then(|()| writer.finish());
    (_, summary.bytes) = written.map_err(DeltaError::Copy)?;
    Ok(summary)
}

/// The names of the target that the delta carries.
fn carried(
    base: &Index<'_>,
    target: &Index<'_>,
    options: Options,
    removed: &BTreeSet<MemberPath>,
    summary: &mut Summary,
) -> Result<BTreeSet<MemberPath>, DeltaError> {
    let mut carried = BTreeSet::new();
    let mut touched = Vec::new();
    let mut comparer = Comparer::new(base, target);
    for (path, &inode) in &target.names {
        let names = target.aliases(path, inode);
        if names[0] != *path {
            continue;
        }
        let ignore_time = options.times == Times::Ignored;
        let is_directory = target.is_directory(inode);
        // Recoveries look for flags in each archive on its own: a delta without one says no.
        let is_flag = matches!(Route::of(path), Route::Flag(_));
        let difference = comparer.compare(inode, names).map_err(DeltaError::Copy)?;
        match difference {
            Difference::None if !is_flag => continue,
            Difference::Time if ignore_time && !is_flag => {
                summary.times_ignored += names.len() as u64;
                continue;
            }
            Difference::Time => summary.times_carried += names.len() as u64,
            _ => {}
        }
        carried.extend(names.iter().cloned());
        // A directory that is there already is changed without touching its parent.
        let old = base.names.get(path);
        if !is_directory || old.is_none_or(|&old| !base.is_directory(old)) {
            touched.extend(names);
        }
    }
    add_parents(&mut carried, touched.into_iter().chain(removed), target);
    Ok(carried)
}

fn write_removed<W: Write>(
    writer: &mut Writer<W>,
    removed: &BTreeSet<MemberPath>,
) -> io::Result<()> {
    let mut list = Vec::new();
    for path in removed {
        list.extend_from_slice(path.as_bytes());
        list.push(b'\n');
    }
    // Any time will do; a fixed one gives the same delta for the same images.
    let header = Header::of_root(
        b"removed".to_vec(),
        Kind::File {
            size: list.len() as u64,
        },
        0o644,
        0,
    );
    writer.member(&header, &mut &list[..])
}

fn write_members<W: Write>(
    writer: &mut Writer<W>,
    target: &Index<'_>,
    carried: &BTreeSet<MemberPath>,
) -> io::Result<()> {
    for path in carried {
        let inode = target.names[path];
        let first = &target.aliases(path, inode)[0];
        let mut header = target.inodes[inode].header.clone();
        header.path = path.as_bytes().to_vec();
        if first == path {
            writer.member(&header, &mut target.content(inode))?;
        } else {
            // All names of a file are carried or none, and this one sorts after the first.
            header.kind = Kind::HardLink {
                target: first.as_bytes().to_vec(),
            };
            header.xattrs = Vec::new();
            writer.member(&header, &mut io::empty())?;
        }
    }
    Ok(())
}

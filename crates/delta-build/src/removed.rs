//! Which paths a device has to remove before the target's members are placed.

use std::collections::BTreeSet;

use system_image_delta::{MemberPath, Route};

use crate::delta::{DeltaError, Removal};
use crate::index::Index;

/// The list of removals and what is to be said about it.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Full archive paths, all below `system/`, none below another.
    pub(crate) paths: BTreeSet<MemberPath>,
    /// Members of the base that are gone and that no list can remove: outside of `system/`, or
    /// directories under [`Removal::Names`].
    pub(crate) left: u64,
}

/// Finds what the base has and the target has not, or has as a directory on one side only.
///
/// Everything else is replaced in place: a file's old name is never without content, and an
/// interrupted update is never without the file (server spec, section 21, 9).
pub(crate) fn find(
    base: &Index<'_>,
    target: &Index<'_>,
    removal: Removal,
) -> Result<Removed, DeltaError> {
    let mut removed = Removed::default();
    for (path, &inode) in &base.names {
        let was_directory = base.is_directory(inode);
        let stays = match target.names.get(path) {
            Some(&inode) => target.is_directory(inode) == was_directory,
            None => was_directory && target.has_directory(path.as_bytes()),
        };
        let in_system = match Route::of(path) {
            Route::System(below) => !below.is_root(),
            _ => false,
        };
        if stays || (path.as_bytes() == b"system" && was_directory) {
            continue;
        }
        let replaced = target.names.contains_key(path);
        if !in_system || (removal == Removal::Names && was_directory && !replaced) {
            removed.left += 1;
            continue;
        }
        let top = top(path, target, removal);
        if removed.paths.contains(&top) {
            continue;
        }
        if top.as_bytes().contains(&b'\n') {
            return Err(DeltaError::Newline { path: top });
        }
        removed.paths.insert(top);
    }
    Ok(removed)
}

/// The highest directory above `path` that goes with it, or `path` itself.
fn top(path: &MemberPath, target: &Index<'_>, removal: Removal) -> MemberPath {
    let goes = |parent: &&[u8]| match removal {
        Removal::Trees => !target.has_directory(parent),
        // Only what the target itself puts in a directory's place may take a directory away.
        Removal::Names => target
            .names
            .get(*parent)
            .is_some_and(|&inode| !target.is_directory(inode)),
    };
    let highest = path
        .ancestors()
        .filter(|parent| *parent != b"system")
        .filter(goes)
        .last();
    match highest {
        Some(parent) => MemberPath::parse(parent).unwrap_or_else(|_| path.clone()),
        None => path.clone(),
    }
}

/// Whether the shell that reads the list in old recoveries removes something else: it drops
/// blanks at the ends, splits at blanks, eats backslashes and expands patterns.
pub(crate) fn is_misread(path: &MemberPath) -> bool {
    path.as_bytes()
        .iter()
        .any(|b| matches!(b, b' ' | b'\t' | b'\\' | b'*' | b'?' | b'['))
}

//! Finds what of the target differs from the base.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use system_image_delta::{Header, Kind, MemberPath};

use crate::index::Index;

/// Size of each of the two buffers in which content is compared: both fit a core's cache.
const COMPARE_BUFFER: usize = 128 << 10;

/// How a target's inode relates to the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// No name of it is in the base.
    Added,
    /// Content, metadata or link structure differ.
    Changed,
    /// The modification time differs, nothing else.
    Time,
    /// Nothing differs.
    None,
}

/// Compares members of two archives.
pub(crate) struct Comparer<'a, 'b> {
    base: &'b Index<'a>,
    target: &'b Index<'a>,
    buffers: [Box<[u8]>; 2],
}

impl<'a, 'b> Comparer<'a, 'b> {
    pub(crate) fn new(base: &'b Index<'a>, target: &'b Index<'a>) -> Self {
        let buffer = || vec![0; COMPARE_BUFFER].into();
        Self {
            base,
            target,
            buffers: [buffer(), buffer()],
        }
    }

    /// Compares what `names` stand for, `inode` of the target. Content is always compared: equal
    /// size and time say nothing where times are clamped.
    pub(crate) fn compare(&mut self, inode: usize, names: &[MemberPath]) -> io::Result<Difference> {
        let mut found = names.iter().filter_map(|name| self.base.names.get(name));
        let Some(&old) = found.next() else {
            return Ok(Difference::Added);
        };
        if !self.same_structure(inode, names, old) {
            return Ok(Difference::Changed);
        }
        let (was, is) = (&self.base.inodes[old], &self.target.inodes[inode]);
        if !same_but_time(&was.header, &is.header) {
            return Ok(Difference::Changed);
        }
        if let Kind::File { size } = is.header.kind {
            let files = [
                (self.base.archive, was.data),
                (self.target.archive, is.data),
            ];
            if !self.same_bytes(files, size)? {
                return Ok(Difference::Changed);
            }
        }
        Ok(if was.header.mtime == is.header.mtime {
            Difference::None
        } else {
            Difference::Time
        })
    }

    /// Whether these names stand for one inode in the base too, and those of its names that are
    /// still there for this one in the target.
    fn same_structure(&self, inode: usize, names: &[MemberPath], old: usize) -> bool {
        let before = self.base.aliases(&names[0], old);
        names
            .iter()
            .all(|name| self.base.names.get(name) == Some(&old))
            && before
                .iter()
                .all(|name| self.target.names.get(name).is_none_or(|&now| now == inode))
    }

    fn same_bytes(&mut self, files: [(&File, u64); 2], size: u64) -> io::Result<bool> {
        let mut done = 0;
        while done < size {
            let left = usize::try_from(size - done).unwrap_or(usize::MAX);
            let len = left.min(COMPARE_BUFFER);
            for ((file, offset), buffer) in files.iter().zip(&mut self.buffers) {
                file.read_exact_at(&mut buffer[..len], offset + done)?;
            }
            if self.buffers[0][..len] != self.buffers[1][..len] {
                return Ok(false);
            }
            done += len as u64;
        }
        Ok(true)
    }
}

/// Everything of the headers but names and time. A link's own mode means nothing.
fn same_but_time(was: &Header, is: &Header) -> bool {
    let mode = |header: &Header| match header.kind {
        Kind::Symlink { .. } => 0,
        _ => header.mode,
    };
    was.kind == is.kind
        && mode(was) == mode(is)
        && (was.uid, was.gid) == (is.uid, is.gid)
        && was.xattrs == is.xattrs
}

/// Adds the directories whose times change because something in them comes or goes.
pub(crate) fn add_parents<'p>(
    carried: &mut BTreeSet<MemberPath>,
    touched: impl Iterator<Item = &'p MemberPath>,
    target: &Index<'_>,
) {
    for path in touched {
        if let Some((parent, _)) = path.split_last()
            && target
                .names
                .get(&parent)
                .is_some_and(|&inode| target.is_directory(inode))
        {
            carried.insert(parent);
        }
    }
}

//! Which parts of the base's file a patch leads from. A sequence of bytes is kept whole; of an archive
//! that stands for what it installs, the files that the patch uses are left, one after another.

use std::fs::File;
use std::io;
use std::ops::Range;

use system_image_delta::patch::ReadAt;
use system_image_delta::patch::tree::{Files, is_readable};
use system_image_delta::{Kind, MemberPath, SPARSE_IMAGE};

use crate::delta::DeltaError;
use crate::index::{Index, Side};
use crate::patch::image::{Image, Item};
use crate::patch::plan;

/// What a device has installed, in the archive that leads to it.
pub(crate) struct Tree {
    /// In the order in which they stand there.
    files: Vec<(Range<u64>, MemberPath)>,
}

impl Tree {
    /// The files of a canonical archive that stay as they are on a device, and are not left out.
    pub(crate) fn read(
        archive: &File,
        is_left_out: &dyn Fn(&MemberPath) -> bool,
    ) -> Result<Self, DeltaError> {
        let index = Index::read(archive, Side::Base)?;
        let mut files = Vec::new();
        let mut is_known = vec![false; index.inodes.len()];
        for (path, &inode) in &index.names {
            let Kind::File { size } = index.inodes[inode].header.kind else {
                continue;
            };
            let is_usable = is_readable(path) && !is_left_out(path);
            let start = index.inodes[inode].data;
            if size > 0 && !is_known[inode] && is_usable && !is_sparse(archive, start) {
                is_known[inode] = true;
                files.push((start..start + size, path.clone()));
            }
        }
        files.sort_by_key(|(range, _)| range.start);
        Ok(Self { files })
    }

    /// Memory that a list of all of them takes, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let each = self.files.iter().map(|(_, path)| Files::memory_of(path));
        each.sum()
    }

    /// Its files as an image of which there is nothing but them.
    pub(crate) fn image(&self, archive: &File) -> Image {
        let items = self.files.iter().map(|(range, path)| {
            let head = range.start..range.start;
            Item::new(path.as_bytes().to_vec(), head, range.clone())
        });
        Image::of(archive, items.collect())
    }

    /// The files that one of these ranges of the archive touches.
    pub(crate) fn used(&self, mut ranges: Vec<Range<u64>>) -> (Kept, Files) {
        ranges.sort_by_key(|range| range.start);
        let mut ranges = ranges.into_iter().peekable();
        let mut kept = Kept::default();
        let mut used = Files::default();
        for (range, path) in &self.files {
            while ranges.next_if(|used| used.end <= range.start).is_some() {}
            if ranges.peek().is_some_and(|used| used.start < range.end) {
                kept.push(range.clone());
                used.push(path, range.end - range.start);
            }
        }
        (kept, used)
    }
}

/// Whether an image in Android's sparse form begins there: a partition holds something else then.
fn is_sparse(archive: &File, start: u64) -> bool {
    let end = start + SPARSE_IMAGE.len() as u64;
    plan::read(archive, &(start..end)).is_ok_and(|magic| magic == SPARSE_IMAGE)
}

/// Ranges of a file, joined.
#[derive(Default)]
pub(crate) struct Kept {
    /// Each with where it begins in what is kept.
    pieces: Vec<(Range<u64>, u64)>,
    len: u64,
}

impl Kept {
    /// All of a file.
    pub(crate) fn all(len: u64) -> Self {
        let mut all = Self::default();
        all.push(0..len);
        all
    }

    fn push(&mut self, range: Range<u64>) {
        let len = range.end - range.start;
        self.pieces.push((range, self.len));
        self.len += len;
    }

    /// Length of all of it in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// Where a place of the file is in what is kept.
    pub(crate) fn place(&self, offset: u64) -> u64 {
        let next = self
            .pieces
            .partition_point(|(range, _)| range.start <= offset);
        let (range, start) = &self.pieces[next - 1];
        start + (offset - range.start)
    }

    /// Reads what is kept of a file.
    pub(crate) fn of<'a>(&'a self, file: &'a File) -> impl ReadAt + 'a {
        Reader { kept: self, file }
    }
}

struct Reader<'a> {
    kept: &'a Kept,
    file: &'a File,
}

impl ReadAt for Reader<'_> {
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        let pieces = &self.kept.pieces;
        while !buffer.is_empty() {
            let next = pieces.partition_point(|&(_, start)| start <= offset);
            let piece = next.checked_sub(1).map(|at| &pieces[at]);
            let (range, start) = piece.ok_or(io::ErrorKind::UnexpectedEof)?;
            let from = range.start + (offset - start);
            let left = range.end.saturating_sub(from);
            let len = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (now, later) = buffer.split_at_mut(len);
            self.file.read_exact_at(now, from)?;
            offset += len as u64;
            buffer = later;
        }
        Ok(())
    }
}

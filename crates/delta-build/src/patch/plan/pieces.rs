//! Puts files together that stand in pieces: fragments, with holes between them that are zeros.

use std::fs::File;
use std::io;
use std::ops::Range;

use sha2::{Digest, Sha256};
use system_image_delta::patch::Codec;

use super::{Place, Planner, Seen, Space, kind_of, read};
use crate::patch::image::Item;
use crate::patch::view::Shown;

/// Largest file that is put together, in bytes.
const LARGEST: u64 = 128 << 20;

/// Holes that are filled in any file, in bytes. More are filled in files that have as much content.
const HOLES: u64 = 1 << 20;

/// Most pieces of a program that are made as portions of it: what all of it is made from is told with each.
const MOST_PORTIONS: usize = 32;

/// Most ranges that a file is put together from.
const MOST_RANGES: usize = 1024;

impl Planner<'_> {
    /// What kind of content a piece of a file of the target is: that of the file's beginning.
    pub(super) fn kind(&self, item: &Item) -> io::Result<u8> {
        const HEAD: u64 = 4;
        let first = self.target_files.pieces(item).next();
        let first = first.filter(|first| first.before < item.before);
        let first = first.unwrap_or(item);
        let start = first.content.start;
        let head = read(self.target, &(start..start + first.len().min(HEAD)))?;
        Ok(kind_of(&head))
    }

    /// The piece of the file that `first` begins that an item of the target corresponds to.
    pub(super) fn piece(&self, item: &Item, first: &Item) -> Item {
        let is_same = |old: &&Item| old.before == item.before && old.len() == item.len();
        let same = self.files.pieces(first).find(is_same);
        same.unwrap_or(first).clone()
    }

    /// What a changed file is searched for in, instead of a piece of it.
    pub(super) fn like(&mut self, first: &Item) -> (Item, Space) {
        match self.joined(first) {
            None => (first.clone(), Space::Base),
            Some(view) => {
                let content = 0..self.plan.views[view].plain_len;
                let old = Item {
                    content,
                    ..first.clone()
                };
                (old, Space::View(view))
            }
        }
    }

    /// The view that shows a file of the base in pieces as one, or nothing if it is not in pieces.
    pub(super) fn joined(&mut self, first: &Item) -> Option<usize> {
        if first.is_whole() {
            return None;
        }
        if let Some(&view) = self.joined.get(&first.path) {
            return view;
        }
        let ranges = ranges(self.files.pieces(first), &self.areas.longest);
        let view = self.showing(ranges.into_iter().map(stored).collect());
        self.joined.insert(first.path.clone(), view);
        view
    }

    /// Where all of a file that is in pieces in the target was seen already.
    pub(super) fn seen_whole(&mut self, item: &Item) -> io::Result<Option<Place>> {
        if item.is_whole() {
            return Ok(None);
        }
        if let Some(&place) = self.seen_wholes.get(&item.path) {
            return Ok(place);
        }
        let mut place = None;
        if let Some(whole) = Whole::new(self.target_files.pieces(item)) {
            let content = (whole.size, Sha256::digest(whole.bytes(self.target)?).into());
            if let Some(Seen::Place(seen)) = self.seen.get(&content) {
                place = Some(*seen);
            }
        }
        self.seen_wholes.insert(item.path.clone(), place);
        Ok(place)
    }

    /// Notes that an item of the target is a portion of a program, if it does not hold all of it.
    pub(super) fn portion(&mut self, item: &Item) {
        if item.is_whole() {
            return;
        }
        let programs = &mut self.plan.programs;
        let known = self.programs.entry(item.path.clone());
        let program = *known.or_insert_with(|| {
            let whole = Whole::new(self.target_files.pieces(item))?;
            if whole.pieces.len() > MOST_PORTIONS {
                return None;
            }
            programs.push(whole);
            Some(programs.len() - 1)
        });
        let piece = (item.before, item.content.clone());
        if let Some(program) = program
            && programs[program].pieces.contains(&piece)
        {
            let portion = (program, item.before);
            self.plan.portions.insert(item.content.start, portion);
        }
    }
}

/// Where the content of a file stands. Holes are filled with what is at `zeros`, or left out if there
/// are too many. Empty if the file is too large.
fn ranges<'a>(pieces: impl Iterator<Item = &'a Item>, zeros: &Range<u64>) -> Vec<Range<u64>> {
    let pieces: Vec<&Item> = pieces.collect();
    let content: u64 = pieces.iter().map(|piece| piece.len()).sum();
    let size = pieces.first().map_or(0, |piece| piece.whole());
    let zeros_len = zeros.end - zeros.start;
    let is_filled = zeros_len > 0 && size <= content.saturating_mul(2).saturating_add(HOLES);
    let mut ranges: Vec<Range<u64>> = Vec::new();
    if content > LARGEST || is_filled && size > LARGEST {
        return ranges;
    }
    let mut at = 0;
    let fill = |ranges: &mut Vec<Range<u64>>, at: u64, end: u64| {
        let mut left = end.saturating_sub(at);
        while is_filled && left > 0 && ranges.len() <= MOST_RANGES {
            let len = left.min(zeros_len);
            ranges.push(zeros.start..zeros.start + len);
            left -= len;
        }
    };
    for piece in pieces {
        fill(&mut ranges, at, piece.before);
        ranges.push(piece.content.clone());
        at = piece.before + piece.len();
    }
    fill(&mut ranges, at, size);
    if ranges.len() > MOST_RANGES {
        ranges.clear();
    }
    ranges
}

/// A file that stands in pieces.
pub(crate) struct Whole {
    /// Its length in bytes, holes included.
    size: u64,
    /// Where each piece begins in it, and where the piece stands.
    pieces: Vec<(u64, Range<u64>)>,
}

impl Whole {
    /// Of all of its pieces, in order; nothing if it is too large, or if they do not fit together: in a damaged
    /// image, or where several files have one path.
    fn new<'a>(pieces: impl Iterator<Item = &'a Item>) -> Option<Self> {
        let mut whole = Self {
            size: 0,
            pieces: Vec::new(),
        };
        let mut end = 0;
        for piece in pieces {
            if piece.before < end || end > 0 && piece.whole() != whole.size {
                return None;
            }
            end = piece.before + piece.len();
            whole.size = piece.whole();
            whole.pieces.push((piece.before, piece.content.clone()));
        }
        (whole.size <= LARGEST).then_some(whole)
    }

    /// The bytes of the file.
    pub(crate) fn bytes(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(to_usize(self.size));
        for (before, range) in &self.pieces {
            bytes.resize(to_usize(*before), 0);
            bytes.append(&mut read(file, range)?);
        }
        bytes.resize(to_usize(self.size), 0);
        Ok(bytes)
    }
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("it is bounded")
}

fn stored(range: Range<u64>) -> Shown {
    Shown {
        plain_len: range.end - range.start,
        range,
        codec: Codec::Stored,
    }
}

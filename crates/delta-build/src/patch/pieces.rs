//! Puts files together that stand in pieces: fragments, with holes between them that are zeros.

use std::fs::File;
use std::io;
use std::ops::Range;

use crate::patch::image::Item;
use crate::patch::plan::read;

/// Largest file that is put together, in bytes.
const LARGEST: u64 = 128 << 20;

/// Holes that are filled in any file, in bytes. More are filled in files that have as much content.
const HOLES: u64 = 1 << 20;

/// Most ranges that a file is put together from.
const MOST_RANGES: usize = 1024;

/// Where the content of a file stands. Holes are filled with what is at `zeros`, or left out if there
/// are too many. Empty if the file is too large.
pub(crate) fn ranges<'a>(
    pieces: impl Iterator<Item = &'a Item>,
    zeros: &Range<u64>,
) -> Vec<Range<u64>> {
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

/// The bytes of a file, holes included, or `None` if it is too large.
pub(crate) fn bytes<'a>(
    file: &File,
    pieces: impl Iterator<Item = &'a Item>,
) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut size = 0;
    for piece in pieces {
        size = piece.whole();
        if size > LARGEST {
            return Ok(None);
        }
        bytes.resize(to_usize(piece.before), 0);
        bytes.append(&mut read(file, &piece.content)?);
    }
    bytes.resize(to_usize(size), 0);
    Ok(Some(bytes))
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("it is bounded")
}

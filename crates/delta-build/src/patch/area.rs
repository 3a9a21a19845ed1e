//! Decides where the parts of a file system come from that no file holds: free space, bitmaps, a
//! journal. What is empty is copied from what is empty; the rest mostly is what stood at the same
//! place before.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use system_image_delta::patch::Codec;

use crate::patch::image::{Item, Sort};
use crate::patch::plan::{Place, Segment, Side, Source, Space, is_mostly, kind, read};
use crate::patch::view::View;

/// Length of what is looked at as empty or not, in bytes: a block of a file system.
const BLOCK: usize = 4096;

/// How much is read at once, in bytes.
const AT_ONCE: usize = 1 << 20;

/// Empty space that is copied from over and over, in bytes: as much as an applier checks at once. It
/// need not read all of the base's free space then.
const EMPTY: u64 = 4 << 20;

/// Longest run that is searched for as one, in bytes.
const LONGEST: u64 = 4 << 20;

/// How far around its own place something is searched for, in bytes.
const AROUND: u64 = 64 << 10;

/// The parts of the base that no file holds.
pub(crate) struct Areas<'a> {
    base: &'a File,
    /// Where the base's images of file systems stand, by their paths.
    images: HashMap<Vec<u8>, Range<u64>>,
    /// Where the base is empty, in order.
    empty: Vec<Range<u64>>,
    /// Part of the longest of them.
    pub(crate) longest: Range<u64>,
    /// A view of what was made empty, if the base has nothing that is.
    made: Option<(usize, Range<u64>)>,
}

impl<'a> Areas<'a> {
    /// Looks for empty space among the items of the base.
    pub(crate) fn new(base: &'a File, items: &[Item]) -> io::Result<Self> {
        let mut areas = Self {
            base,
            images: HashMap::new(),
            empty: Vec::new(),
            longest: 0..0,
            made: None,
        };
        for item in items.iter().filter(|item| item.sort == Sort::Area) {
            let start = item.content.start - item.before;
            let image = areas.images.entry(item.path.clone());
            image.or_insert(start..start).end = item.content.end;
            runs(base, item, |range, is_empty| {
                if is_empty && range.end - range.start >= BLOCK as u64 {
                    areas.empty.push(range);
                }
            })?;
        }
        let longest = areas.empty.iter().max_by_key(|run| run.end - run.start);
        if let Some(longest) = longest {
            let aligned = longest.start.next_multiple_of(EMPTY);
            let start = if aligned + EMPTY <= longest.end {
                aligned
            } else {
                longest.start
            };
            areas.longest = start..longest.end.min(start + EMPTY);
        }
        Ok(areas)
    }

    /// Where each part of an area of the target comes from.
    pub(crate) fn segments(
        &mut self,
        target: &File,
        area: &Item,
        views: &mut Vec<View>,
    ) -> io::Result<Vec<Segment>> {
        let mut parts = Vec::new();
        runs(target, area, |range, is_empty| {
            parts.push((range, is_empty));
        })?;
        let image = self.images.get(&area.path).cloned().unwrap_or_default();
        // What stands at the same place of two images does not stand at the same one of two archives.
        let start = area.content.start - area.before;
        let old = |at: u64| image.start + (at - start);
        let mut segments = Vec::new();
        for (range, is_empty) in parts {
            if is_empty {
                self.empty(range, old, views, &mut segments);
                continue;
            }
            let mut left = range.start;
            while left < range.end {
                let new = left..range.end.min(left + LONGEST);
                left = new.end;
                segments.push(Segment {
                    source: self.filled((target, &new), &image, &(old(new.start)..old(new.end)))?,
                    new,
                    kind: kind::META,
                });
            }
        }
        Ok(segments)
    }

    /// `old` is the same place in the base.
    fn empty(
        &mut self,
        range: Range<u64>,
        old: impl Fn(u64) -> u64,
        views: &mut Vec<View>,
        segments: &mut Vec<Segment>,
    ) {
        let mut at = range.start;
        while at < range.end {
            let left = range.end - at;
            let was = old(at);
            let after = self.empty.partition_point(|run| run.end <= was);
            let here = self.empty.get(after);
            let here = here.filter(|run| run.start <= was && left < EMPTY);
            let (source, len) = if let Some(here) = here {
                (Some((Space::Base, was)), here.end - was)
            } else if !self.longest.is_empty() {
                let len = self.longest.end - self.longest.start;
                (Some((Space::Base, self.longest.start)), len)
            } else if let Some((view, made)) = &self.made {
                (Some((Space::View(*view), 0)), made.end - made.start)
            } else {
                (None, AT_ONCE as u64)
            };
            let new = at..at + left.min(len);
            at = new.end;
            if source.is_none() && new.end - new.start >= BLOCK as u64 {
                self.made = Some((views.len(), new.clone()));
                views.push(View {
                    side: Side::Target,
                    range: new.clone(),
                    rest: Vec::new(),
                    codec: Codec::Stored,
                    plain: Vec::new(),
                    plain_len: new.end - new.start,
                    proved: None,
                });
            }
            let source = source.map_or(Source::New, |(space, offset)| {
                Source::Copy(Place { space, offset })
            });
            segments.push(Segment {
                new,
                kind: kind::META,
                source,
            });
        }
    }

    /// `old` is the same place in the base, which may be behind the end of its image.
    fn filled(
        &self,
        (target, new): (&File, &Range<u64>),
        image: &Range<u64>,
        old: &Range<u64>,
    ) -> io::Result<Source> {
        let at = |offset| Place {
            space: Space::Base,
            offset,
        };
        if image.is_empty() {
            return Ok(Source::New);
        }
        if old.end <= image.end && is_mostly(&read(self.base, old)?, &read(target, new)?) {
            return Ok(Source::Aligned(at(old.start)));
        }
        let start = old.start.saturating_sub(AROUND).max(image.start);
        let end = (old.end + AROUND).min(image.end);
        Ok(if start < end {
            Source::Like(at(start), end - start)
        } else {
            Source::New
        })
    }
}

/// Tells of each run of blocks, of which all or none are empty.
fn runs(file: &File, area: &Item, mut tell: impl FnMut(Range<u64>, bool)) -> io::Result<()> {
    let mut buffer = vec![0; AT_ONCE];
    let mut run: Option<(Range<u64>, bool)> = None;
    let Range { start: mut at, end } = area.content;
    // Blocks are those of the image: the first and the last may be in part outside.
    let image = at - area.before;
    let within = |at: u64, block: usize| within(at - image, block);
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let bytes = &mut buffer[..left.min(AT_ONCE - within(at, AT_ONCE))];
        file.read_exact_at(bytes, at)?;
        let mut left = &*bytes;
        while !left.is_empty() {
            let len = (BLOCK - within(at, BLOCK)).min(left.len());
            let (block, rest) = left.split_at(len);
            let is_empty = block.iter().all(|&byte| byte == 0);
            let block = at..at + len as u64;
            (left, at) = (rest, block.end);
            match &mut run {
                Some((range, was_empty)) if *was_empty == is_empty => range.end = block.end,
                _ => {
                    if let Some((range, was_empty)) = run.replace((block, is_empty)) {
                        tell(range, was_empty);
                    }
                }
            }
        }
    }
    if let Some((range, was_empty)) = run {
        tell(range, was_empty);
    }
    Ok(())
}

/// How far into a block of this length a place is.
fn within(at: u64, block: usize) -> usize {
    usize::try_from(at % block as u64).expect("it is less than a block")
}

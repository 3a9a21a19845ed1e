//! Decides for tables of inodes, which are compared without their checksums: inode by inode, each with
//! the one that had its name.

use std::fs::File;
use std::io;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::{Part, Place, Planner, Segment, Side, Source, Space, Table, kind};
use crate::patch::image::{Item, Sort};
use crate::patch::view::View;

/// Longest table that is looked into, in bytes.
const LONGEST: u64 = 256 << 20;

/// A table without checksums.
fn plain(file: &File, (range, codec): &Table) -> io::Result<Vec<u8>> {
    let len = range.end - range.start;
    let view = View {
        side: Side::Base,
        range: range.clone(),
        codec: *codec,
        rest: Vec::new(),
        plain: Vec::new(),
        plain_len: len,
        proved: None,
    };
    view.bytes(file, &(0..len))
}

impl Planner<'_> {
    /// Decides for a table that the first of these items begins; how many items it has, or 0 if
    /// there is none.
    pub(super) fn table(&mut self, items: &[Item], tables: &[Table]) -> io::Result<usize> {
        let starts = |(range, _): &&Table| Some(range.start) == items.first().map(Item::start);
        let Some(table) = tables.iter().find(starts) else {
            return Ok(0);
        };
        let (range, codec) = table;
        let len = range.end - range.start;
        let ends = items.iter().position(|item| item.end >= range.end);
        let Some(last) = ends.filter(|&last| items[last].end == range.end) else {
            return Ok(0);
        };
        if len > LONGEST || self.tables.is_empty() || !(self.allowed)(*codec, len) {
            return Ok(0);
        }
        let mut segments = Vec::new();
        // What had no name in the base is like what came before it.
        let mut like = None;
        for item in &items[..=last] {
            let new = item.start() - range.start..item.end - range.start;
            let old = (item.sort == Sort::Table)
                .then(|| self.files.counterpart(&item.path, 0).cloned())
                .flatten();
            let place = match old {
                Some(old) => self.inode(&old.head)?.or(like),
                None => like,
            };
            let fits = |place: &Place| self.fits(*place, new.end - new.start);
            let source = place.filter(fits).map_or(Source::New, Source::Aligned);
            like = place.or(like);
            segments.push(Segment {
                new,
                kind: kind::META,
                source,
            });
        }
        let view = self.plan.views.len();
        let plain = plain(self.target, table)?;
        let proved = Sha256::digest(&plain).into();
        self.view(Side::Target, range.clone(), *codec, plain, len);
        self.plan.views[view].proved = Some(proved);
        self.plan.parts.push(Part {
            view: Some(view),
            segments,
        });
        Ok(last + 1)
    }

    /// Where an inode of the base is shown without its checksum.
    fn inode(&mut self, inode: &Range<u64>) -> io::Result<Option<Place>> {
        let has = |((range, _), _): &(Table, Option<usize>)| {
            range.start <= inode.start && inode.end <= range.end
        };
        let Some(found) = self.tables.iter().position(has) else {
            return Ok(None);
        };
        let (table, view) = self.tables[found].clone();
        let (start, len) = (table.0.start, table.0.end - table.0.start);
        if len > LONGEST {
            return Ok(None);
        }
        let view = if let Some(view) = view {
            view
        } else {
            let plain = plain(self.base, &table)?;
            let view = self.plan.views.len();
            self.view(Side::Base, table.0, table.1, plain, len);
            self.tables[found].1 = Some(view);
            view
        };
        Ok(Some(Place {
            space: Space::View(view),
            offset: inode.start - start,
        }))
    }

    /// Whether a view goes on for so many bytes from a place.
    fn fits(&self, place: Place, len: u64) -> bool {
        match place.space {
            Space::Base => false,
            Space::View(view) => place.offset + len <= self.plan.views[view].plain_len,
        }
    }
}

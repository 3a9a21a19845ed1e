//! Where the pointers of two programs are, of which one is made from the other.

use std::ops::Range as Span;

use system_image_delta::patch::pointers::{Field, Form, Pointers, Range, Space, Width};

/// Ranges with pointers in the old file, and those of the new file that mean the same.
pub(super) struct Pair {
    pub(super) old: Pointers,
    pub(super) new: Pointers,
    /// Tables of the new file, and the same of the old one, in order.
    pub(super) tables: Vec<Table>,
}

/// Length of a relocation in bytes.
pub(super) const RELOCATION: usize = 24;

/// A table of both files.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) new: Span<u64>,
    pub(super) old: Span<u64>,
    /// Whether others point into it.
    pub(super) is_first: bool,
    /// Whether each entry begins with how far on it is, of 8 bytes: that tells nothing.
    pub(super) counts: bool,
}

/// A table whose entries are so long and have pointers at these places, into these spaces.
pub(super) fn table(entry: u64, fields: &[(u64, Width)], spaces: &[usize]) -> Form {
    let fields = fields.iter().zip(spaces);
    Form::Table {
        entry,
        fields: fields
            .map(|(&(at, width), &space)| Field { at, width, space })
            .collect(),
    }
}

/// Ranges as they are found.
#[derive(Default)]
pub(super) struct Found {
    old: Vec<Range>,
    new: Vec<Range>,
    tables: Vec<Table>,
}

impl Found {
    /// Takes ranges of this form that are in both files.
    pub(super) fn add(&mut self, form: &Form, table: Table) {
        self.old.push(range(table.old.clone(), form));
        self.new.push(range(table.new.clone(), form));
        if matches!(form, Form::Table { .. }) {
            self.tables.push(table);
        }
    }

    /// Takes ranges of this form of the old file, and of the new one, whichever belong together.
    pub(super) fn extend(&mut self, form: &Form, old: Vec<Span<u64>>, new: Vec<Span<u64>>) {
        self.old
            .extend(old.into_iter().map(|span| range(span, form)));
        self.new
            .extend(new.into_iter().map(|span| range(span, form)));
    }

    /// The pair of the files, with the spaces of the old one and of the new one alone. Of what is not
    /// apart in a file only the first counts.
    pub(super) fn pair(self, (old_spaces, new_spaces): (Vec<Space>, Vec<Space>)) -> Pair {
        let span = |range: &Range| range.start..range.end;
        let (old, new) = (apart(self.old, span), apart(self.new, span));
        let has =
            |ranges: &[Range], table: &Span<u64>| ranges.iter().any(|range| span(range) == *table);
        let mut tables = apart(self.tables, |table| table.new.clone());
        tables.retain(|table| has(&old, &table.old) && has(&new, &table.new));
        let pointers = |spaces, ranges| Pointers { spaces, ranges };
        Pair {
            old: pointers(old_spaces, old),
            new: pointers(new_spaces, new),
            tables,
        }
    }
}

impl Pair {
    /// Takes a range of the old file in place of those that are not apart from it.
    pub(super) fn replace(&mut self, span: Span<u64>, form: &Form) {
        let ranges = &mut self.old.ranges;
        ranges.retain(|range| range.end <= span.start || range.start >= span.end);
        let at = ranges.partition_point(|range| range.end <= span.start);
        ranges.insert(at, self::range(span, form));
    }
}

fn range(span: Span<u64>, form: &Form) -> Range {
    Range {
        start: span.start,
        end: span.end,
        form: form.clone(),
    }
}

/// Puts what stands in spans in order, and leaves out what is not apart from the one before.
fn apart<T>(mut all: Vec<T>, span: impl Fn(&T) -> Span<u64>) -> Vec<T> {
    all.sort_by_key(|one| span(one).start);
    let mut free = 0;
    all.retain(|one| {
        let span = span(one);
        let is_apart = span.start >= free;
        free = free.max(span.end);
        is_apart
    });
    all
}

//! Finds what a program was made from. Its pointers change when what they point to moves, so that
//! they are left out of the comparison of code; tables of pointers are compared by what they point
//! to.

mod btf;
mod elf;
mod kernel;
mod pair;

use std::ops::Range as Span;

use system_image_delta::patch::pointers::{Change, Form, Places, Pointer, Pointers, Range, State};
use system_image_delta::patch::{MOST_COPIES, Move, Projection};

use crate::patch::effort::Effort;
use crate::patch::matcher::{Matcher, Reach, Step, TooLarge, worthwhile};
use crate::patch::program::btf::Types;
use crate::patch::program::pair::{Pair, RELOCATION, Table};

pub(crate) use btf::Numberings;

/// Bytes that pointers must spare to be told.
const WORTH_TELLING: usize = 64;

/// Bytes that the pointers of one range must spare to be told.
const WORTH_A_RANGE: usize = 12;

/// A run of the new bytes, and where it is copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Piece {
    pub(crate) new: usize,
    pub(crate) old: usize,
    pub(crate) len: usize,
}

/// What a program is made from.
pub(crate) struct Made {
    /// In the order of the new bytes, apart from each other.
    pub(crate) copies: Vec<Piece>,
    /// The pointers of the old one; none if they do not pay.
    pub(crate) pointers: Pointers,
    /// The copied bytes of each copy after their pointers were changed.
    pub(crate) predicted: Vec<Vec<u8>>,
}

impl Made {
    /// What makes a range of the new bytes, as if its copies began and ended there.
    pub(crate) fn within(&self, old: &[u8], range: &Span<usize>) -> Self {
        let copies = self.copies.iter().filter_map(|copy| {
            let new = copy.new.max(range.start);
            let end = (copy.new + copy.len).min(range.end);
            (new < end).then(|| Piece {
                new,
                old: copy.old + (new - copy.new),
                len: end - new,
            })
        });
        let copies: Vec<Piece> = copies.collect();
        Self {
            predicted: predicted(old, &copies, &self.pointers, &projection(&self.copies)),
            pointers: self.pointers.clone(),
            copies,
        }
    }
}

/// How much of a file tells whether it [may be](may_be) a program, in bytes.
pub(crate) const HEAD: u64 = 64;

/// Whether what begins so may be a program with types of its own.
pub(crate) fn may_be(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF") || kernel::is_kernel(head)
}

/// What became of the types of an old kernel; nothing if the two have none.
pub(crate) fn numberings(old: &[u8], new: &[u8]) -> Option<Numberings> {
    Numberings::new(&types(old)?, &types(new)?)
}

/// The types of a program.
fn types(file: &[u8]) -> Option<Types<'_>> {
    let found = match elf::types(file) {
        None if kernel::is_kernel(file) => Types::find(file),
        found => found.and_then(|at| usize::try_from(at).ok()),
    };
    Types::read(file, found?)
}

/// Finds what the program `new` was made from; nothing if the two are none, or if no `pointers` are
/// wanted.
pub(crate) fn search(
    old: &[u8],
    new: &[u8],
    pointers: bool,
    numberings: Option<&Numberings>,
    reach: Option<Reach>,
    effort: Effort,
) -> Option<Result<Made, TooLarge>> {
    pointers.then_some(())?;
    let mut pair = elf::pair(old, new).or_else(|| kernel::pair(old, new))?;
    let mut known = None;
    if let Some(numberings) = numberings
        && let (Some(from), Some(to)) = (types(old), types(new))
    {
        let (span, new_span) = (from.span.clone(), to.span.clone());
        let made = numberings.made(from, to);
        pair.replace(span.start as u64..span.end as u64, &made.form);
        known = Some((made.copies, new_span));
    }
    Some(made(old, new, &pair, known, reach, effort))
}

/// What a span of the new bytes is made from.
type Known = (Vec<Piece>, Span<usize>);

fn made(
    old: &[u8],
    new: &[u8],
    pair: &Pair,
    known: Option<Known>,
    reach: Option<Reach>,
    effort: Effort,
) -> Result<Made, TooLarge> {
    let masked = |bytes: &[u8], pointers: &Pointers| {
        let code = Pointers {
            spaces: pointers.spaces.clone(),
            ranges: pointers
                .ranges
                .iter()
                .filter(|range| is_changed(range))
                .cloned()
                .collect(),
        };
        changed(bytes, 0, 0, &code, &Mask)
    };
    let steps = {
        let old = masked(old, &pair.old);
        Matcher::new(&old, effort)?.steps(&masked(new, &pair.new))
    };
    let mut copies = pieces(&steps, 0, 0);
    let targets = changed(new, 0, 0, &pair.new, &Target(None));
    if let Some((known, span)) = known {
        copies = outside(&copies, &[span]);
        copies.extend(known);
        copies.sort_unstable();
    }
    // Those that are pointed into first, since where they go tells what others point to.
    for is_first in [true, false] {
        let of = pair
            .tables
            .iter()
            .filter(|table| table.is_first == is_first);
        let of: Vec<&Table> = of.collect();
        if of.is_empty() {
            continue;
        }
        let projection = projection(&copies);
        let old = changed(old, 0, 0, &pair.old, &Target(Some(&projection)));
        let spans: Vec<_> = of.iter().map(|table| index(&table.new)).collect();
        copies = outside(&copies, &spans);
        copies.extend(tables(&old, &targets, &of, effort)?);
        copies.sort_unstable();
    }
    let mut copies = joined(copies, new.len());
    if let Some(mut reach) = reach {
        copies.retain(|copy| reach.takes(copy.old, copy.len));
    }
    let mut pointers = Pointers::default();
    if copies.len() as u64 <= MOST_COPIES {
        pointers = pair.old.clone();
        worth(&mut pointers, old, new, &copies);
        pointers.forget_unused();
        if !pointers.fit() {
            pointers = Pointers::default();
        }
    }
    let predicted = predicted(old, &copies, &pointers, &projection(&copies));
    Ok(Made {
        copies,
        pointers,
        predicted,
    })
}

/// Whether pointers of a range are changed before anything is compared: in code they are of no account, and
/// what became of types is known.
fn is_changed(range: &Range) -> bool {
    matches!(
        range.form,
        Form::X86 { .. } | Form::Aarch64 { .. } | Form::Btf { .. }
    )
}

/// The bytes with all their pointers changed.
fn changed(bytes: &[u8], old: u64, new: u64, pointers: &Pointers, by: &impl Change) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places = Places { old, new };
    pointers.change(&mut bytes, (places, &mut State::default()), false, by);
    bytes
}

/// A pointer is of no account.
struct Mask;

impl Change for Mask {
    fn change(&self, pointer: &Pointer<'_>, number: u64) -> Option<u64> {
        pointer.target(number).map(|_| 0)
    }
}

/// A pointer is what it points to in the new file.
struct Target<'a>(Option<&'a Projection>);

impl Change for Target<'_> {
    fn change(&self, pointer: &Pointer<'_>, number: u64) -> Option<u64> {
        let target = pointer.target(number)?;
        match self.0 {
            Some(projection) => projection.project(target),
            None => Some(target),
        }
    }
}

/// The copies of some steps, which are counted from these places.
fn pieces(steps: &[Step], old: usize, new: usize) -> Vec<Piece> {
    let mut at = new;
    let mut pieces = Vec::new();
    for step in steps {
        at += step.literal;
        if step.copy > 0 {
            pieces.push(Piece {
                new: at,
                old: old + step.old,
                len: step.copy,
            });
        }
        at += step.copy;
    }
    pieces
}

fn projection(copies: &[Piece]) -> Projection {
    let moves = copies.iter().map(|copy| Move {
        old: copy.old as u64,
        len: copy.len as u64,
        new: copy.new as u64,
    });
    Projection::new(moves.collect())
}

fn index(span: &Span<u64>) -> Span<usize> {
    crate::patch::plan::index(span)
}

/// What of the copies does not make these spans.
fn outside(copies: &[Piece], spans: &[Span<usize>]) -> Vec<Piece> {
    let mut kept = Vec::new();
    for copy in copies {
        let (mut at, end) = (copy.new, copy.new + copy.len);
        let mut keep = |from: usize, to: usize| {
            if from < to {
                kept.push(Piece {
                    new: from,
                    old: copy.old + (from - copy.new),
                    len: to - from,
                });
            }
        };
        let first = spans.partition_point(|span| span.end <= at);
        for span in &spans[first..] {
            if span.start >= end {
                break;
            }
            keep(at, span.start);
            at = at.max(span.end);
        }
        keep(at, end);
    }
    kept
}

/// What tables are made from, by what they point to.
fn tables(
    old: &[u8],
    new: &[u8],
    tables: &[&Table],
    effort: Effort,
) -> Result<Vec<Piece>, TooLarge> {
    let mut copies = Vec::new();
    for table in tables {
        let (from, to) = (index(&table.old), index(&table.new));
        let (mut old, mut new) = (old[from.clone()].to_vec(), new[to.clone()].to_vec());
        if table.counts {
            for entries in [&mut old, &mut new] {
                entries
                    .chunks_exact_mut(RELOCATION)
                    .for_each(|entry| entry[..8].fill(0));
            }
        }
        let steps = Matcher::new(&old, effort)?.steps(&new);
        copies.extend(pieces(&steps, from.start, to.start));
    }
    Ok(copies)
}

/// Copies that go on with each other become one, and those that are not worth it literals.
fn joined(copies: Vec<Piece>, len: usize) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::with_capacity(copies.len());
    for copy in copies {
        match joined.last_mut() {
            Some(last) if last.new + last.len == copy.new && last.old + last.len == copy.old => {
                last.len += copy.len;
            }
            _ => joined.push(copy),
        }
    }
    let mut at = 0;
    let mut steps = Vec::with_capacity(joined.len());
    for copy in &joined {
        steps.push(Step {
            literal: copy.new - at,
            old: copy.old,
            copy: copy.len,
        });
        at = copy.new + copy.len;
    }
    debug_assert!(at <= len, "copies make no more than there is");
    pieces(&worthwhile(steps), 0, 0)
}

/// Keeps the ranges whose pointers spare something.
fn worth(pointers: &mut Pointers, old: &[u8], new: &[u8], copies: &[Piece]) {
    let mut gains = vec![0_isize; pointers.ranges.len()];
    let predicted = predicted(old, copies, pointers, &projection(copies));
    for (copy, predicted) in copies.iter().zip(predicted) {
        let (old_, new) = (
            &old[copy.old..copy.old + copy.len],
            &new[copy.new..copy.new + copy.len],
        );
        if predicted == old_ {
            continue;
        }
        let (start, end) = (copy.old as u64, (copy.old + copy.len) as u64);
        let first = pointers.ranges.partition_point(|range| range.end <= start);
        for (range, gain) in pointers.ranges.iter().zip(&mut gains).skip(first) {
            if range.start >= end {
                break;
            }
            let part = index(&(range.start.max(start) - start..range.end.min(end) - start));
            let differing = |bytes: &[u8]| {
                let pairs = bytes[part.clone()].iter().zip(&new[part.clone()]);
                pairs
                    .filter(|(one, other)| one != other)
                    .count()
                    .cast_signed()
            };
            *gain += differing(old_) - differing(&predicted);
        }
    }
    let gains: Vec<usize> = gains
        .into_iter()
        .map(|gain| gain.max(0).cast_unsigned())
        .collect();
    let sum: usize = gains.iter().sum();
    let mut gains = gains.into_iter();
    pointers.ranges.retain(|_| {
        let gain = gains.next().unwrap_or(0);
        sum >= WORTH_TELLING && gain >= WORTH_A_RANGE
    });
}

/// What copies are before anything is added; `projection` tells where old bytes went.
fn predicted(
    old: &[u8],
    copies: &[Piece],
    pointers: &Pointers,
    projection: &Projection,
) -> Vec<Vec<u8>> {
    let predict = |copy: &Piece| {
        let bytes = &old[copy.old..copy.old + copy.len];
        changed(
            bytes,
            copy.old as u64,
            copy.new as u64,
            pointers,
            projection,
        )
    };
    copies.iter().map(predict).collect()
}

//! Pointers as control numbers.

use std::sync::Arc;

use crate::patch::pointers::{
    Field, Form, Layout, Numbering, Pointers, Range, Space, Stretch, Width,
};
use crate::patch::projection::{Move, Projection};
use crate::patch::varint::{fold, unfold};

/// Most spaces of a run.
const MOST_SPACES: usize = 256;

/// Most stretches of all spaces of a run.
const MOST_STRETCHES: usize = 1024;

/// Most ranges of a run.
const MOST_RANGES: usize = 1024;

/// Most pointers in an entry of a table.
const MOST_FIELDS: usize = 4;

/// Longest entry of a table, in bytes.
const LONGEST_ENTRY: u64 = 4096;

impl Pointers {
    /// Appends their numbers.
    pub fn put(&self, numbers: &mut Vec<u64>) {
        numbers.push(self.spaces.len() as u64);
        for space in &self.spaces {
            numbers.push(space.unit);
            for layout in [&space.old, &space.new] {
                numbers.push(layout.0.len() as u64);
                let mut at = 0;
                for stretch in &layout.0 {
                    let address = fold(stretch.address.cast_signed());
                    numbers.extend([stretch.at - at, address, stretch.len]);
                    at = stretch.at + stretch.len;
                }
            }
        }
        numbers.push(self.ranges.len() as u64);
        let mut at = 0;
        for range in &self.ranges {
            numbers.extend([range.start - at, range.end - range.start]);
            at = range.end;
            match &range.form {
                Form::X86 { space, absolute } => {
                    numbers.extend([u64::from(*absolute), *space as u64]);
                }
                Form::Frames { space } => numbers.extend([3, *space as u64]),
                Form::Aarch64 { space } => numbers.extend([4, *space as u64]),
                Form::Btf { names, types } => {
                    numbers.push(5);
                    for numbering in [names, types] {
                        numbers.push(numbering.number as u64);
                        numbering.own.put(numbers);
                    }
                }
                Form::Table { entry, fields } => {
                    numbers.extend([2, *entry, fields.len() as u64]);
                    for field in fields {
                        numbers.extend([field.at, field.width as u64, field.space as u64]);
                    }
                }
            }
        }
    }

    /// Whether they are few enough for a run.
    pub fn fit(&self) -> bool {
        let stretches = |space: &Space| space.old.0.len() + space.new.0.len();
        self.spaces.len() <= MOST_SPACES
            && self.spaces.iter().map(stretches).sum::<usize>() <= MOST_STRETCHES
            && self.ranges.len() <= MOST_RANGES
    }

    /// Reads them from numbers; none if they make no sense. `numberings` are those that were told before.
    pub fn get<E>(
        mut next: impl FnMut() -> Result<u64, E>,
        numberings: &[Arc<Projection>],
    ) -> Result<Option<Self>, E> {
        let mut pointers = Self::default();
        let Some(spaces) = count(next()?, MOST_SPACES) else {
            return Ok(None);
        };
        let mut stretches = MOST_STRETCHES;
        for _ in 0..spaces {
            let unit = next()?;
            let (old, new) = (
                layout(&mut next, &mut stretches)?,
                layout(&mut next, &mut stretches)?,
            );
            let (Some(old), Some(new), true) = (old, new, unit > 0) else {
                return Ok(None);
            };
            pointers.spaces.push(Space { unit, old, new });
        }
        let Some(ranges) = count(next()?, MOST_RANGES) else {
            return Ok(None);
        };
        let told = numberings.iter().map(|told| told.moves().len());
        let mut entries = MOST_ENTRIES.saturating_sub(told.sum());
        let mut at = 0_u64;
        for _ in 0..ranges {
            let (gap, len) = (next()?, next()?);
            let start = at.checked_add(gap);
            let end = start.and_then(|start| start.checked_add(len));
            let form = form(&mut next, spaces, (numberings, &mut entries))?;
            let (Some(start), Some(end), Some(form)) = (start, end, form) else {
                return Ok(None);
            };
            pointers.ranges.push(Range { start, end, form });
            at = end;
        }
        Ok(Some(pointers))
    }
}

/// The largest number that a numbering tells of.
const MOST_NUMBER: u64 = u32::MAX as u64;

/// Most entries of all numberings of a patch and of a run together.
pub(crate) const MOST_ENTRIES: usize = 64 << 10;

impl Projection {
    /// Appends where numbers went as numbers: how many entries there are, and for each how much larger it
    /// is than the one before, and how much farther it went.
    pub fn put(&self, numbers: &mut Vec<u64>) {
        numbers.push(self.moves().len() as u64);
        let (mut old, mut by) = (0, 0_i64);
        for entry in self.moves() {
            let now = entry.new.wrapping_sub(entry.old).cast_signed();
            numbers.extend([entry.old - old, fold(now.wrapping_sub(by))]);
            (old, by) = (entry.old, now);
        }
    }

    /// Reads that, of at most so many entries; none if they make no sense.
    pub(crate) fn get<E>(
        next: &mut impl FnMut() -> Result<u64, E>,
        most: usize,
    ) -> Result<Option<Self>, E> {
        let Some(entries) = count(next()?, most) else {
            return Ok(None);
        };
        let mut moves = Vec::with_capacity(entries);
        let (mut old, mut by) = (0_u64, 0_i64);
        for i in 0..entries {
            let (gap, more) = (next()?, unfold(next()?));
            let place = old.checked_add(gap).filter(|_| i == 0 || gap > 0);
            let place = place.filter(|&place| place <= MOST_NUMBER);
            by = by.wrapping_add(more);
            let new = place.and_then(|place| place.checked_add_signed(by));
            let (Some(place), Some(new)) = (place, new.filter(|&new| new <= MOST_NUMBER)) else {
                return Ok(None);
            };
            old = place;
            moves.push(Move { old, len: 1, new });
        }
        Ok(Some(Self::new(moves)))
    }
}

fn count(number: u64, most: usize) -> Option<usize> {
    usize::try_from(number).ok().filter(|&count| count <= most)
}

fn layout<E>(
    next: &mut impl FnMut() -> Result<u64, E>,
    most: &mut usize,
) -> Result<Option<Layout>, E> {
    let Some(stretches) = count(next()?, *most) else {
        return Ok(None);
    };
    *most -= stretches;
    let mut layout = Layout::default();
    let mut at = 0_u64;
    for _ in 0..stretches {
        let (gap, address, len) = (next()?, unfold(next()?), next()?);
        let start = at.checked_add(gap);
        let Some((start, end)) = start.and_then(|start| Some((start, start.checked_add(len)?)))
        else {
            return Ok(None);
        };
        layout.0.push(Stretch {
            at: start,
            address: address.cast_unsigned(),
            len,
        });
        at = end;
    }
    Ok(Some(layout))
}

fn form<E>(
    next: &mut impl FnMut() -> Result<u64, E>,
    spaces: usize,
    (numberings, entries): (&[Arc<Projection>], &mut usize),
) -> Result<Option<Form>, E> {
    let number = next()?;
    if number == 5 {
        let mut numbering = || {
            let number = index_below(next()?, numberings.len());
            let own = Projection::get(next, *entries)?;
            *entries -= own.as_ref().map_or(0, |own| own.moves().len());
            Ok(number.zip(own).map(|(number, own)| Numbering {
                number,
                went: Arc::clone(&numberings[number]),
                own: Arc::new(own),
            }))
        };
        let (names, types) = (numbering()?, numbering()?);
        let both = names.zip(types);
        return Ok(both.map(|(names, types)| Form::Btf { names, types }));
    }
    if number != 2 {
        let space = index_below(next()?, spaces);
        return Ok(space.and_then(|space| match number {
            0 | 1 => Some(Form::X86 {
                space,
                absolute: number == 1,
            }),
            3 => Some(Form::Frames { space }),
            4 => Some(Form::Aarch64 { space }),
            _ => None,
        }));
    }
    let entry = next()?;
    let fields = count(next()?, MOST_FIELDS);
    let is_sound = (1..=LONGEST_ENTRY).contains(&entry);
    let (Some(count), true) = (fields, is_sound) else {
        return Ok(None);
    };
    let mut fields = Vec::with_capacity(count);
    let mut free = 0;
    for _ in 0..count {
        let (at, width, space) = (next()?, next()?, index_below(next()?, spaces));
        let width = index_below(width, Width::ALL.len()).map(|width| Width::ALL[width]);
        let (Some(width), Some(space)) = (width, space) else {
            return Ok(None);
        };
        let end = at.checked_add(width.len() as u64);
        let Some(end) = end.filter(|&end| at >= free && end <= entry) else {
            return Ok(None);
        };
        free = end;
        fields.push(Field { at, width, space });
    }
    Ok(Some(Form::Table { entry, fields }))
}

fn index_below(number: u64, end: usize) -> Option<usize> {
    usize::try_from(number).ok().filter(|&index| index < end)
}

//! Changes pointers, piece by piece.

use crate::patch::pointers::aarch64::{self, PAGE};
use crate::patch::pointers::btf::{self, Record};
use crate::patch::pointers::{Field, Form, Layout, Pointers, Space, State, Width, frames, x86};
use crate::patch::projection::Projection;

/// Where bytes are in the old file, and where in the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// In the old file.
    pub old: u64,
    /// In the new file.
    pub new: u64,
}

impl Places {
    pub(super) const fn after(self, len: usize) -> Self {
        let len = len as u64;
        Self {
            old: self.old + len,
            new: self.new + len,
        }
    }
}

/// What a pointer is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The address 0.
    Zero,
    /// So many bytes behind its own place.
    Itself(u64),
    /// The page of its own place.
    Page,
}

/// One pointer, whatever its number is.
#[derive(Clone, Copy, Debug)]
pub struct Pointer<'a> {
    /// Where it is.
    pub places: Places,
    /// What it is counted from.
    pub from: From,
    /// What it points into.
    pub space: &'a Space,
}

impl Pointer<'_> {
    /// The byte of the old file that it points to, if it has this number there.
    pub fn target(&self, number: u64) -> Option<u64> {
        let begin = self.begin(&self.space.old, self.places.old)?;
        self.space.at(&self.space.old, begin.wrapping_add(number))
    }

    /// What number it must have in the new file to point to that byte there.
    fn to(&self, target: u64) -> Option<u64> {
        let there = self.space.address(&self.space.new, target)?;
        let begin = self.begin(&self.space.new, self.places.new)?;
        Some(there.wrapping_sub(begin))
    }

    /// The address that it is counted from, if it is at this place.
    fn begin(&self, layout: &Layout, place: u64) -> Option<u64> {
        let here = || self.space.address(layout, place);
        Some(match self.from {
            From::Zero => 0,
            From::Itself(behind) => here()?.wrapping_add(behind),
            From::Page => here()? & !(PAGE - 1),
        })
    }
}

/// What becomes of a pointer.
pub trait Change {
    /// The number that takes the place of a pointer's `number`, if it points to something that is known.
    fn change(&self, pointer: &Pointer<'_>, number: u64) -> Option<u64>;
}

/// It points to where the copies went.
impl Change for Projection {
    fn change(&self, pointer: &Pointer<'_>, number: u64) -> Option<u64> {
        let target = pointer.target(number)?;
        pointer.to(self.project(target)?)
    }
}

impl Width {
    /// What a pointer is counted from that is written so, if a relative one begins to count so many bytes
    /// behind its own place.
    pub(super) const fn from(self, behind: u64) -> From {
        match self {
            Self::Relative4 => From::Itself(behind),
            Self::Absolute4 | Self::Absolute8 => From::Zero,
        }
    }

    /// Changes a pointer that is written so; whether it points to something that is known.
    pub(super) fn change(self, field: &mut [u8], pointer: &Pointer<'_>, by: &impl Change) -> bool {
        let Some(number) = self.number(field) else {
            return false;
        };
        let changed = by.change(pointer, number);
        if let Some(changed) = changed {
            field.copy_from_slice(&changed.to_le_bytes()[..self.len()]);
        }
        changed.is_some()
    }

    fn number(self, field: &[u8]) -> Option<u64> {
        Some(match self {
            Self::Relative4 | Self::Absolute4 => {
                i64::from(i32::from_le_bytes(*field.first_chunk()?)).cast_unsigned()
            }
            Self::Absolute8 => u64::from_le_bytes(*field.first_chunk()?),
        })
    }
}

impl Pointers {
    /// Changes the pointers in `bytes` of a copy, which stand at `places`. How many of the bytes are
    /// done: behind them begins a pointer that goes on beyond `bytes`; it is left alone if nothing more
    /// `follows`. Thirty-two bytes and more are never all left undone. `state` goes with the copy from its
    /// beginning.
    pub fn change(
        &self,
        bytes: &mut [u8],
        (places, state): (Places, &mut State),
        follows: bool,
        by: &impl Change,
    ) -> usize {
        let old = places.old;
        let first = self.ranges.partition_point(|range| range.end <= old);
        for range in &self.ranges[first..] {
            let start = at_most(range.start.saturating_sub(old), bytes.len());
            if start == bytes.len() {
                break;
            }
            let end = at_most(range.end - old, bytes.len());
            let more = follows && range.end - old > end as u64;
            let done = match &range.form {
                Form::X86 { space, absolute } => {
                    let space = &self.spaces[*space];
                    let bytes = &mut bytes[start..end];
                    start + x86::code(bytes, places.after(start), (space, *absolute), more, by)
                }
                Form::Aarch64 { space } => {
                    let code = aarch64::Code {
                        start: range.start,
                        space: &self.spaces[*space],
                        by,
                    };
                    let bytes = &mut bytes[start..end];
                    start + code.change(bytes, places.after(start), &mut state.pages, more)
                }
                Form::Frames { space } => {
                    let space = &self.spaces[*space];
                    let records = &mut bytes[start..end];
                    let first = until_word(range.start, old + start as u64);
                    start + frames::frames(records, first, places.after(start), space, more, by)
                }
                Form::Btf { names, types } => {
                    let record = &mut state.record;
                    if range.start >= old {
                        *record = Record::default();
                    }
                    let first = until_word(range.start, old + start as u64);
                    let records = &mut bytes[start..end];
                    start + btf::records(records, first, record, (names, types), more)
                }
                Form::Table { entry, fields } => {
                    let first = (old + start as u64 - range.start) % entry;
                    let table = &mut bytes[start..end];
                    let fields = (*entry, &fields[..], first);
                    start + self.table(table, places.after(start), fields, more, by)
                }
            };
            if done < end {
                return done;
            }
        }
        bytes.len()
    }

    /// Entries of a table; the first of `bytes` is the byte `first` of its entry.
    fn table(
        &self,
        bytes: &mut [u8],
        places: Places,
        (entry, fields, first): (u64, &[Field], u64),
        more: bool,
        by: &impl Change,
    ) -> usize {
        // What the field begins at, counted from the beginning of an entry that began earlier.
        let mut begin = 0_u64;
        let len = bytes.len() as u64;
        loop {
            for field in fields {
                let Some(at) = (begin + field.at).checked_sub(first) else {
                    continue;
                };
                if at >= len {
                    return bytes.len();
                }
                let at = at_most(at, bytes.len());
                let end = at + field.width.len();
                let Some(number) = bytes.get_mut(at..end) else {
                    return if more { at } else { bytes.len() };
                };
                let from = field.width.from(0);
                let places = places.after(at);
                let space = &self.spaces[field.space];
                field.width.change(
                    number,
                    &Pointer {
                        places,
                        from,
                        space,
                    },
                    by,
                );
            }
            begin += entry;
            if begin >= first + len {
                return bytes.len();
            }
        }
    }
}

/// How many bytes there are from a place on to the next one that is a multiple of 4 from the beginning.
const fn until_word(start: u64, at: u64) -> usize {
    (start.wrapping_sub(at) % 4) as usize
}

/// How much of `len` there is up to `at`.
fn at_most(at: u64, len: usize) -> usize {
    usize::try_from(at).map_or(len, |at| at.min(len))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::patch::pointers::{Layout, Numbering, Range, Stretch};
    use crate::patch::projection::Move;

    fn layout() -> impl Strategy<Value = Layout> {
        let stretch = (0..400_u64, any::<u64>(), 1..600_u64);
        proptest::collection::vec(stretch, 0..4).prop_map(|stretches| {
            let mut end = 0;
            let place = |(gap, address, len)| {
                let at = end + gap;
                end = at + len;
                // Some near what four bytes can tell.
                let address = if address % 2 == 0 {
                    address % 4096
                } else {
                    address
                };
                Stretch { at, address, len }
            };
            Layout(stretches.into_iter().map(place).collect())
        })
    }

    /// The numberings that there are.
    fn numberings() -> [Arc<Projection>; 2] {
        let entry = |(old, new)| Move { old, len: 1, new };
        let went = |entries: &[_]| Projection::new(entries.iter().copied().map(entry).collect());
        [
            Arc::new(went(&[(1, 2), (5, 3), (1 << 16, 1 << 20)])),
            Arc::new(went(&[(0, 12), (12, 0)])),
        ]
    }

    fn numbering(number: usize) -> Numbering {
        Numbering {
            number,
            went: Arc::clone(&numberings()[number]),
            own: Arc::clone(&numberings()[1 - number]),
        }
    }

    fn form() -> impl Strategy<Value = Form> {
        let table = (1..40_u64, 0..3_usize, 0..3_usize).prop_map(|(entry, width, space)| {
            let width = Width::ALL[width];
            let fits = entry >= width.len() as u64;
            let field = Field {
                at: entry.saturating_sub(width.len() as u64),
                width,
                space,
            };
            let fields = if fits { vec![field] } else { Vec::new() };
            Form::Table { entry, fields }
        });
        prop_oneof![
            (0..3_usize, any::<bool>()).prop_map(|(space, absolute)| Form::X86 { space, absolute }),
            (0..3_usize).prop_map(|space| Form::Aarch64 { space }),
            (0..3_usize).prop_map(|space| Form::Frames { space }),
            (0..2_usize, 0..2_usize).prop_map(|(names, types)| Form::Btf {
                names: numbering(names),
                types: numbering(types),
            }),
            table,
        ]
    }

    fn pointers() -> impl Strategy<Value = Pointers> {
        let space = (1..30_u64, layout(), layout());
        let spaces = proptest::collection::vec(space, 3);
        let ranges = proptest::collection::vec((0..100_u64, 0..500_u64, form()), 0..6);
        (spaces, ranges).prop_map(|(spaces, ranges)| {
            let space = |(unit, old, new)| Space { unit, old, new };
            let mut at = 0;
            let range = |(gap, len, form)| {
                let start = at + gap;
                at = start + len;
                Range {
                    start,
                    end: at,
                    form,
                }
            };
            Pointers {
                spaces: spaces.into_iter().map(space).collect(),
                ranges: ranges.into_iter().map(range).collect(),
            }
        })
    }

    /// Bytes that look like code, records and small numbers more often than noise does.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            Just(0_u8),
            Just(0xe8),
            Just(0x0f),
            Just(0x84),
            Just(0x05),
            Just(12),
            Just(1),
            any::<u8>(),
        ];
        proptest::collection::vec(byte, 0..900)
    }

    /// Instructions of AArch64 that belong together more often than noise does.
    fn instructions() -> impl Strategy<Value = Vec<u8>> {
        let kinds = [
            0x9000_0000,
            0xb0ff_ffe0,
            0x9100_0000,
            0xf940_0000,
            0xb900_0000,
            0x3dc0_0000,
            0x9400_0000,
            0x5400_0000,
            0x3600_0000,
            0xd503_201f,
        ];
        let instruction = (0..kinds.len(), 0..3_u32, 0..3_u32, 0..300_u32);
        let instruction = instruction.prop_map(move |(kind, one, other, number)| {
            // What a kind has set stays so.
            (kinds[kind] | one | other << 5 | number << 10).to_le_bytes()
        });
        proptest::collection::vec(instruction, 0..220).prop_map(|all: Vec<[u8; 4]>| all.concat())
    }

    fn projection() -> Projection {
        let copy = |old, len, new| Move { old, len, new };
        Projection::new(vec![
            copy(0, 300, 40),
            copy(100, 20, 900),
            copy(310, 500, 360),
            copy(u64::MAX - 3, 10, 0),
        ])
    }

    proptest! {
        #[test]
        fn a_numbering_that_is_written_is_read(
            entries in proptest::collection::btree_map(any::<u32>(), any::<u32>(), 0..40),
        ) {
            let entry = |(&old, &new): (&u32, &u32)| Move { old: old.into(), len: 1, new: new.into() };
            let moves: Vec<_> = entries.iter().map(entry).collect();
            let count = moves.len();
            let went = Projection::new(moves);
            let mut numbers = Vec::new();
            went.put(&mut numbers);
            let read = |most| {
                let mut numbers = numbers.iter().copied();
                Projection::get(&mut || numbers.next().ok_or("too few"), most)
            };
            prop_assert_eq!(read(count), Ok(Some(went)));
            if count > 0 {
                prop_assert_eq!(read(count - 1), Ok(None));
            }
        }

        #[test]
        fn what_is_written_is_read(pointers in pointers()) {
            let mut numbers = Vec::new();
            pointers.put(&mut numbers);
            let mut numbers = numbers.into_iter();
            let read = Pointers::get(|| numbers.next().ok_or("too few"), &numberings());
            let read = read.unwrap();
            prop_assert_eq!(read, Some(pointers));
            prop_assert_eq!(numbers.next(), None);
        }

        #[test]
        fn any_numbers_are_read_or_refused(
            numbers in proptest::collection::vec(prop_oneof![0..6_u64, any::<u64>()], 0..60),
            mut bytes in prop_oneof![bytes(), instructions()],
            old in any::<u64>(),
        ) {
            let mut numbers = numbers.into_iter().chain(std::iter::repeat(0));
            let read = Pointers::get(|| numbers.next().ok_or("endless"), &numberings());
            let read = read.unwrap();
            if let Some(pointers) = read {
                for old in [0, old] {
                    let places = Places { old, new: 7 };
                    pointers.change(&mut bytes, (places, &mut State::default()), true, &projection());
                }
            }
        }

        #[test]
        fn pieces_of_any_length_give_the_same(
            pointers in pointers(),
            bytes in prop_oneof![bytes(), instructions()],
            old in 0..200_u64,
            lengths in proptest::collection::vec(32..90_usize, 1..20),
        ) {
            let projection = projection();
            let mut whole = bytes.clone();
            let places = Places { old, new: 3 };
            let mut state = State::default();
            let done = pointers.change(&mut whole, (places, &mut state), false, &projection);
            prop_assert_eq!(done, bytes.len());
            let mut state = State::default();
            let (mut made, mut at) = (Vec::new(), 0);
            for len in lengths.iter().cycle() {
                let end = (at + len).min(bytes.len());
                let mut piece = bytes[at..end].to_vec();
                let follows = end < bytes.len();
                let places = (places.after(at), &mut state);
                let done = pointers.change(&mut piece, places, follows, &projection);
                prop_assert!(done > 0 || piece.is_empty());
                made.extend_from_slice(&piece[..done]);
                at += done;
                if at == bytes.len() {
                    break;
                }
            }
            prop_assert_eq!(made, whole);
        }
    }

    #[test]
    fn a_call_follows_what_it_calls() {
        // Ten bytes were put in between the call and what it calls.
        let layout = |len| {
            Layout(vec![Stretch {
                at: 0,
                address: 0x1000,
                len,
            }])
        };
        let pointers = Pointers {
            spaces: vec![Space {
                unit: 1,
                old: layout(100),
                new: layout(110),
            }],
            ranges: vec![Range {
                start: 0,
                end: 100,
                form: Form::X86 {
                    space: 0,
                    absolute: false,
                },
            }],
        };
        let copy = |old, len, new| Move { old, len, new };
        let projection = Projection::new(vec![copy(0, 20, 0), copy(20, 80, 30)]);
        let mut code = [0x90, 0xe8, 44, 0, 0, 0, 0xc3];
        let places = Places { old: 0, new: 0 };
        let places = (places, &mut State::default());
        assert_eq!(pointers.change(&mut code, places, false, &projection), 7);
        assert_eq!(code, [0x90, 0xe8, 54, 0, 0, 0, 0xc3]);
    }
}

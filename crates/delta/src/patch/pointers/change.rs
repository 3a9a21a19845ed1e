//! Changes pointers, piece by piece.

use crate::patch::pointers::{Field, Form, Pointers, Space, Width, code, frames};
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

/// One pointer.
#[derive(Clone, Copy, Debug)]
pub struct Pointer<'a> {
    /// Where it is.
    pub places: Places,
    /// How it is written.
    pub width: Width,
    /// How far behind its beginning a relative one begins to count.
    pub ahead: u64,
    /// What it points into.
    pub space: &'a Space,
}

impl Pointer<'_> {
    /// The byte of the old file that it points to, if it has these bytes there.
    pub fn target(&self, bytes: &[u8]) -> Option<u64> {
        let signed = i64::from(i32::from_le_bytes(*bytes.first_chunk()?));
        let address = match self.width {
            Width::Relative4 => {
                let here = self.space.address(&self.space.old, self.places.old)?;
                here.wrapping_add(self.ahead).wrapping_add_signed(signed)
            }
            Width::Absolute4 => signed.cast_unsigned(),
            Width::Absolute8 => u64::from_le_bytes(*bytes.first_chunk()?),
        };
        self.space.at(&self.space.old, address)
    }

    /// What it must be in the new file to point to that byte there.
    fn to(&self, target: u64) -> Option<u64> {
        let there = self.space.address(&self.space.new, target)?;
        Some(match self.width {
            Width::Relative4 => {
                let here = self.space.address(&self.space.new, self.places.new)?;
                there.wrapping_sub(here.wrapping_add(self.ahead))
            }
            Width::Absolute4 | Width::Absolute8 => there,
        })
    }
}

/// What becomes of a pointer.
pub trait Change {
    /// Changes the pointer in `bytes`; whether it points to something that is known.
    fn change(&self, bytes: &mut [u8], pointer: &Pointer<'_>) -> bool;
}

/// It points to where the copies went.
impl Change for Projection {
    fn change(&self, bytes: &mut [u8], pointer: &Pointer<'_>) -> bool {
        let target = pointer.target(bytes).and_then(|old| self.project(old));
        let Some(moved) = target.and_then(|target| pointer.to(target)) else {
            return false;
        };
        let len = bytes.len();
        bytes.copy_from_slice(&moved.to_le_bytes()[..len]);
        true
    }
}

impl Pointers {
    /// Changes the pointers in `bytes`, which stand at `places`. How many of the bytes are done:
    /// behind them begins a pointer that goes on beyond `bytes`; it is left alone if nothing more
    /// `follows`. Sixteen bytes and more are never all left undone.
    pub fn change(
        &self,
        bytes: &mut [u8],
        places: Places,
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
                    start + code::x86(bytes, places.after(start), (space, *absolute), more, by)
                }
                Form::Frames { space } => {
                    let space = &self.spaces[*space];
                    let records = &mut bytes[start..end];
                    // Records begin at multiples of 4.
                    let first = (range.start.wrapping_sub(old + start as u64) % 4) as usize;
                    start + frames::frames(records, first, places.after(start), space, more, by)
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
                let Some(pointer) = bytes.get_mut(at..end) else {
                    return if more { at } else { bytes.len() };
                };
                by.change(
                    pointer,
                    &Pointer {
                        places: places.after(at),
                        width: field.width,
                        ahead: 0,
                        space: &self.spaces[field.space],
                    },
                );
            }
            begin += entry;
            if begin >= first + len {
                return bytes.len();
            }
        }
    }
}

/// How much of `len` there is up to `at`.
fn at_most(at: u64, len: usize) -> usize {
    usize::try_from(at).map_or(len, |at| at.min(len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::patch::pointers::{Layout, Range, Stretch};
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
            (0..3_usize).prop_map(|space| Form::Frames { space }),
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
        fn what_is_written_is_read(pointers in pointers()) {
            let mut numbers = Vec::new();
            pointers.put(&mut numbers);
            let mut numbers = numbers.into_iter();
            let read = Pointers::get(|| numbers.next().ok_or("too few")).unwrap();
            prop_assert_eq!(read, Some(pointers));
            prop_assert_eq!(numbers.next(), None);
        }

        #[test]
        fn any_numbers_are_read_or_refused(
            numbers in proptest::collection::vec(prop_oneof![0..5_u64, any::<u64>()], 0..60),
            mut bytes in bytes(),
            old in any::<u64>(),
        ) {
            let mut numbers = numbers.into_iter().chain(std::iter::repeat(0));
            let read = Pointers::get(|| numbers.next().ok_or("endless")).unwrap();
            if let Some(pointers) = read {
                for old in [0, old] {
                    let places = Places { old, new: 7 };
                    pointers.change(&mut bytes, places, true, &projection());
                }
            }
        }

        #[test]
        fn pieces_of_any_length_give_the_same(
            pointers in pointers(),
            bytes in bytes(),
            old in 0..200_u64,
            lengths in proptest::collection::vec(16..70_usize, 1..20),
        ) {
            let projection = projection();
            let mut whole = bytes.clone();
            let places = Places { old, new: 3 };
            prop_assert_eq!(pointers.change(&mut whole, places, false, &projection), bytes.len());
            let (mut made, mut at) = (Vec::new(), 0);
            for len in lengths.iter().cycle() {
                let end = (at + len).min(bytes.len());
                let mut piece = bytes[at..end].to_vec();
                let follows = end < bytes.len();
                let done = pointers.change(&mut piece, places.after(at), follows, &projection);
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
        assert_eq!(pointers.change(&mut code, places, false, &projection), 7);
        assert_eq!(code, [0x90, 0xe8, 54, 0, 0, 0, 0xc3]);
    }
}

//! Kernels for AArch64, which are what they are in memory, without sections: `Image`, as the kernel's
//! `Documentation/arch/arm64/booting.rst` has it. Its tables are known by what is always in their entries.

use std::ops::Range as Span;

use system_image_delta::patch::pointers::{Form, Layout, Space, Stretch, Width};

use crate::patch::plan::index;
use crate::patch::program::pair::{Found, Pair, RELOCATION, Table, table};

/// Where the magic stands, and what it is.
const MAGIC: (usize, &[u8]) = (56, b"ARM\x64");

/// Length of the parts that are code or not, at least, in bytes.
const PART: u64 = 64 << 10;

/// Most parts of a file.
const MOST_PARTS: u64 = 512;

/// In code one of so many instructions calls or jumps, at least.
const CALLS: usize = 32;

/// `r_info` of the relocations, all of which are `R_AARCH64_RELATIVE`.
const RELATIVE: u64 = 0x403;

/// Fewer bytes than that are no table.
const SHORTEST: u64 = 4096;

/// The spaces: places in the kernel, and its addresses.
const PLACES: usize = 0;
const ADDRESSES: usize = 1;

/// A kind of tables. Of each a kernel has one.
struct Kind {
    /// Length of an entry in bytes.
    entry: usize,
    fields: &'static [(u64, Width)],
    space: usize,
    /// Whether it is an entry, if this is what stands before it and the file has this length.
    is_entry: fn(&[u8], Option<&[u8]>, u64) -> bool,
}

const KINDS: [Kind; 4] = [
    // What the kernel moves when it moves itself.
    Kind {
        entry: RELOCATION,
        fields: &[(0, Width::Absolute8), (16, Width::Absolute8)],
        space: ADDRESSES,
        is_entry: |entry, _, _| word(entry, 8) == RELATIVE,
    },
    // `struct alt_instr`: instructions, and those that some machines have in their place, if there are some.
    Kind {
        entry: 12,
        fields: &[(0, Width::Relative4), (4, Width::Relative4)],
        space: PLACES,
        is_entry: |entry, _, _| {
            let (old, new) = (entry[10], entry[11]);
            old > 0 && old % 4 == 0 && (new == old || new == 0) && number(entry, 0) != 0
        },
    },
    // `struct kernel_symbol`: a value, which is far behind it or before it, and behind it a name and a
    // namespace.
    Kind {
        entry: 12,
        fields: &[
            (0, Width::Relative4),
            (4, Width::Relative4),
            (8, Width::Relative4),
        ],
        space: PLACES,
        is_entry: |entry, _, len| {
            let behind = 1..number(entry, 0).min(len);
            behind.contains(&number(entry, 4)) && behind.contains(&number(entry, 8))
        },
    },
    // `kallsyms_offsets`: the places of all symbols, in order.
    Kind {
        entry: 4,
        fields: &[(0, Width::Absolute4)],
        space: PLACES,
        is_entry: |entry, before, len| {
            let least = before.map_or(1, |before| number(before, 0));
            (least..len).contains(&number(entry, 0))
        },
    },
];

/// Where the pointers of an old kernel and of a new one are; nothing if the two are none.
pub(super) fn pair(old: &[u8], new: &[u8]) -> Option<Pair> {
    let (old, new) = (Kernel::read(old)?, Kernel::read(new)?);
    let mut found = Found::default();
    let mut tables = (Vec::new(), Vec::new());
    let both = old.tables.iter().zip(&new.tables);
    for (kind, (old, new)) in KINDS.iter().zip(both) {
        if old.end - old.start < SHORTEST || new.end - new.start < SHORTEST {
            continue;
        }
        tables.0.push(old.clone());
        tables.1.push(new.clone());
        let form = table(kind.entry as u64, kind.fields, &[kind.space; 3]);
        let table = Table {
            new: new.clone(),
            old: old.clone(),
            is_first: false,
            counts: false,
        };
        found.add(&form, table);
    }
    let code = Form::Aarch64 { space: PLACES };
    found.extend(&code, old.code(tables.0), new.code(tables.1));
    let spaces = |from: &Kernel<'_>| {
        let space = |from, to| Space {
            unit: 1,
            old: from,
            new: to,
        };
        vec![
            space(from.layout(0), new.layout(0)),
            space(from.layout(from.address()), new.layout(new.address())),
        ]
    };
    Some(found.pair((spaces(&old), spaces(&new))))
}

/// Whether a file begins like one.
pub(super) fn is_kernel(bytes: &[u8]) -> bool {
    let (at, magic) = MAGIC;
    bytes
        .get(at..)
        .is_some_and(|bytes| bytes.starts_with(magic))
}

/// What is known of a file.
struct Kernel<'a> {
    bytes: &'a [u8],
    /// The longest table of each kind.
    tables: [Span<u64>; KINDS.len()],
}

impl<'a> Kernel<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        is_kernel(bytes).then_some(())?;
        let len = bytes.len() as u64;
        let tables = KINDS.map(|kind| {
            longest(bytes, kind.entry, |entry, before| {
                (kind.is_entry)(entry, before, len)
            })
        });
        Some(Self { bytes, tables })
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where it is if its first byte has this address.
    fn layout(&self, address: u64) -> Layout {
        Layout(vec![Stretch {
            at: 0,
            address,
            len: self.len(),
        }])
    }

    /// The address of its first byte. What is moved may stand far behind that, but it is a multiple of a
    /// power of two that is larger than the kernel.
    fn address(&self) -> u64 {
        let table = &self.bytes[index(&self.tables[0])];
        let places = table.chunks_exact(RELOCATION).map(|entry| word(entry, 0));
        places.min().unwrap_or(0) & !(self.len().next_power_of_two() - 1)
    }

    /// The parts between tables that look like code.
    fn code(&self, mut tables: Vec<Span<u64>>) -> Vec<Span<u64>> {
        let part = self
            .len()
            .div_ceil(MOST_PARTS)
            .next_multiple_of(4)
            .max(PART);
        tables.sort_by_key(|table| table.start);
        tables.push(self.len()..self.len());
        let mut code = Vec::new();
        let mut at = 0;
        for table in tables {
            while at < table.start {
                let end = table.start.min(at + part);
                if is_code(&self.bytes[index(&(at..end))]) {
                    code.push(at..end);
                }
                at = end;
            }
            at = at.max(table.end);
        }
        code
    }
}

/// Whether enough of it are instructions that call or jump.
fn is_code(bytes: &[u8]) -> bool {
    let instructions = bytes.chunks_exact(4);
    let all = instructions.len();
    let calls = instructions.filter(|one| number(one, 0) & 0x7c00_0000 == 0x1400_0000);
    calls.count() >= all.div_ceil(CALLS)
}

/// The longest table whose entries are so long, and like this beside the one before.
fn longest(
    bytes: &[u8],
    entry: usize,
    is_entry: impl Fn(&[u8], Option<&[u8]>) -> bool,
) -> Span<u64> {
    let mut longest = 0..0;
    let mut at = 0;
    while at + entry <= bytes.len() {
        let mut before = None;
        let entries = bytes[at..].chunks_exact(entry).take_while(|entry| {
            let is_one = is_entry(entry, before);
            before = Some(*entry);
            is_one
        });
        let end = at + entries.count() * entry;
        if end - at > longest.end - longest.start {
            longest = at..end;
        }
        at = end.max(at + 4);
    }
    longest.start as u64..longest.end as u64
}

fn number(entry: &[u8], at: usize) -> u64 {
    let number = entry[at..].first_chunk().expect("entries are longer");
    u32::from_le_bytes(*number).into()
}

fn word(entry: &[u8], at: usize) -> u64 {
    let word = entry[at..].first_chunk().expect("entries are longer");
    u64::from_le_bytes(*word)
}

#[cfg(test)]
mod tests {
    use system_image_delta::patch::pointers::Range;
    use system_image_testkit::{Linked, aarch64};

    use super::*;

    #[test]
    fn tables_of_a_kernel_are_found() {
        let kernel = aarch64(1500, 0, Linked::Kernel);
        let kernel = Kernel::read(&kernel).unwrap();
        assert_eq!(kernel.address(), 0xffff_8000_0800_0000);
        let entries = KINDS.iter().zip(&kernel.tables);
        let entries = entries.map(|(kind, table)| (table.end - table.start) / kind.entry as u64);
        assert_eq!(entries.collect::<Vec<_>>(), [1500; 4]);
        let pair = pair(kernel.bytes, kernel.bytes).unwrap();
        assert_eq!(pair.tables.len(), 4);
        let is_code = |range: &&Range| range.form == Form::Aarch64 { space: PLACES };
        assert_eq!(pair.old.ranges.iter().filter(is_code).count(), 3);
        assert!(Kernel::read(b"MZ").is_none());
    }

    #[test]
    fn what_only_begins_like_a_kernel_has_no_tables() {
        let mut kernel = vec![0; 100_000];
        kernel[56..60].copy_from_slice(MAGIC.1);
        let pair = pair(&kernel, &kernel).unwrap();
        assert!(pair.tables.is_empty() && pair.old.ranges.is_empty());
    }
}

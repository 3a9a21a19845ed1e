//! Programs: where the pointers of an ELF file stand, and what they point into. Only little-endian
//! files of 64 bits for x86-64 and AArch64 are looked into.

use std::collections::BTreeMap;
use std::ops::Range as Span;

use system_image_delta::patch::pointers::{Form, Layout, Space, Stretch, Width};

use crate::patch::plan::index;
use crate::patch::program::pair::{Found, Pair, RELOCATION, Table, table};

/// Most sections of a file.
const MOST_SECTIONS: u64 = 1024;

/// Most segments of a file.
const MOST_SEGMENTS: u64 = 32;

/// `e_type` of what is linked later: there each section has addresses of its own.
const RELOCATABLE: u64 = 1;
/// `e_type` of what runs at fixed addresses.
const EXECUTABLE: u64 = 2;

/// `e_machine`.
const X86_64: u64 = 62;
const AARCH64: u64 = 183;

/// `sh_type` of what is neither of the following.
const PROGBITS: u64 = 1;
const SYMTAB: u64 = 2;
const RELA: u64 = 4;
const NOBITS: u64 = 8;
const INIT_ARRAY: u64 = 14;
const FINI_ARRAY: u64 = 15;
const DYNSYM: u64 = 11;

/// Length of a symbol in bytes.
const SYMBOL: u64 = 24;

/// `sh_flags` of code.
const EXECINSTR: u64 = 4;

struct Section<'a> {
    name: &'a [u8],
    kind: u64,
    flags: u64,
    address: u64,
    span: Span<u64>,
    /// Sections that go with it and that it is about, by number.
    link: u64,
    info: u64,
}

/// What is known of a file.
struct Elf<'a> {
    machine: u64,
    sections: Vec<Section<'a>>,
    layout: Layout,
    is_relocatable: bool,
    is_executable: bool,
    bytes: &'a [u8],
}

/// The little-endian number of `len` bytes at `at`.
fn number(bytes: &[u8], at: u64, len: usize) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let field = bytes.get(at..at.checked_add(len)?)?;
    let digits = field.iter().rev();
    Some(digits.fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

impl<'a> Elf<'a> {
    /// Looks into a file; nothing if it is not one of those that are understood.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        bytes.starts_with(b"\x7fELF\x02\x01\x01").then_some(())?;
        let machine = number(bytes, 18, 2)?;
        [X86_64, AARCH64].contains(&machine).then_some(())?;
        let kind = number(bytes, 16, 2)?;
        let (segments, count) = (number(bytes, 32, 8)?, number(bytes, 56, 2)?);
        let mut layout = Layout::default();
        for i in 0..count.min(MOST_SEGMENTS) {
            let at = segments.checked_add(56 * i)?;
            let field = |offset| number(bytes, at.checked_add(offset)?, 8);
            if number(bytes, at, 4)? == 1 {
                layout.0.push(Stretch {
                    at: field(8)?,
                    address: field(16)?,
                    len: field(32)?,
                });
            }
        }
        let (headers, count) = (number(bytes, 40, 8)?, number(bytes, 60, 2)?);
        let header = |i: u64| headers.checked_add(64 * i);
        let names = number(bytes, header(number(bytes, 62, 2)?)?.checked_add(24)?, 8)?;
        let mut sections = Vec::new();
        for i in 0..count.min(MOST_SECTIONS) {
            let at = header(i)?;
            let field = |offset, len| number(bytes, at.checked_add(offset)?, len);
            let name = usize::try_from(names.checked_add(field(0, 4)?)?).ok()?;
            let name = bytes.get(name..)?.split(|&byte| byte == 0).next()?;
            let kind = field(4, 4)?;
            // What has no bytes may claim to have them anywhere.
            let (start, size) = if kind == NOBITS {
                (0, 0)
            } else {
                (field(24, 8)?, field(32, 8)?)
            };
            let end = start.checked_add(size)?;
            if end > bytes.len() as u64 {
                return None;
            }
            sections.push(Section {
                name,
                kind,
                flags: field(8, 8)?,
                address: field(16, 8)?,
                span: start..end,
                link: field(40, 4)?,
                info: field(44, 4)?,
            });
        }
        Some(Self {
            machine,
            sections,
            layout: ordered(layout)?,
            is_relocatable: kind == RELOCATABLE,
            is_executable: kind == EXECUTABLE,
            bytes,
        })
    }

    fn section(&self, name: &[u8]) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Where a section is loaded to: on its own in what is not linked yet, else with all others.
    fn layout(&self, name: &[u8]) -> Layout {
        if self.is_relocatable {
            self.inside(name)
        } else {
            self.layout.clone()
        }
    }

    /// All that is loaded, with addresses that count from the beginning of a section.
    fn from(&self, name: &[u8]) -> Layout {
        let mut layout = self.layout.clone();
        let start = self.section(name).map_or(0, |section| section.address);
        for stretch in &mut layout.0 {
            stretch.address = stretch.address.wrapping_sub(start);
        }
        layout
    }

    /// By how much the first numbers of a table of relocations grow from entry to entry, if they do
    /// so from 0 on: before linking it is about a section of nothing but zeros, and nothing tells
    /// which of them went where.
    fn step(&self, section: &Section<'_>) -> Option<u64> {
        (self.is_relocatable && section.kind == RELA).then_some(())?;
        let about = self.sections.get(usize::try_from(section.info).ok()?)?;
        let is_blank = self.bytes[index(&about.span)].iter().all(|&byte| byte == 0);
        is_blank.then_some(())?;
        let table = &self.bytes[index(&section.span)];
        let step = number(table, RELOCATION as u64, 8)?;
        let counts = number(table, 0, 8)? == 0 && [4, 8, 12].contains(&step);
        counts.then_some(step)
    }

    /// A section on its own.
    fn inside(&self, name: &[u8]) -> Layout {
        let section = self
            .section(name)
            .filter(|section| !section.span.is_empty());
        let stretch = |section: &Section<'_>| Stretch {
            at: section.span.start,
            address: 0,
            len: section.span.end - section.span.start,
        };
        Layout(section.map(stretch).into_iter().collect())
    }
}

/// A layout in the order of the file, if its stretches are apart from each other.
fn ordered(mut layout: Layout) -> Option<Layout> {
    layout.0.retain(|stretch| stretch.len > 0);
    layout.0.sort_by_key(|stretch| stretch.at);
    let mut free = 0;
    for stretch in &layout.0 {
        (stretch.at >= free).then_some(())?;
        free = stretch.at.checked_add(stretch.len)?;
    }
    Some(layout)
}

/// The spaces of two files, by the section that each is about: a linked file has only one.
struct Spaces<'a, 'b> {
    old: &'b Elf<'a>,
    new: &'b Elf<'a>,
    numbers: BTreeMap<Vec<u8>, usize>,
    /// Those of the old file, and of the new one alone.
    both: (Vec<Space>, Vec<Space>),
}

impl Spaces<'_, '_> {
    /// The memory that a section is in.
    fn memory(&mut self, section: &[u8]) -> usize {
        let is_one = !self.old.is_relocatable;
        let name = if is_one { &b""[..] } else { section };
        let layouts = (self.old.layout(section), self.new.layout(section));
        self.add(name.to_vec(), 1, layouts)
    }

    /// The inside of a section, counted from its beginning in so many bytes.
    fn inside(&mut self, section: &[u8], unit: u64) -> usize {
        let name = [section, b"*"].concat();
        let layouts = (self.old.inside(section), self.new.inside(section));
        self.add(name, unit, layouts)
    }

    /// Memory, counted from the beginning of a section.
    fn from(&mut self, section: &[u8]) -> usize {
        let name = [section, b"+"].concat();
        let layouts = (self.old.from(section), self.new.from(section));
        self.add(name, 1, layouts)
    }

    fn add(&mut self, name: Vec<u8>, unit: u64, (old, new): (Layout, Layout)) -> usize {
        let number = self.both.0.len();
        let number = *self.numbers.entry(name).or_insert(number);
        if number == self.both.0.len() {
            self.both.1.push(Space {
                unit,
                old: new.clone(),
                new: new.clone(),
            });
            self.both.0.push(Space { unit, old, new });
        }
        number
    }
}

/// Where the pointers of an old file and of a new one are; nothing if the two are none of those that are
/// understood.
pub(super) fn pair(old: &[u8], new: &[u8]) -> Option<Pair> {
    let (old, new) = (&Elf::read(old)?, &Elf::read(new)?);
    let are_alike = old.machine == new.machine && old.is_relocatable == new.is_relocatable;
    are_alike.then_some(())?;
    let mut spaces = Spaces {
        old,
        new,
        numbers: BTreeMap::new(),
        both: (Vec::new(), Vec::new()),
    };
    let mut found = Found::default();
    for section in &old.sections {
        let Some(other) = new.section(section.name) else {
            continue;
        };
        if section.span.is_empty() || other.span.is_empty() || section.kind != other.kind {
            continue;
        }
        let step = old.step(section);
        if let Some(form) = form(old, section, step, &mut spaces) {
            let table = Table {
                old: section.span.clone(),
                new: other.span.clone(),
                is_first: matches!(section.kind, SYMTAB | DYNSYM),
                counts: step.is_some(),
            };
            found.add(&form, table);
        }
    }
    // A kernel is followed by the places of all its absolute addresses.
    if let (Some(old), Some(new)) = (relocations(old), relocations(new)) {
        let form = table(4, &[(0, Width::Absolute4)], &[spaces.memory(b"")]);
        let table = Table {
            old,
            new,
            is_first: false,
            counts: false,
        };
        found.add(&form, table);
    }
    Some(found.pair(spaces.both))
}

/// Where types may begin in a file.
pub(super) fn types(file: &[u8]) -> Option<u64> {
    let elf = Elf::read(file)?;
    elf.section(b".BTF").map(|section| section.span.start)
}

/// What follows all sections of a kernel that moves itself.
fn relocations(elf: &Elf<'_>) -> Option<Span<u64>> {
    elf.section(b".orc_unwind_ip")
        .filter(|_| elf.is_executable)?;
    let headers = 64 * (elf.sections.len() as u64);
    let end = elf.sections.iter().map(|section| section.span.end).max()?;
    let start = (end.next_multiple_of(8) + headers).next_multiple_of(4);
    let len = elf.bytes.len() as u64;
    (start < len).then_some(start..len)
}

/// How pointers stand in a section, by its kind, its name and its [step](Elf::step).
fn form(
    elf: &Elf<'_>,
    section: &Section<'_>,
    step: Option<u64>,
    spaces: &mut Spaces<'_, '_>,
) -> Option<Form> {
    use Width::{Absolute4, Absolute8, Relative4};
    if section.kind == PROGBITS && section.flags & EXECINSTR != 0 {
        let space = spaces.memory(section.name);
        return Some(match elf.machine {
            AARCH64 => Form::Aarch64 { space },
            _ => Form::X86 {
                space,
                absolute: elf.is_executable,
            },
        });
    }
    // What is linked later is almost all about code.
    let space = spaces.memory(b".text");
    if matches!(section.kind, SYMTAB | DYNSYM) {
        let names = elf.sections.get(usize::try_from(section.link).ok()?)?;
        let names = spaces.inside(names.name, 1);
        let fields = [(0, Absolute4), (8, Absolute8)];
        return Some(table(SYMBOL, &fields, &[names, space]));
    }
    if section.kind == RELA {
        let about = elf.sections.get(usize::try_from(section.info).ok()?)?;
        // One that counts up points to itself, so to say.
        let about = match step {
            Some(step) => spaces.inside(section.name, RELOCATION as u64 / step),
            None => spaces.memory(about.name),
        };
        let symbols = elf.sections.get(usize::try_from(section.link).ok()?)?;
        let symbols = spaces.inside(symbols.name, SYMBOL);
        let fields = [(0, Absolute8), (12, Absolute4), (16, Absolute8)];
        let spaces = [about, symbols, space];
        return Some(table(RELOCATION as u64, &fields, &spaces));
    }
    if elf.is_relocatable {
        return None;
    }
    let (entry, fields): (u64, &[_]) = match (section.kind, section.name) {
        (_, b".eh_frame") => return Some(Form::Frames { space }),
        (_, b".eh_frame_hdr") => {
            let from = spaces.from(section.name);
            return Some(table(4, &[(0, Absolute4)], &[from]));
        }
        // The kernel's tables.
        (_, b".orc_unwind_ip" | b".return_sites" | b".retpoline_sites" | b".smp_locks") => {
            (4, &[(0, Relative4)])
        }
        (_, b"__ksymtab" | b"__ksymtab_gpl") => {
            (12, &[(0, Relative4), (4, Relative4), (8, Relative4)])
        }
        (_, b"__bug_table" | b"__ex_table" | b".altinstructions") => {
            (12, &[(0, Relative4), (4, Relative4)])
        }
        (_, b".parainstructions") => (16, &[(0, Absolute8)]),
        (_, b".pci_fixup") => (16, &[(12, Relative4)]),
        (INIT_ARRAY | FINI_ARRAY, _)
        | (
            PROGBITS,
            b".data" | b".rodata" | b".init.data" | b"__param" | b".data.rel.ro" | b".got"
            | b".got.plt" | b".data..percpu",
        ) => (8, &[(0, Absolute8)]),
        _ => return None,
    };
    Some(table(entry, fields, &vec![space; fields.len()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_without_bytes_may_claim_to_be_anywhere() {
        // A header, then: nothing, names, what has no bytes, a table of relocations about it.
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64 + 4 * 64 + 2 * RELOCATION, 0);
        let mut put = |at: usize, number: u64, len: usize| {
            file[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
        };
        put(16, RELOCATABLE, 2);
        put(18, X86_64, 2);
        put(40, 64, 8);
        put(60, 4, 2);
        put(62, 1, 2);
        let section = |number: usize| 64 + 64 * number;
        put(section(2) + 4, NOBITS, 4);
        put(section(2) + 24, u64::MAX, 8);
        put(section(3) + 4, RELA, 4);
        put(section(3) + 24, 64 + 4 * 64, 8);
        put(section(3) + 32, 2 * RELOCATION as u64, 8);
        put(section(3) + 44, 2, 4);
        put(64 + 4 * 64 + RELOCATION, 8, 8);
        let elf = Elf::read(&file).unwrap();
        assert_eq!(elf.step(&elf.sections[3]), Some(8));
        assert!(pair(&file, &file).is_some());
        assert!(relocations(&elf).is_none());
    }

    #[test]
    fn of_tables_in_one_place_one_counts() {
        // A header, then: names, two tables of relocations that are the same bytes.
        let names = b"\0a\0b";
        let (tables, end) = (64 + 3 * 64 + 8, 64 + 3 * 64 + 8 + 2 * RELOCATION);
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(end, 0);
        let mut put = |at: usize, number: usize, len: usize| {
            file[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
        };
        for (at, number) in [(16, 3), (18, 183), (60, 3)] {
            put(at, number, 2);
        }
        put(40, 64, 8);
        put(64 + 24, 64 + 3 * 64, 8);
        for (number, len) in [(1, 2 * RELOCATION), (2, RELOCATION)] {
            let section = 64 + 64 * number;
            put(section, 2 * number - 1, 4);
            put(section + 4, 4, 4);
            put(section + 24, tables, 8);
            put(section + 32, len, 8);
        }
        file[64 + 3 * 64..][..names.len()].copy_from_slice(names);
        let pair = pair(&file, &file).unwrap();
        assert_eq!((pair.old.ranges.len(), pair.new.ranges.len()), (1, 1));
        assert_eq!(pair.tables.len(), 1);
        assert_eq!(pair.tables[0].new, tables as u64..end as u64);
    }
}

//! Pointers within copied bytes: when what a program points to has moved, the pointer is another
//! one; and where it moved to is known from the copies of the same run.

mod aarch64;
mod btf;
mod change;
mod frames;
mod numbers;
mod x86;

pub(crate) use numbers::MOST_ENTRIES;

pub use btf::{Record, Word};
pub use change::{Change, From, Places, Pointer};

use std::sync::Arc;

use crate::patch::projection::Projection;
use crate::patch::runs::{POINTERS_OF_AARCH64, POINTERS_OF_BTF};
use aarch64::Pages;

/// Bytes that are loaded to successive addresses of a program's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where the bytes are, counted from the beginning of the file.
    pub at: u64,
    /// The address of the first one.
    pub address: u64,
    /// How many there are.
    pub len: u64,
}

/// Where the bytes of a file are loaded to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout(
    /// In the order of the file, apart from each other.
    pub Vec<Stretch>,
);

/// What pointers point to: the old file and the new one in a program's memory, or in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// How many bytes have one address, not 0: 1 in memory, an entry's length in a table of which
    /// entries are pointed to by their number.
    pub unit: u64,
    /// Where the old bytes are.
    pub old: Layout,
    /// Where the new bytes are.
    pub new: Layout,
}

impl Space {
    /// The address of a byte.
    fn address(&self, layout: &Layout, at: u64) -> Option<u64> {
        let within = |stretch: &&Stretch| at.wrapping_sub(stretch.at) < stretch.len;
        let stretch = layout.0.iter().find(within)?;
        let by = (at - stretch.at) / self.unit;
        Some(stretch.address.wrapping_add(by))
    }

    /// The first byte that has an address.
    fn at(&self, layout: &Layout, address: u64) -> Option<u64> {
        layout.0.iter().find_map(|stretch| {
            let by = address.wrapping_sub(stretch.address);
            let by = by.checked_mul(self.unit)?;
            (by < stretch.len).then(|| stretch.at + by)
        })
    }
}

/// How a pointer is written, the lowest byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 4 bytes, counted from their own address.
    Relative4,
    /// 4 bytes, which stand for 8 with their sign.
    Absolute4,
    /// 8 bytes.
    Absolute8,
}

impl Width {
    const ALL: [Self; 3] = [Self::Relative4, Self::Absolute4, Self::Absolute8];

    const fn len(self) -> usize {
        match self {
            Self::Relative4 | Self::Absolute4 => 4,
            Self::Absolute8 => 8,
        }
    }
}

/// A pointer in an entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where in the entry it begins.
    pub at: u64,
    /// How it is written.
    pub width: Width,
    /// The number of the space that it points into.
    pub space: usize,
}

/// What became of numbers that stand for something, as if they were places: each went with the last one in
/// front of it that is known, and those before all of them are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// The number of what is known of several files, among what a patch tells of that.
    pub number: usize,
    /// Where numbers of several files went.
    pub went: Arc<Projection>,
    /// Where numbers of one file went. This comes first.
    pub own: Arc<Projection>,
}

impl Numbering {
    /// What a number is now, if that is known.
    pub fn project(&self, number: u32) -> Option<u32> {
        let number = number.into();
        let now = self.own.project(number);
        let now = now.or_else(|| self.went.project(number))?;
        u32::try_from(now).ok()
    }
}

/// What is known of a copy from the bytes of it that were looked at.
#[derive(Clone, Debug, Default)]
pub struct State {
    pages: Pages,
    record: Record,
}

/// How pointers stand in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Machine code for x86-64.
    X86 {
        /// The number of the space that it runs in.
        space: usize,
        /// Whether it has absolute addresses, too.
        absolute: bool,
    },
    /// Machine code for AArch64, of 4 bytes each instruction.
    Aarch64 {
        /// The number of the space that it runs in.
        space: usize,
    },
    /// Records for unwinding, as in `.eh_frame`.
    Frames {
        /// The number of the space that they describe.
        space: usize,
    },
    /// Types, as BTF has them.
    Btf {
        /// What became of the places of their names.
        names: Numbering,
        /// What became of their numbers.
        types: Numbering,
    },
    /// A table.
    Table {
        /// Length of an entry in bytes, not 0.
        entry: u64,
        /// The pointers in each entry, in order, apart from each other.
        fields: Vec<Field>,
    },
}

impl Form {
    /// What an applier must be able to do for it beside `pointers`, if anything.
    pub const fn feature(&self) -> Option<&'static str> {
        match self {
            Self::Aarch64 { .. } => Some(POINTERS_OF_AARCH64),
            Self::Btf { .. } => Some(POINTERS_OF_BTF),
            Self::X86 { .. } | Self::Frames { .. } | Self::Table { .. } => None,
        }
    }
}

/// A range of the old file with pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// What is in it.
    pub form: Form,
}

/// The pointers of a file that others are made from, as a run's control numbers tell them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    /// What they point into.
    pub spaces: Vec<Space>,
    /// Where they are; in order, apart from each other.
    pub ranges: Vec<Range>,
}

impl Pointers {
    /// Takes out the spaces that no pointer points into.
    pub fn forget_unused(&mut self) {
        let mut numbers = vec![None; self.spaces.len()];
        let mut kept = Vec::new();
        let spaces = &self.spaces;
        let mut number = |space: &mut usize| {
            *space = *numbers[*space].get_or_insert_with(|| {
                kept.push(spaces[*space].clone());
                kept.len() - 1
            });
        };
        for range in &mut self.ranges {
            match &mut range.form {
                Form::X86 { space, .. } | Form::Aarch64 { space } | Form::Frames { space } => {
                    number(space);
                }
                Form::Btf { .. } => {}
                Form::Table { fields, .. } => {
                    for field in fields {
                        number(&mut field.space);
                    }
                }
            }
        }
        self.spaces = kept;
    }
}

//! Types of a file, as BTF has them (the kernel's `Documentation/bpf/btf.rst`).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range as Span;

use system_image_delta::patch::pointers::{Record, Word};

/// What types begin with: magic, version, flags, and the length of what they begin with.
const MAGIC: [u8; 8] = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0];

/// That length, in bytes.
const HEADER: usize = 24;

/// What a module shares with its kernel, so that its own types and strings are counted from there: how many
/// types there are, and how long the strings are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) types: usize,
    pub(super) strings: usize,
}

/// What a word tells of.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Meaning<'a> {
    Name(&'a [u8]),
    /// A name of the kernel, by its place.
    SharedName(u32),
    /// A type of the same file.
    Type,
    /// Nothing, or a type of the kernel, by its number.
    SharedType(u32),
    Other(u32),
}

/// The types of a file.
pub(in crate::patch::program) struct Types<'a> {
    /// Where the records are in the file.
    pub(in crate::patch::program) span: Span<usize>,
    pub(super) strings: &'a [u8],
    /// What is shared by the numbers of its words.
    shared: Shared,
    /// What is shared by the numbers in the file.
    pub(super) first: Shared,
    words: Vec<(u32, Word)>,
    /// Where each record begins among the words, and where the last one ends.
    starts: Vec<usize>,
}

impl<'a> Types<'a> {
    /// Where those of a file may be that has them at a multiple of 4.
    pub(in crate::patch::program) fn find(file: &[u8]) -> Option<usize> {
        let words = file.as_chunks::<4>().0.iter().enumerate();
        let mut places = words.filter(|(_, word)| **word == MAGIC[..4]);
        places.find_map(|(at, _)| file[4 * at..].starts_with(&MAGIC).then_some(4 * at))
    }

    /// Reads those that begin at a place; nothing if there are none.
    pub(in crate::patch::program) fn read(file: &'a [u8], at: usize) -> Option<Self> {
        let all = file.get(at..)?;
        all.starts_with(&MAGIC).then_some(())?;
        let number = |i: usize| {
            let number = all.get(MAGIC.len() + 4 * i..)?.first_chunk()?;
            usize::try_from(u32::from_le_bytes(*number)).ok()
        };
        let part = |at: usize, len: usize| {
            let start = HEADER.checked_add(at)?;
            let end = start.checked_add(len)?;
            (end <= all.len()).then_some(start..end)
        };
        let records = part(number(0)?, number(1)?)?;
        let strings = part(number(2)?, number(3)?)?;
        let (mut words, mut starts) = (Vec::new(), vec![0]);
        let mut record = Record::default();
        for word in all[records.clone()].as_chunks::<4>().0 {
            let word = u32::from_le_bytes(*word);
            words.push((word, record.next(word)));
            if record.is_complete() {
                starts.push(words.len());
            }
        }
        (record.is_complete() && records.len().is_multiple_of(4)).then_some(Self {
            span: at + records.start..at + records.end,
            strings: &all[strings],
            shared: Shared::default(),
            first: Shared::default(),
            words,
            starts,
        })
    }

    /// How many there are. They are counted from 1.
    pub(super) fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// What modules of this kernel share with it.
    pub(super) fn to_share(&self) -> Shared {
        Shared {
            types: self.count(),
            strings: self.strings.len(),
        }
    }

    pub(super) fn record(&self, number: usize) -> &[(u32, Word)] {
        &self.words[self.starts[number - 1]..self.starts[number]]
    }

    /// Where a record begins in the file.
    pub(super) fn place(&self, number: usize) -> usize {
        self.span.start + 4 * self.starts[number - 1]
    }

    /// Which of this file's types a number is.
    pub(super) fn own(&self, number: u32) -> Option<usize> {
        let number = (number as usize).checked_sub(self.shared.types)?;
        (1..=self.count()).contains(&number).then_some(number)
    }

    /// The string that a name is, if it is one of this file.
    fn string(&self, at: u32) -> Option<&'a [u8]> {
        let at = (at as usize).checked_sub(self.shared.strings)?;
        let rest = self.strings.get(at..).unwrap_or_default();
        rest.split(|&byte| byte == 0).next()
    }

    pub(super) fn meaning(&self, (word, what): (u32, Word)) -> Meaning<'a> {
        match what {
            Word::Name => self
                .string(word)
                .map_or(Meaning::SharedName(word), Meaning::Name),
            Word::Type if self.own(word).is_some() => Meaning::Type,
            Word::Type => Meaning::SharedType(word),
            Word::Other => Meaning::Other(word),
        }
    }

    /// What each record is, whatever types of the same file it tells of.
    pub(super) fn keys(&self) -> Vec<u64> {
        let key = |number| {
            let mut hasher = DefaultHasher::new();
            for &word in self.record(number) {
                self.meaning(word).hash(&mut hasher);
            }
            hasher.finish()
        };
        (1..=self.count()).map(key).collect()
    }

    /// The kind and the name of a record, if it has a name.
    pub(super) fn name(&self, number: usize) -> Option<(u32, Meaning<'a>)> {
        let record = self.record(number);
        (record[0].0 > 0).then(|| (record[1].0 >> 24, self.meaning(record[0])))
    }

    /// Counts own numbers from where they begin in the module that shares this with its kernel.
    pub(super) fn share(&mut self, shared: Shared) {
        (self.shared, self.first) = (shared, shared);
    }

    /// Puts the numbers that a module shares with another kernel in the place of those that it shares with
    /// its own.
    pub(super) fn renumber(&mut self, shared: Shared, change: impl Fn(u32, Word) -> Option<u32>) {
        let before = std::mem::replace(&mut self.shared, shared);
        for (word, what) in &mut self.words {
            let number = *word as usize;
            let own = match what {
                Word::Name => number
                    .checked_sub(before.strings)
                    .map(|own| shared.strings + own),
                // 0 is shared by all: it is no type.
                Word::Type => number
                    .checked_sub(before.types + 1)
                    .map(|own| shared.types + 1 + own),
                Word::Other => continue,
            };
            *word = match own {
                None => change(*word, *what).unwrap_or(*word),
                Some(own) => u32::try_from(own).unwrap_or(u32::MAX),
            };
        }
    }
}

/// Strings that stand behind each other, each with its place.
pub(super) fn strings(all: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut at = 0;
    let all = all.split(|&byte| byte == 0).map(move |string| {
        let start = at;
        at += string.len() + 1;
        (string, start)
    });
    all.filter(|(string, _)| !string.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An integer and a pointer to it.
    fn file() -> Vec<u8> {
        let records = [1_u32, 1 << 24, 4, 32, 0, 2 << 24, 1];
        let words = [0, 28, 28, 5].into_iter().chain(records);
        let words = words.flat_map(u32::to_le_bytes);
        MAGIC.into_iter().chain(words).chain(*b"\0int\0").collect()
    }

    #[test]
    fn records_and_their_names_are_read() {
        let file = file();
        let types = Types::read(&file, 0).unwrap();
        assert_eq!((types.count(), &types.span), (2, &(24..52)));
        assert_eq!(types.name(1), Some((1, Meaning::Name(b"int"))));
        assert_eq!(types.name(2), None);
        assert_eq!(types.meaning((1, Word::Type)), Meaning::Type);
        assert_eq!(types.meaning((3, Word::Type)), Meaning::SharedType(3));
        let within = [&[0; 12], &file[..]].concat();
        assert_eq!(Types::find(&within), Some(12));
        assert_eq!(Types::read(&within, 12).unwrap().place(2), 12 + 24 + 16);
    }

    #[test]
    fn numbers_that_are_shared_are_changed_and_own_ones_stay_behind_them() {
        let file = file();
        let shared = |types, strings| Shared { types, strings };
        let mut types = Types::read(&file, 0).unwrap();
        types.share(shared(0, 0));
        types.renumber(shared(7, 90), |_, _| None);
        assert_eq!(types.record(2)[2], (8, Word::Type));
        assert_eq!(types.name(1), Some((1, Meaning::Name(b"int"))));
        let mut types = Types::read(&file, 0).unwrap();
        types.share(shared(1, 2));
        types.renumber(shared(7, 90), |number, _| Some(number + 5));
        assert_eq!(types.record(2)[2], (6, Word::Type));
        assert_eq!(types.name(1), Some((1, Meaning::SharedName(6))));
    }

    #[test]
    fn what_is_not_whole_has_no_types() {
        let file = file();
        for len in 0..file.len() {
            assert!(Types::read(&file[..len], 0).is_none(), "{len}");
        }
        // Where records and strings are, and how long.
        for (at, number) in [
            (8, 4),
            (12, 24),
            (12, 27),
            (12, u32::MAX),
            (16, 29),
            (20, 6),
        ] {
            let mut file = file.clone();
            file[at..at + 4].copy_from_slice(&number.to_le_bytes());
            assert!(Types::read(&file, 0).is_none(), "{at} {number}");
        }
        assert!(Types::read(&file, 1).is_none() && Types::find(&file[4..]).is_none());
    }
}

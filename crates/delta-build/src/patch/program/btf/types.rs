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
            let (last, last_now) = match what {
                Word::Name => (
                    before.strings.saturating_sub(1),
                    shared.strings.saturating_sub(1),
                ),
                Word::Type => (before.types, shared.types),
                Word::Other => continue,
            };
            *word = match (*word as usize).checked_sub(last + 1) {
                None => change(*word, *what).unwrap_or(*word),
                Some(own) => u32::try_from(last_now + 1 + own).unwrap_or(u32::MAX),
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

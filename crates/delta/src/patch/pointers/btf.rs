//! Types of a kernel and of its modules, as BTF has them: records that tell of each other, and of names,
//! by numbers.

use crate::patch::pointers::Numbering;

/// What a word of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Where a name stands among the strings.
    Name,
    /// The number of another record.
    Type,
    /// Neither.
    Other,
}

use Word::{Name, Other, Type};

/// Words before a record's members: its name, what it is, and what depends on that.
const HEAD: usize = 3;

/// How far a record is read, word by word.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// Words of it so far.
    at: usize,
    /// Whether the third word is the number of a record.
    is_about: bool,
    /// What the words of each member are.
    member: &'static [Word],
    /// Words of all members.
    members: usize,
}

impl Record {
    /// One that is so, by its second word.
    fn new(info: u32) -> Self {
        let count = (info & 0xffff) as usize;
        let (member, count): (&[_], _) = match info >> 24 & 0x1f {
            1 | 14 | 17 => (&[Other], 1),
            3 => (&[Type, Type, Other], 1),
            4 | 5 => (&[Name, Type, Other], count),
            6 => (&[Name, Other], count),
            13 => (&[Name, Type], count),
            15 => (&[Type, Other, Other], count),
            19 => (&[Name, Other, Other], count),
            _ => (&[], 0),
        };
        Self {
            at: 2,
            is_about: matches!(info >> 24 & 0x1f, 2 | 8..=14 | 17 | 18),
            member,
            members: member.len() * count,
        }
    }

    /// Whether the next word begins another record.
    pub const fn is_complete(&self) -> bool {
        self.at == 0
    }

    /// What the next word is.
    pub fn next(&mut self, word: u32) -> Word {
        let at = self.at;
        self.at += 1;
        let what = match at {
            0 => Name,
            1 => {
                *self = Self::new(word);
                // A member of a record of which the beginning is not there.
                if word >> 24 == 0 { Type } else { Other }
            }
            2 if self.is_about => Type,
            2 => Other,
            _ => self.member[(at - HEAD) % self.member.len()],
        };
        if self.at >= HEAD && self.at - HEAD == self.members {
            self.at = 0;
        }
        what
    }
}

/// Records, of which the first words may begin at `first`; how many of the bytes are done.
pub(super) fn records(
    bytes: &mut [u8],
    first: usize,
    record: &mut Record,
    (names, types): (&Numbering, &Numbering),
    more: bool,
) -> usize {
    let first = first.min(bytes.len());
    let (words, rest) = bytes[first..].as_chunks_mut::<4>();
    for word in words {
        let number = u32::from_le_bytes(*word);
        let numbering = match record.next(number) {
            Name => names,
            Type => types,
            Other => continue,
        };
        if let Some(changed) = numbering.project(number) {
            *word = changed.to_le_bytes();
        }
    }
    let rest = if more { rest.len() } else { 0 };
    bytes.len() - rest
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::patch::projection::{Move, Projection};

    /// Larger by so much from 1 on.
    fn numbering(by: u64) -> Numbering {
        let went = Projection::new(vec![Move {
            old: 1,
            len: 1,
            new: 1 + by,
        }]);
        Numbering {
            number: 0,
            went: Arc::new(went),
            own: Arc::default(),
        }
    }

    const fn info(kind: u32, members: u32) -> u32 {
        kind << 24 | members
    }

    /// The words after names grew by 100 and types by 1000.
    fn changed(words: &[u32], cut: usize) -> Vec<u32> {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (names, types) = (numbering(100), numbering(1000));
        let mut record = Record::default();
        let (mut at, len) = (0, bytes.len());
        while at < len {
            let end = len.min(at + cut);
            let both = (&names, &types);
            at += records(&mut bytes[at..end], 0, &mut record, both, end < len);
        }
        let words = bytes.as_chunks::<4>().0.iter();
        words.map(|word| u32::from_le_bytes(*word)).collect()
    }

    #[test]
    fn numbers_of_each_kind_of_record_are_changed() {
        let records: [(&[u32], &[u32]); 12] = [
            // An integer: its size and how it is written.
            (&[7, info(1, 0), 4, 32], &[107, info(1, 0), 4, 32]),
            // A pointer, one to nothing.
            (&[0, info(2, 0), 5], &[0, info(2, 0), 1005]),
            (&[0, info(2, 0), 0], &[0, info(2, 0), 0]),
            (
                &[0, info(3, 0), 0, 3, 4, 9],
                &[0, info(3, 0), 0, 1003, 1004, 9],
            ),
            (
                &[8, info(4, 2), 16, 1, 2, 3, 4, 5, 64],
                &[108, info(4, 2), 16, 101, 1002, 3, 104, 1005, 64],
            ),
            (
                &[8, info(6, 2), 4, 1, 2, 3, 4],
                &[108, info(6, 2), 4, 101, 2, 103, 4],
            ),
            (&[9, info(7, 0), 0], &[109, info(7, 0), 0]),
            (&[9, info(12, 1), 6], &[109, info(12, 1), 1006]),
            (
                &[0, info(13, 2), 3, 1, 2, 3, 0],
                &[0, info(13, 2), 1003, 101, 1002, 103, 0],
            ),
            (&[6, info(14, 0), 2, 1], &[106, info(14, 0), 1002, 1]),
            (
                &[6, info(15, 1), 9, 2, 8, 8],
                &[106, info(15, 1), 9, 1002, 8, 8],
            ),
            (
                &[6, info(19, 1), 8, 2, 8, 8],
                &[106, info(19, 1), 8, 102, 8, 8],
            ),
        ];
        let old: Vec<u32> = records.iter().flat_map(|(old, _)| *old).copied().collect();
        let new: Vec<u32> = records.iter().flat_map(|(_, new)| *new).copied().collect();
        for cut in [4, 7, 32, 1000] {
            assert_eq!(changed(&old, cut), new, "{cut}");
        }
    }

    #[test]
    fn what_is_known_of_one_file_comes_first() {
        let mut numbering = numbering(1000);
        let (old, len, new) = (50, 1, 20);
        numbering.own = Arc::new(Projection::new(vec![Move { old, len, new }]));
        let numbers = [0, 1, 49, 50, 60, u32::MAX];
        let changed = numbers.map(|number| numbering.project(number));
        let last = u32::MAX - 30;
        let wanted = [None, Some(1001), Some(1049), Some(20), Some(30), Some(last)];
        assert_eq!(changed, wanted);
    }

    #[test]
    fn members_without_the_beginning_of_their_record_are_changed() {
        let old = [1, 2, 3, 4, 5, 64, 9, info(12, 1), 6];
        let new = [101, 1002, 3, 104, 1005, 64, 109, info(12, 1), 1006];
        assert_eq!(changed(&old, 1000), new);
    }
}

//! Where the three bytes at a position stood before, and the longest match among those places.

use crate::codes::{MAX_MATCH, MIN_MATCH};
use crate::level::{Effort, Flavour, Parsing};
use crate::window::{FARTHEST, HALF, SIZE, Window, boxed};

/// Bits of a hash of three bytes.
const HASH_BITS: u32 = 15;
/// How many hashes there are.
const HASHES: usize = 1 << HASH_BITS;
/// How far each byte moves the hash: when three others have come, nothing is left of a byte.
const SHIFT: u32 = HASH_BITS / 3;

/// The end of a chain. Position 0 is never a match for this reason.
const NOWHERE: usize = 0;

/// A match that was found before the current position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match {
    pub(crate) length: usize,
    /// Where it begins. Without meaning if the length is below [`MIN_MATCH`].
    pub(crate) start: usize,
}

impl Match {
    /// One that is too short to be taken.
    pub(crate) const NONE: Self = Self {
        length: MIN_MATCH - 1,
        start: 0,
    };

    /// Whether it is long enough to be taken.
    pub(crate) fn is_one(&self) -> bool {
        self.length >= MIN_MATCH
    }
}

/// A position in the chain of those with its hash.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// The position, [`NOWHERE`] behind the last one.
    place: u16,
    /// How many were in the chain with it. It wraps, but not within a window.
    number: u16,
}

/// For each hash the positions that have it, the latest first.
#[derive(Debug)]
pub(crate) struct Chains {
    heads: Box<[Link; HASHES]>,
    /// What was in the chain before a position, by position modulo [`HALF`].
    before: Box<[Link; HALF]>,
    /// The hash of the bytes that were seen last.
    hash: usize,
}

/// A chain that leads to all places where a longer match may begin: that of bytes in the midst of it.
#[derive(Clone, Copy)]
struct Way {
    /// How far behind the beginning of a match these bytes stand.
    offset: usize,
    /// Where they stand next.
    next: usize,
}

impl Way {
    /// Where a match may begin next; [`NOWHERE`] if nowhere.
    fn place(&self) -> usize {
        self.next.saturating_sub(self.offset)
    }
}

/// From how many places of a chain on it is worth looking for another one.
const LONG: usize = 1024;

/// The part of the first chain within which another one leads to all of it if it is worth following.
const LIKELY: usize = 4;

/// How many chains are looked at for the one that leads farthest.
const WAYS: usize = 16;

impl Chains {
    pub(crate) fn new() -> Self {
        Self {
            heads: boxed(Link::default()),
            before: boxed(Link::default()),
            hash: 0,
        }
    }

    /// Begins anew with the first two of the three bytes at a position.
    pub(crate) fn restart(&mut self, bytes: &[u8; SIZE], position: usize) {
        self.hash = bytes.get(position).copied().unwrap_or_default().into();
        self.hash = roll(
            self.hash,
            bytes.get(position + 1).copied().unwrap_or_default(),
        );
    }

    /// Remembers `position`, and returns the latest one before it with the same three bytes.
    #[inline]
    pub(crate) fn insert(&mut self, bytes: &[u8; SIZE], position: usize) -> Link {
        self.hash = roll(self.hash, bytes[position + MIN_MATCH - 1]);
        let head = &mut self.heads[self.hash % HASHES];
        let before = *head;
        self.before[position % HALF] = before;
        *head = Link {
            place: u16::try_from(position).expect("the window ends there"),
            number: before.number.wrapping_add(1),
        };
        before
    }

    /// Follows the window, whose upper half has become the lower one.
    pub(crate) fn slide(&mut self) {
        let half = u16::try_from(HALF).expect("the whole window has 16 bits");
        for link in self.heads.iter_mut().chain(self.before.iter_mut()) {
            link.place = link.place.saturating_sub(half);
        }
    }

    /// Whether a place can be a match at all.
    pub(crate) fn reaches(window: &Window, place: Link) -> bool {
        let place = usize::from(place.place);
        place != NOWHERE && window.position - place <= FARTHEST
    }

    /// The longest match from `first` backwards that is longer than `best`, else `best`. Of equally long
    /// ones the nearest.
    ///
    /// It may be longer than the input: gzip compares with whatever is behind, and prefers what is
    /// equal there too.
    ///
    /// gzip follows the chain of the first three bytes, and gives up after so many places. Any other
    /// three bytes of a longer match lead to it as well, mostly by fewer places: the chain that leads
    /// farthest back is followed, and what it leads to counts if gzip would have come there.
    pub(crate) fn longest(
        &self,
        window: &Window,
        first: Link,
        mut best: Match,
        effort: Effort,
        flavour: Flavour,
    ) -> Match {
        let shift = if best.length >= effort.good { 2 } else { 0 };
        let tries = effort.chain >> shift;
        let nice = match flavour {
            Flavour::Gzip => effort.nice,
            Flavour::Zlib => effort.nice.min(window.ahead),
        };
        let position = window.position;
        let limit = position.saturating_sub(FARTHEST);
        let here = string(&window.bytes, position);
        let end = |string: &[u8; MAX_MATCH], length: usize| [string[length - 1], string[length]];
        let mut wanted = end(here, best.length);
        // Greedily, not all positions are remembered: other chains have gaps. Short chains are not worth it.
        let mut is_free = effort.parsing == Parsing::Lazy && effort.chain >= LONG;
        // The last place of the first chain that is known, behind which nothing was missed.
        let mut known = usize::from(first.place);
        let mut way = Way {
            offset: 0,
            next: known,
        };
        if is_free {
            way = farthest(way, self.ways_here(window, known, best.length));
        }
        let mut left = if is_free { tries / LIKELY } else { tries };
        loop {
            let place = way.place();
            if place <= limit && place != first.place.into() {
                break;
            }
            let there = string(&window.bytes, place);
            way.next = self.before(way.next);
            left -= 1;
            // A longer match is equal where the best one ends, and one byte on.
            if end(there, best.length) == wanted && there[..2] == here[..2] {
                let length = common(here, there);
                if length > best.length {
                    if self.tried(first, place) >= tries {
                        break;
                    }
                    best = Match {
                        length,
                        start: place,
                    };
                    if length >= nice {
                        break;
                    }
                    wanted = end(here, length);
                    known = place;
                    if is_free {
                        way = farthest(way, self.ways_from(window, best));
                    }
                }
            }
            if left == 0 {
                // Other chains may be longer than what gzip follows, and lead to less.
                if !is_free {
                    break;
                }
                is_free = false;
                left = tries;
                way = Way {
                    offset: 0,
                    next: self.before(known),
                };
            }
        }
        best
    }

    fn before(&self, place: usize) -> usize {
        self.before[place % HALF].place.into()
    }

    /// How many places of a chain are tried before this one, if the chain is followed from `first` on.
    fn tried(&self, first: Link, place: usize) -> usize {
        let number = self.before[place % HALF].number.wrapping_add(1);
        first.number.wrapping_sub(number).into()
    }

    /// The way by the bytes here that stand at an offset, which must have come.
    fn way(&self, window: &Window, offset: usize) -> Way {
        let bytes = &window.bytes[window.position + offset..][..MIN_MATCH];
        let hash = bytes.iter().fold(0, |hash, &byte| roll(hash, byte));
        Way {
            offset,
            next: self.heads[hash % HASHES].place.into(),
        }
    }

    /// Ways to what is longer than `length` and begins at `first` at the latest. What is remembered at the
    /// position must be enough for them.
    fn ways_here(&self, window: &Window, first: usize, length: usize) -> impl Iterator<Item = Way> {
        let most = (length + 1).min(window.ahead).saturating_sub(MIN_MATCH);
        let most = most.min(window.position - first).min(WAYS);
        (1..=most).map(|offset| self.way(window, offset))
    }

    /// Ways from a match to longer ones: by what is in it, and by the first byte that is not.
    fn ways_from(&self, window: &Window, found: Match) -> impl Iterator<Item = Way> {
        let distance = window.position - found.start;
        let inside = (found.length - MIN_MATCH).min(distance).min(WAYS);
        let outside = found.length + 1 - MIN_MATCH;
        let outside = (outside <= distance && found.length < window.ahead).then_some(outside);
        let inside = (0..=inside).map(move |offset| Way {
            offset,
            next: self.before(found.start + offset),
        });
        inside.chain(outside.map(|offset| self.way(window, offset)))
    }
}

/// The way that leads farthest back.
fn farthest(way: Way, others: impl Iterator<Item = Way>) -> Way {
    others.fold(way, |way, other| {
        if other.place() < way.place() {
            other
        } else {
            way
        }
    })
}

/// The hash with one more byte.
#[inline]
fn roll(hash: usize, byte: u8) -> usize {
    (hash << SHIFT ^ usize::from(byte)) % HASHES
}

/// The longest string that can be compared at a position that is searched for.
#[inline]
fn string(bytes: &[u8; SIZE], position: usize) -> &[u8; MAX_MATCH] {
    let string = bytes[position..].first_chunk();
    string.expect("no search begins in the window's last bytes")
}

/// How many bytes two strings have in common.
#[inline]
fn common(a: &[u8; MAX_MATCH], b: &[u8; MAX_MATCH]) -> usize {
    let (a_words, a_rest) = a.as_chunks::<8>();
    let (b_words, b_rest) = b.as_chunks::<8>();
    let mut words = a_words.iter().zip(b_words).enumerate();
    let different = words.find_map(|(index, (a, b))| {
        let different = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        (different != 0).then(|| index * 8 + different.trailing_zeros() as usize / 8)
    });
    different.unwrap_or_else(|| {
        let rest = a_rest.iter().zip(b_rest).take_while(|(a, b)| a == b);
        a_words.as_flattened().len() + rest.count()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_bytes_are_counted_to_the_last() {
        let a = [7; MAX_MATCH];
        assert_eq!(common(&a, &a), MAX_MATCH);
        for differs in [0, 1, 7, 8, 9, 255, 256, 257] {
            let mut b = a;
            b[differs] = 8;
            assert_eq!(common(&a, &b), differs);
        }
    }
}

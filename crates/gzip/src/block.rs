//! The symbols of a block: collected, counted, and written in the shortest of three forms.

use std::io::{self, Write};

use crate::bits::Bits;
use crate::codes::{
    self, DISTANCES, END_OF_BLOCK, LENGTHS, LITERALS, MAX_BITS, MAX_LENGTH_BITS, MIN_MATCH, Symbol,
};
use crate::huffman::Code;
use crate::level::{Flavour, Level};
use crate::window::{HALF, SIZE, boxed};

/// Room for symbols; a block ends one before it is used up. zlib has half of it.
const ROOM: usize = 32 << 10;

/// How often gzip asks whether a block had better end, in symbols.
const ASKED_EVERY: usize = 4 << 10;

/// Below this level it does not ask.
const ASKED_FROM: u8 = 3;

/// What a block's first bits say about its form.
#[derive(Clone, Copy)]
enum Form {
    Stored,
    Fixed,
    Dynamic,
}

/// The order in which the lengths of codes of lengths are sent: the unlikely ones last.
const LENGTH_ORDER: [usize; LENGTHS] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];

/// A block that is being collected.
#[derive(Debug)]
pub(crate) struct Block {
    /// Literals, and lengths above [`MIN_MATCH`].
    values: Box<[u8; ROOM]>,
    /// Distances, zero with a literal.
    distances: Box<[u16; ROOM]>,
    /// How many symbols there are.
    count: usize,
    /// How many of them are matches.
    matches: usize,
    literal_counts: [u16; LITERALS],
    distance_counts: [u16; DISTANCES],
    /// Where its plain bytes begin in the window, or would before it.
    start: isize,
    /// With how many symbols it ends.
    most: usize,
    /// Whether it may end earlier.
    may_end_early: bool,
}

impl Block {
    pub(crate) fn new(flavour: Flavour, level: Level) -> Self {
        let (most, may_end_early) = match flavour {
            Flavour::Gzip => (ROOM - 1, level.number() >= ASKED_FROM),
            Flavour::Zlib => (ROOM / 2 - 1, false),
        };
        let mut block = Self {
            values: boxed(0),
            distances: boxed(0),
            count: 0,
            matches: 0,
            literal_counts: [0; LITERALS],
            distance_counts: [0; DISTANCES],
            start: 0,
            most,
            may_end_early,
        };
        block.begin(0);
        block
    }

    /// Begins the next block with the byte at `position`.
    pub(crate) fn begin(&mut self, position: usize) {
        self.count = 0;
        self.matches = 0;
        self.literal_counts.fill(0);
        self.literal_counts[END_OF_BLOCK] = 1;
        self.distance_counts.fill(0);
        self.start = position.cast_signed();
    }

    /// Follows the window, whose upper half has become the lower one.
    pub(crate) fn slide(&mut self) {
        self.start -= HALF.cast_signed();
    }

    /// Adds a byte while the search stands at `position`. Returns whether the block must end.
    #[inline]
    pub(crate) fn literal(&mut self, byte: u8, position: usize) -> bool {
        self.literal_counts[usize::from(byte)] += 1;
        self.add(byte, 0, position)
    }

    /// Adds a match while the search stands at `position`. Returns whether the block must end.
    #[inline]
    pub(crate) fn matched(&mut self, length: usize, distance: usize, position: usize) -> bool {
        let above = u8::try_from(length - MIN_MATCH).expect("a match is at most 258 bytes long");
        let distance = u16::try_from(distance).expect("a match is within the window");
        self.literal_counts[codes::length(above).index] += 1;
        self.distance_counts[codes::distance(distance).index] += 1;
        self.matches += 1;
        self.add(above, distance, position)
    }

    #[inline]
    fn add(&mut self, value: u8, distance: u16, position: usize) -> bool {
        self.values[self.count] = value;
        self.distances[self.count] = distance;
        self.count += 1;
        let is_asked = self.may_end_early && self.count.is_multiple_of(ASKED_EVERY);
        self.count == self.most || (is_asked && self.is_good_enough(position))
    }

    /// Whether the symbols so far are few matches and yet take less than half of their plain bytes: what
    /// follows is probably different. A literal is taken for a byte here, and lengths for nothing but
    /// their distances.
    fn is_good_enough(&self, position: usize) -> bool {
        let of_distances = self.distance_counts.iter().enumerate();
        let bits = of_distances.map(|(symbol, &count)| {
            usize::from(count) * (5 + codes::distance_extra_bits(symbol) as usize)
        });
        let coded = (self.count * 8 + bits.sum::<usize>()) / 8;
        let plain = self.length(position);
        self.matches < self.count / 2 && coded < plain / 2
    }

    /// How many plain bytes the block has up to `position`.
    fn length(&self, position: usize) -> usize {
        (position.cast_signed() - self.start).unsigned_abs()
    }

    /// Its plain bytes up to `position`, if the window still has all.
    pub(crate) fn plain<'a>(&self, window: &'a [u8; SIZE], position: usize) -> Option<&'a [u8]> {
        let start = usize::try_from(self.start).ok()?;
        Some(&window[start..position])
    }

    /// Writes the block. Of equally short forms the fixed one wins; the stored one must be shorter in
    /// whole bytes, or equal, with its length.
    pub(crate) fn write(
        &self,
        plain: Option<&[u8]>,
        is_last: bool,
        bits: &mut Bits,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let dynamic = Dynamic::new(&self.literal_counts, &self.distance_counts);
        let (literals, distances) = (codes::fixed_literals(), codes::fixed_distances());
        let fixed = self.cost(&literals, &distances);
        let bytes = |cost: usize| (3 + cost).div_ceil(8);
        let fixed_is_best = bytes(fixed) <= bytes(dynamic.cost());
        let best = bytes(fixed).min(bytes(dynamic.cost()));

        let stored = plain.filter(|plain| plain.len() + 4 <= best);
        let stored = stored.and_then(|plain| Some((plain, u16::try_from(plain.len()).ok()?)));
        let mut begin = |form| bits.put((form as u32) << 1 | u32::from(is_last), 3);
        if let Some((plain, length)) = stored {
            begin(Form::Stored);
            bits.align();
            bits.put(length.into(), 16);
            bits.put((!length).into(), 16);
            bits.align();
            bits.drain(out)?;
            out.write_all(plain)
        } else if fixed_is_best {
            begin(Form::Fixed);
            self.write_symbols(&literals, &distances, bits, out)
        } else {
            begin(Form::Dynamic);
            dynamic.write(bits);
            self.write_symbols(&dynamic.literals, &dynamic.distances, bits, out)
        }
    }

    fn cost<const N: usize>(&self, literals: &Code<N>, distances: &Code<DISTANCES>) -> usize {
        literals.cost(&self.literal_counts, codes::literal_extra_bits)
            + distances.cost(&self.distance_counts, codes::distance_extra_bits)
    }

    fn write_symbols<const N: usize>(
        &self,
        literals: &Code<N>,
        distances: &Code<DISTANCES>,
        bits: &mut Bits,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let symbols = self.values.iter().zip(self.distances.iter());
        for (&value, &distance) in symbols.take(self.count) {
            if distance == 0 {
                bits.put_code(literals.get(value.into()));
            } else {
                put_symbol(bits, literals, codes::length(value));
                put_symbol(bits, distances, codes::distance(distance));
            }
            bits.spill(out)?;
        }
        bits.put_code(literals.get(END_OF_BLOCK));
        Ok(())
    }
}

fn put_symbol<const N: usize>(bits: &mut Bits, code: &Code<N>, symbol: Symbol) {
    bits.put_code(code.get(symbol.index));
    bits.put(symbol.extra, symbol.extra_bits);
}

/// The codes that are made for a block, and how they are sent before it.
struct Dynamic {
    literals: Code<LITERALS>,
    distances: Code<DISTANCES>,
    /// The lengths of both.
    lengths: Vec<Repeat>,
    length_code: Code<LENGTHS>,
    /// How many lengths of `length_code` are sent, in [`LENGTH_ORDER`].
    sent: usize,
    /// What all takes, the symbols included, in bits.
    cost: usize,
}

impl Dynamic {
    fn new(literal_counts: &[u16; LITERALS], distance_counts: &[u16; DISTANCES]) -> Self {
        let literals = Code::build(literal_counts, MAX_BITS);
        let distances = Code::build(distance_counts, MAX_BITS);
        let mut lengths = Vec::with_capacity(LITERALS + DISTANCES);
        repeats(literals.used(), &mut lengths);
        repeats(distances.used(), &mut lengths);
        let mut counts = [0; LENGTHS];
        for length in &lengths {
            counts[length.symbol] += 1;
        }
        let length_code = Code::build(&counts, MAX_LENGTH_BITS);
        let is_sent = |&symbol: &usize| length_code.lengths()[symbol] > 0;
        let last = LENGTH_ORDER.iter().rposition(is_sent);
        let sent = last.map_or(0, |last| last + 1).max(4);
        let cost = 5
            + 5
            + 4
            + 3 * sent
            + length_code.cost(&counts, codes::length_extra_bits)
            + literals.cost(literal_counts, codes::literal_extra_bits)
            + distances.cost(distance_counts, codes::distance_extra_bits);
        Self {
            literals,
            distances,
            lengths,
            length_code,
            sent,
            cost,
        }
    }

    fn cost(&self) -> usize {
        self.cost
    }

    /// Writes the codes.
    fn write(&self, bits: &mut Bits) {
        let count = |length: usize| u32::try_from(length).expect("an alphabet is short");
        bits.put(count(self.literals.used().len() - 257), 5);
        bits.put(count(self.distances.used().len() - 1), 5);
        bits.put(count(self.sent - 4), 4);
        for &symbol in &LENGTH_ORDER[..self.sent] {
            bits.put(self.length_code.lengths()[symbol].into(), 3);
        }
        for length in &self.lengths {
            bits.put_code(self.length_code.get(length.symbol));
            bits.put(length.more, codes::length_extra_bits(length.symbol));
        }
    }
}

/// A length of a code, or how often one is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repeat {
    symbol: usize,
    /// Repetitions above the fewest that the symbol stands for.
    more: u32,
}

/// Says how long codes are, in as few symbols as the greedy way takes: each takes as much as it can.
fn repeats(lengths: &[u8], said: &mut Vec<Repeat>) {
    for run in lengths.chunk_by(|a, b| a == b) {
        let length = usize::from(run[0]);
        let mut left = run.len();
        if length > 0 && left > 3 {
            // The length itself; what follows repeats it. Fewer are not worth a repetition.
            said.push(Repeat {
                symbol: length,
                more: 0,
            });
            left -= 1;
        }
        while left > 0 {
            let (symbol, fewest, most) = match (length, left) {
                (_, ..3) => (length, 1, 1),
                (0, 3..11) => (17, 3, 10),
                (0, _) => (18, 11, 138),
                _ if left == run.len() => (length, 1, 1),
                _ => (16, 3, 6),
            };
            let taken = left.min(most);
            let more = u32::try_from(taken - fewest).expect("a run is short");
            said.push(Repeat { symbol, more });
            left -= taken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_lengths_are_said_shortly() {
        let said = |length: u8, count: usize| {
            let mut said = Vec::new();
            repeats(&vec![length; count], &mut said);
            said.iter()
                .map(|repeat| (repeat.symbol, repeat.more))
                .collect::<Vec<_>>()
        };
        assert_eq!(said(0, 2), [(0, 0), (0, 0)]);
        assert_eq!(said(0, 3), [(17, 0)]);
        assert_eq!(said(0, 10), [(17, 7)]);
        assert_eq!(said(0, 11), [(18, 0)]);
        assert_eq!(said(0, 140), [(18, 127), (0, 0), (0, 0)]);
        assert_eq!(said(5, 3), [(5, 0), (5, 0), (5, 0)]);
        assert_eq!(said(5, 4), [(5, 0), (16, 0)]);
        assert_eq!(said(5, 7), [(5, 0), (16, 3)]);
        assert_eq!(said(5, 9), [(5, 0), (16, 3), (5, 0), (5, 0)]);
        assert_eq!(said(5, 10), [(5, 0), (16, 3), (16, 0)]);
    }
}

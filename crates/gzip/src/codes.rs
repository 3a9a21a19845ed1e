//! The alphabets of RFC 1951: which symbol a length or a distance has, and the bits that follow it.

use crate::huffman::Code;

/// Shortest match.
pub(crate) const MIN_MATCH: usize = 3;
/// Longest match.
pub(crate) const MAX_MATCH: usize = 258;

/// The symbol that ends a block.
pub(crate) const END_OF_BLOCK: usize = 256;
/// Literals, the end of a block, and lengths.
pub(crate) const LITERALS: usize = 286;
/// The same with two symbols that no stream has, but the fixed code counts.
pub(crate) const FIXED_LITERALS: usize = 288;
/// Distances.
pub(crate) const DISTANCES: usize = 30;
/// Lengths of codes, and their repetitions.
pub(crate) const LENGTHS: usize = 19;

/// Longest code of a literal or a distance, in bits.
pub(crate) const MAX_BITS: usize = 15;
/// Longest code of a length of codes, in bits.
pub(crate) const MAX_LENGTH_BITS: usize = 7;

/// The length of every code for distances in a fixed block, in bits.
const FIXED_DISTANCE_BITS: u8 = 5;

/// A symbol, and what is sent after its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) index: usize,
    pub(crate) extra: u32,
    pub(crate) extra_bits: u32,
}

/// A match's length, given as how much it exceeds [`MIN_MATCH`].
pub(crate) fn length(above: u8) -> Symbol {
    const FIRST: usize = END_OF_BLOCK + 1;
    let value = u32::from(above);
    match value {
        // The longest has a symbol of its own.
        255 => Symbol {
            index: LITERALS - 1,
            extra: 0,
            extra_bits: 0,
        },
        0..8 => Symbol {
            index: FIRST + value as usize,
            extra: 0,
            extra_bits: 0,
        },
        // Four symbols for each power of two.
        _ => {
            let extra_bits = value.ilog2() - 2;
            let step = value >> extra_bits & 3;
            Symbol {
                index: FIRST + (extra_bits * 4 + 4 + step) as usize,
                extra: value & ((1 << extra_bits) - 1),
                extra_bits,
            }
        }
    }
}

/// A match's distance, from 1.
pub(crate) fn distance(distance: u16) -> Symbol {
    let value = u32::from(distance) - 1;
    if value < 4 {
        return Symbol {
            index: value as usize,
            extra: 0,
            extra_bits: 0,
        };
    }
    // Two symbols for each power of two.
    let extra_bits = value.ilog2() - 1;
    let step = value >> extra_bits & 1;
    Symbol {
        index: (extra_bits * 2 + 2 + step) as usize,
        extra: value & ((1 << extra_bits) - 1),
        extra_bits,
    }
}

/// How many bits follow the code of each length.
const LENGTH_BITS: [u32; LITERALS - END_OF_BLOCK - 1] = [
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
];

/// How many bits follow the code of each distance.
const DISTANCE_BITS: [u32; DISTANCES] = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13,
    13,
];

/// How many bits follow a literal's or a length's code.
pub(crate) fn literal_extra_bits(symbol: usize) -> u32 {
    symbol
        .checked_sub(END_OF_BLOCK + 1)
        .map_or(0, |length| LENGTH_BITS[length])
}

/// How many bits follow a distance's code.
pub(crate) fn distance_extra_bits(symbol: usize) -> u32 {
    DISTANCE_BITS[symbol]
}

/// How many bits follow a code of a length of codes: the repetitions have some.
pub(crate) fn length_extra_bits(symbol: usize) -> u32 {
    match symbol {
        16 => 2,
        17 => 3,
        18 => 7,
        _ => 0,
    }
}

/// The fixed code of literals and lengths.
pub(crate) fn fixed_literals() -> Code<FIXED_LITERALS> {
    Code::from_lengths(std::array::from_fn(|symbol| match symbol {
        0..144 | 280.. => 8,
        144..256 => 9,
        256..280 => 7,
    }))
}

/// The fixed code of distances.
pub(crate) fn fixed_distances() -> Code<DISTANCES> {
    Code::from_lengths([FIXED_DISTANCE_BITS; DISTANCES])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_those_of_the_rfc() {
        let lengths = [
            (3, 257, 0, 0),
            (10, 264, 0, 0),
            (11, 265, 0, 1),
            (12, 265, 1, 1),
        ];
        let long = [
            (130, 280, 15, 4),
            (131, 281, 0, 5),
            (257, 284, 30, 5),
            (258, 285, 0, 0),
        ];
        for (value, symbol, extra, extra_bits) in lengths.into_iter().chain(long) {
            let above = u8::try_from(value - MIN_MATCH).unwrap();
            let expected = Symbol {
                index: symbol,
                extra,
                extra_bits,
            };
            assert_eq!(length(above), expected, "length {value}");
            assert_eq!(literal_extra_bits(symbol), extra_bits, "length {value}");
        }
        let distances = [
            (1, 0, 0, 0),
            (4, 3, 0, 0),
            (5, 4, 0, 1),
            (8, 5, 1, 1),
            (9, 6, 0, 2),
        ];
        let far = [
            (24576, 28, 8191, 13),
            (24577, 29, 0, 13),
            (32768, 29, 8191, 13),
        ];
        for (value, symbol, extra, extra_bits) in distances.into_iter().chain(far) {
            let expected = Symbol {
                index: symbol,
                extra,
                extra_bits,
            };
            assert_eq!(distance(value), expected, "distance {value}");
            assert_eq!(distance_extra_bits(symbol), extra_bits, "distance {value}");
        }
    }
}

//! How hard a compressor searches, and whose habits it has.

/// How hard to search, as in `gzip -1` to `gzip -9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// `gzip -1`.
    pub const FASTEST: Self = Self(1);
    /// `gzip` without a level.
    pub const DEFAULT: Self = Self(6);
    /// `gzip -9`, as Debian's packages have it.
    pub const BEST: Self = Self(9);

    /// The level with this number, if there is one.
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            1..=9 => Some(Self(number)),
            _ => None,
        }
    }

    /// Its number, 1 to 9.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// What the level means for the search. Both flavours have the same table.
    pub(crate) const fn effort(self) -> Effort {
        let (parsing, good, lazy, nice, chain) = match self.0 {
            1 => (Parsing::Greedy, 4, 4, 8, 4),
            2 => (Parsing::Greedy, 4, 5, 16, 8),
            3 => (Parsing::Greedy, 4, 6, 32, 32),
            4 => (Parsing::Lazy, 4, 4, 16, 16),
            5 => (Parsing::Lazy, 8, 16, 32, 32),
            6 => (Parsing::Lazy, 8, 16, 128, 128),
            7 => (Parsing::Lazy, 8, 32, 128, 256),
            8 => (Parsing::Lazy, 32, 128, 258, 1024),
            _ => (Parsing::Lazy, 32, 258, 258, 4096),
        };
        Effort {
            parsing,
            good,
            lazy,
            nice,
            chain,
        }
    }
}

impl Default for Level {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Whose bytes to write. The two compressors are of one family and most of their streams are equal, but
/// not all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// GNU gzip.
    #[default]
    Gzip,
    /// zlib with its default memory level (8), window (15 bits) and strategy, given all input before
    /// the end is asked for: what Python's and Perl's modules, PNG writers and most libraries write.
    Zlib,
}

/// When a match is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsing {
    /// As soon as it is found.
    Greedy,
    /// When the next position has no longer one.
    Lazy,
}

/// What a level means. Lengths are in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) parsing: Parsing,
    /// With a match this long in hand, a quarter of the chain is enough.
    pub(crate) good: usize,
    /// Lazy: with a match this long in hand, the next position is not tried. Greedy: the positions
    /// inside of a longer match are not remembered.
    pub(crate) lazy: usize,
    /// A match this long ends the search.
    pub(crate) nice: usize,
    /// How many places are tried at most.
    pub(crate) chain: usize,
}

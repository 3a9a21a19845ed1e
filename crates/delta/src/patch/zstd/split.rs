//! Where the library ends a block early: where the bytes begin to be of another sort. In: the next
//! full block. Out: how much of it to pack as one.

/// Length of a full block in bytes; only such are cut.
pub(super) const FULL: usize = 128 << 10;

/// What is compared with all before it, in bytes.
const PIECE: usize = 8 << 10;

/// What is looked at where a block is judged by its borders, in bytes.
const BORDER: usize = 512;

/// Sorts of events that are told apart at most.
const SORTS: usize = 1 << 10;

/// How each level looks at a piece: one place of so many, and the logarithm of the sorts of events.
const LOOKS: [(usize, u32); 4] = [(43, 8), (11, 9), (5, 10), (1, 10)];

/// The level at which a strategy of the library cuts, by the strategy's number.
pub(super) fn level(strategy: u32) -> u8 {
    match strategy {
        ..=1 => 0,
        2 => 1,
        3 | 4 => 2,
        5 | 6 => 3,
        _ => 4,
    }
}

/// How much of a full block is packed as one, in bytes.
pub(super) fn len(block: &[u8], level: u8) -> usize {
    match usize::from(level).checked_sub(1) {
        Some(look) => by_pieces(block, LOOKS[look.min(LOOKS.len() - 1)]),
        None => by_borders(block),
    }
}

fn by_pieces(block: &[u8], (step, log): (usize, u32)) -> usize {
    let mut pieces = block.chunks_exact(PIECE);
    let mut past = Events::default();
    past.add(pieces.next().unwrap_or_default(), step, log);
    let mut at = PIECE;
    let mut patience = 3;
    for piece in pieces {
        let mut new = Events::default();
        new.add(piece, step, log);
        if past.differs(&new, patience, log) {
            return at;
        }
        past.merge(&new);
        patience = patience.saturating_sub(1);
        at += PIECE;
    }
    block.len()
}

fn by_borders(block: &[u8]) -> usize {
    let middle = block.len() / 2 - BORDER / 2;
    let [first, middle, last] = [0, middle, block.len() - BORDER].map(|at| {
        let mut events = Events::default();
        for &byte in &block[at..at + BORDER] {
            events.of[usize::from(byte)] += 1;
        }
        events.count = BORDER as u64;
        events
    });
    if !first.differs(&last, 0, 8) {
        return block.len();
    }
    let (from_first, from_last) = (first.distance(&middle, 8), last.distance(&middle, 8));
    if from_first.abs_diff(from_last) < (BORDER * BORDER / 3) as u64 {
        64 << 10
    } else if from_first > from_last {
        32 << 10
    } else {
        96 << 10
    }
}

/// How often each sort of two bytes comes.
struct Events {
    of: [u32; SORTS],
    count: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            of: [0; SORTS],
            count: 0,
        }
    }
}

impl Events {
    fn add(&mut self, piece: &[u8], step: usize, log: u32) {
        const SPREAD: u32 = 0x9e37_79b9;
        for pair in piece.windows(2).step_by(step) {
            let sort = if log == 8 {
                u32::from(pair[0])
            } else {
                let pair = u32::from(pair[0]) | u32::from(pair[1]) << 8;
                pair.wrapping_mul(SPREAD) >> (32 - log)
            };
            self.of[sort as usize] += 1;
        }
        self.count += (piece.len().saturating_sub(1) / step) as u64;
    }

    fn merge(&mut self, other: &Self) {
        for (one, other) in self.of.iter_mut().zip(&other.of) {
            *one += other;
        }
        self.count += other.count;
    }

    fn distance(&self, other: &Self, log: u32) -> u64 {
        let pairs = self.of.iter().zip(&other.of).take(1 << log);
        pairs
            .map(|(&one, &two)| {
                (u64::from(one) * other.count).abs_diff(u64::from(two) * self.count)
            })
            .sum()
    }

    fn differs(&self, other: &Self, patience: u64, log: u32) -> bool {
        let allowed = self.count * other.count * (14 + patience) / 16;
        self.distance(other, log) >= allowed
    }
}

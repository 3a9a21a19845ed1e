//! Prefix codes: how long each symbol's code is, and which.
//!
//! Several codes are equally short for the same frequencies. Which one comes out depends on the order of
//! a heap and on how ties are broken, so both are part of what this module promises.

use crate::codes::MAX_BITS;

/// A code for an alphabet of `N` symbols.
#[derive(Clone, Debug)]
pub(crate) struct Code<const N: usize> {
    /// How many bits each symbol has, zero for those that do not occur.
    lengths: [u8; N],
    /// The bits, the first lowest.
    bits: [u16; N],
}

impl<const N: usize> Code<N> {
    /// The code that these lengths determine (RFC 1951, 3.2.2).
    pub(crate) fn from_lengths(lengths: [u8; N]) -> Self {
        let mut counts = [0u16; MAX_BITS + 1];
        for &length in &lengths {
            counts[usize::from(length)] += 1;
        }
        counts[0] = 0;
        let mut next = [0u16; MAX_BITS + 1];
        for length in 1..=MAX_BITS {
            // Wraps where the longest code is done and nothing follows.
            next[length] = next[length - 1].wrapping_add(counts[length - 1]) << 1;
        }
        let mut bits = [0; N];
        for (bits, &length) in bits.iter_mut().zip(&lengths) {
            if length > 0 {
                let next = &mut next[usize::from(length)];
                *bits = next.reverse_bits() >> (u16::BITS - u32::from(length));
                *next = next.wrapping_add(1);
            }
        }
        Self { lengths, bits }
    }

    /// A shortest code for these frequencies whose lengths stay within `limit`.
    ///
    /// It has two symbols at least, and their sum fits 16 bits.
    pub(crate) fn build(frequencies: &[u16; N], limit: usize) -> Self {
        Self::from_lengths(lengths(frequencies, limit))
    }

    /// The length of each symbol's code.
    pub(crate) fn lengths(&self) -> &[u8; N] {
        &self.lengths
    }

    /// The symbols up to the last that has a code.
    pub(crate) fn used(&self) -> &[u8] {
        let last = self.lengths.iter().rposition(|&length| length > 0);
        &self.lengths[..last.map_or(0, |last| last + 1)]
    }

    /// A symbol's bits, and how many.
    #[inline]
    pub(crate) fn get(&self, symbol: usize) -> (u32, u32) {
        (self.bits[symbol].into(), self.lengths[symbol].into())
    }

    /// How many bits all symbols take that occur so often, with those that follow each code.
    pub(crate) fn cost(&self, frequencies: &[u16], extra_bits: impl Fn(usize) -> u32) -> usize {
        let bits = self.lengths.iter().zip(frequencies).enumerate();
        bits.map(|(symbol, (&length, &frequency))| {
            usize::from(frequency) * (usize::from(length) + extra_bits(symbol) as usize)
        })
        .sum()
    }
}

/// Most symbols of an alphabet.
const MOST: usize = crate::codes::LITERALS;

/// Most nodes of a tree with so many leaves.
const NODES: usize = 2 * MOST;

/// The trees that have not been joined yet, the lightest first; and those that have been.
struct Forest {
    /// What the order of trees goes by: the weight, then the depth. Both of a node, which is a symbol
    /// or what two nodes were joined to.
    keys: [u32; NODES],
    /// A heap from index 1.
    heap: [u16; NODES],
    /// Length of the heap.
    len: usize,
    /// What each node was joined to.
    parents: [u16; NODES],
    /// The nodes in the order in which they left the heap.
    joined: [u16; NODES],
    done: usize,
}

/// The depth in a node's key.
const DEPTH: u32 = 0xff;

impl Forest {
    fn new() -> Self {
        Self {
            keys: [0; NODES],
            heap: [0; NODES],
            len: 0,
            parents: [0; NODES],
            joined: [0; NODES],
            done: 0,
        }
    }

    /// Adds a leaf, without regard to order.
    fn add(&mut self, symbol: usize, frequency: u16) {
        self.keys[symbol] = u32::from(frequency) << 8;
        self.len += 1;
        self.heap[self.len] = node(symbol);
    }

    fn key(&self, place: usize) -> u32 {
        self.keys[usize::from(self.heap[place])]
    }

    /// Moves the node at `place` down to where it belongs. Of equal children the left one comes up, and
    /// a child that is equal does not.
    fn sift_down(&mut self, mut place: usize) {
        let moved = self.heap[place];
        let key = self.keys[usize::from(moved)];
        loop {
            let mut child = 2 * place;
            if child > self.len {
                break;
            }
            if child < self.len && self.key(child + 1) <= self.key(child) {
                child += 1;
            }
            if key <= self.key(child) {
                break;
            }
            self.heap[place] = self.heap[child];
            place = child;
        }
        self.heap[place] = moved;
    }

    fn leave(&mut self, node: u16) {
        self.joined[self.done] = node;
        self.done += 1;
    }

    /// Joins the two lightest, over and over, until one tree is left.
    fn join(&mut self, first_free: usize) {
        for place in (1..=self.len / 2).rev() {
            self.sift_down(place);
        }
        let mut joint = first_free;
        while self.len >= 2 {
            let lightest = self.heap[1];
            self.heap[1] = self.heap[self.len];
            self.len -= 1;
            self.sift_down(1);
            let second = self.heap[1];
            self.leave(lightest);
            self.leave(second);
            let (a, b) = (
                self.keys[usize::from(lightest)],
                self.keys[usize::from(second)],
            );
            let depth = (a & DEPTH).max(b & DEPTH) + 1;
            self.keys[joint] = ((a & !DEPTH) + (b & !DEPTH)) | depth;
            self.parents[usize::from(lightest)] = node(joint);
            self.parents[usize::from(second)] = node(joint);
            self.heap[1] = node(joint);
            self.sift_down(1);
            joint += 1;
        }
        self.leave(self.heap[1]);
    }
}

fn node(index: usize) -> u16 {
    u16::try_from(index).expect("a tree has fewer nodes than that")
}

/// The lengths of a shortest code.
///
/// If some are longer than `limit`, all are dealt out anew, the longest to the rarest: those too long are
/// cut to the limit, and shorter ones grow until the code can be told apart again.
fn lengths<const N: usize>(frequencies: &[u16; N], limit: usize) -> [u8; N] {
    let mut forest = Forest::new();
    for (symbol, &frequency) in frequencies.iter().enumerate() {
        if frequency > 0 {
            forest.add(symbol, frequency);
        }
    }
    // A reader wants a code to have two symbols: what is missing is made up, each occurring once.
    while forest.len < 2 {
        let last = (forest.len > 0).then(|| usize::from(forest.heap[forest.len]));
        let made_up = match last {
            Some(last @ 0..2) => last + 1,
            _ => 0,
        };
        forest.add(made_up, 1);
    }
    forest.join(N);

    let mut depths = [0usize; NODES];
    let mut counts = [0usize; MAX_BITS + 1];
    let mut too_deep = 0usize;
    let from_root = || {
        forest.joined[..forest.done]
            .iter()
            .rev()
            .map(|&node| usize::from(node))
    };
    for node in from_root().skip(1) {
        let depth = depths[usize::from(forest.parents[node])] + 1;
        too_deep += usize::from(depth > limit);
        depths[node] = depth.min(limit);
        if node < N {
            counts[depths[node]] += 1;
        }
    }
    if too_deep > 0 {
        while too_deep > 0 {
            let above = (1..limit).rev().find(|&length| counts[length] > 0);
            let above = above.expect("a code that is cut off has shorter ones");
            // One leaf of those goes a level down, and one of the overfull level becomes its brother.
            counts[above] -= 1;
            counts[above + 1] += 2;
            counts[limit] -= 1;
            too_deep = too_deep.saturating_sub(2);
        }
        let longest_first = (1..=limit).rev();
        let mut dealt =
            longest_first.flat_map(|length| std::iter::repeat_n(length, counts[length]));
        for &leaf in &forest.joined[..forest.done] {
            if usize::from(leaf) < N {
                depths[usize::from(leaf)] = dealt.next().expect("every leaf was counted");
            }
        }
    }
    std::array::from_fn(|symbol| u8::try_from(depths[symbol]).expect("within the limit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_the_rfc_comes_out() {
        let code = Code::from_lengths([3, 3, 3, 3, 3, 2, 4, 4]);
        let written = |symbol| {
            let (bits, length) = code.get(symbol);
            (0..length)
                .map(|bit| char::from(b'0' + u8::from(bits >> bit & 1 == 1)))
                .collect()
        };
        let codes: [String; 8] = std::array::from_fn(written);
        assert_eq!(
            codes,
            ["010", "011", "100", "101", "110", "00", "1110", "1111"]
        );
    }

    #[test]
    fn a_code_is_complete_and_within_its_limit() {
        // Fibonacci's numbers make the deepest trees.
        let mut deep = [1u16; 20];
        for index in 2..deep.len() {
            deep[index] = deep[index - 1] + deep[index - 2];
        }
        let few = |used: usize| std::array::from_fn(|symbol| u16::from(symbol < used) * 7);
        for frequencies in [deep, few(0), few(1), few(2), few(3), few(20)] {
            for limit in [7, 15] {
                let code = Code::build(&frequencies, limit);
                let used = code.lengths.iter().filter(|&&length| length > 0);
                let share = |&length: &u8| 1 << (limit - usize::from(length));
                assert_eq!(used.map(share).sum::<u32>(), 1 << limit, "{code:?}");
            }
        }
    }
}

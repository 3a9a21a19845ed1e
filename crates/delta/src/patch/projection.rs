//! Where the old bytes of a run went, by its copies.

/// A copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where the bytes were.
    pub old: u64,
    /// How many they are.
    pub len: u64,
    /// Where they are now.
    pub new: u64,
}

/// Stretches of old bytes for which is remembered where their moves are, at most: they take 32 KiB. Of few
/// moves there are no more than twice as many.
const MOST_STRETCHES: usize = 8 << 10;

/// Where old bytes went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// Apart from each other, in the order of the old bytes.
    moves: Vec<Move>,
    /// Length of a stretch, as a power of two.
    stretch: u32,
    /// For each stretch, how many moves begin before it.
    before: Vec<u32>,
}

impl Projection {
    /// Of these copies. Where several took the same bytes, the one that began first counts, and
    /// the longest of those that began together.
    pub fn new(mut moves: Vec<Move>) -> Self {
        moves.retain(|copy| copy.old.checked_add(copy.len).is_some());
        moves.sort_unstable_by_key(|copy| (copy.old, std::cmp::Reverse(copy.len), copy.new));
        let mut end = 0;
        moves.retain_mut(|copy| {
            let covered = end.max(copy.old) - copy.old;
            if covered >= copy.len {
                return false;
            }
            copy.old += covered;
            copy.new += covered;
            copy.len -= covered;
            end = copy.old + copy.len;
            true
        });
        let last = moves.last().map_or(0, |last| last.old);
        let most = moves.len().next_power_of_two().min(MOST_STRETCHES);
        let stretch = (last / most as u64)
            .checked_ilog2()
            .map_or(0, |log| log + 1);
        let mut before =
            Vec::with_capacity(usize::try_from(last >> stretch).map_or(0, |last| last + 1));
        for (i, copy) in (0..).zip(&moves) {
            let at = usize::try_from(copy.old >> stretch).expect("there are few");
            before.resize(before.len().max(at + 1), i);
        }
        Self {
            moves,
            stretch,
            before,
        }
    }

    /// The moves, apart from each other, in the order of the old bytes.
    pub(crate) fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// Where an old byte is now; one that was not copied keeps its distance from the copy before it.
    pub fn project(&self, old: u64) -> Option<u64> {
        let stretch = usize::try_from(old >> self.stretch).unwrap_or(usize::MAX);
        let before = |stretch: usize| self.before.get(stretch).map(|&before| before as usize);
        let first = before(stretch).unwrap_or(self.moves.len());
        let end = before(stretch.saturating_add(1)).unwrap_or(self.moves.len());
        let found = first + self.moves[first..end].partition_point(|copy| copy.old <= old);
        let copy = self.moves.get(found.checked_sub(1)?)?;
        (copy.new).checked_add(old - copy.old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_that_began_first_counts() {
        let copy = |old, len, new| Move { old, len, new };
        let projection = Projection::new(vec![
            copy(50, 10, 500),
            copy(10, 30, 100),
            copy(20, 30, 300),
            copy(10, 5, 900),
            copy(15, 5, 700),
        ]);
        let places = [9, 10, 39, 40, 49, 50, 59, 70].map(|old| projection.project(old));
        let wanted = [
            None,
            Some(100),
            Some(129),
            Some(320),
            Some(329),
            Some(500),
            Some(509),
            Some(520),
        ];
        assert_eq!(places, wanted);
    }

    #[test]
    fn each_byte_of_many_copies_is_found() {
        for (gap, factor) in [(0, 1), (3, 7), (100, 1_000_003), (1 << 40, 1 << 49)] {
            let moves: Vec<_> = (0..20_000)
                .map(|i| Move {
                    old: gap + i * factor,
                    len: factor,
                    new: i,
                })
                .take_while(|copy| copy.old.checked_add(copy.len).is_some())
                .collect();
            let projection = Projection::new(moves.clone());
            assert!(projection.before.len() <= MOST_STRETCHES);
            for copy in &moves {
                assert_eq!(projection.project(copy.old), Some(copy.new));
                let last = copy.old + copy.len - 1;
                assert_eq!(projection.project(last), Some(copy.new + copy.len - 1));
            }
            let first = gap.checked_sub(1).and_then(|old| projection.project(old));
            assert_eq!(first, None);
            let last = moves.len() as u64 - 1;
            assert!(projection.project(u64::MAX) > Some(last));
        }
        assert_eq!(Projection::default().project(0), None);
    }
}

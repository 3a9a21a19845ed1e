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

/// Where old bytes went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// Apart from each other, in the order of the old bytes.
    moves: Vec<Move>,
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
        Self { moves }
    }

    /// Where an old byte is now; one that was not copied keeps its distance from the copy before it.
    pub fn project(&self, old: u64) -> Option<u64> {
        let found = self.moves.partition_point(|copy| copy.old <= old);
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
}

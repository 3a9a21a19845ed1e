//! A budget of memory that threads share, so that several images made at once stay below the limit.

use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes that may be in use at once.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: Mutex<u64>,
    returned: Condvar,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Reserved<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    /// Of so many bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            used: Mutex::new(0),
            returned: Condvar::new(),
        }
    }

    /// Takes the first of these sizes that fits, and tells which; waits while none does. When
    /// nothing else is in use, the last one is given even if it is beyond the limit: it is the
    /// least that the work needs.
    pub fn reserve(&self, sizes: &[u64]) -> (usize, Reserved<'_>) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let fits = |size: &u64| used.checked_add(*size).is_some_and(|sum| sum <= self.limit);
            let alone = (*used == 0).then(|| sizes.len().saturating_sub(1));
            if let Some(at) = sizes.iter().position(fits).or(alone) {
                let bytes = sizes.get(at).copied().unwrap_or(0);
                *used = used.saturating_add(bytes);
                let budget = self;
                return (at, Reserved { budget, bytes });
            }
            let woken = self.returned.wait(used);
            used = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut used = self
            .budget
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.bytes);
        self.budget.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_fits_is_given_and_the_least_is_never_refused() {
        let budget = Budget::new(100);
        let (first, held) = budget.reserve(&[120, 80, 40]);
        assert_eq!(first, 1);
        let (second, small) = budget.reserve(&[80, 40, 20]);
        assert_eq!(second, 2);
        drop((held, small));
        let (third, _held) = budget.reserve(&[400, 200]);
        assert_eq!(third, 1, "alone, it gets what it needs");
    }

    #[test]
    fn who_does_not_fit_waits() {
        let budget = Budget::new(100);
        let (_, held) = budget.reserve(&[90]);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.reserve(&[90]).0);
            std::thread::sleep(std::time::Duration::from_millis(30));
            assert!(!waiting.is_finished());
            drop(held);
            assert_eq!(waiting.join().unwrap(), 0);
        });
    }
}

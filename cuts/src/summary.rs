//! What came of all states: counted for each suite, as a table or as one JSON object.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::verdict::Ended;

/// What came of a suite's states.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// The suite.
    pub(crate) suite: String,
    /// States there are.
    pub(crate) known: usize,
    /// States that were tried.
    pub(crate) states: usize,
    /// Of these, those that ended as it was before.
    pub(crate) old: usize,
    /// Those that ended updated.
    pub(crate) new: usize,
    /// Those that ended as neither.
    pub(crate) failed: usize,
    /// Not counted: the call that was to be disturbed did not come this time.
    pub(crate) missed: usize,
}

impl Tally {
    /// Counts how a state ended; none if it failed.
    pub(crate) fn count(&mut self, ended: Option<Ended>) {
        let count = match ended {
            Some(Ended::Undisturbed) => {
                self.missed += 1;
                return;
            }
            Some(Ended::Old) => &mut self.old,
            Some(Ended::New) => &mut self.new,
            None => &mut self.failed,
        };
        *count += 1;
        self.states += 1;
    }
}

/// A state that failed.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    /// The suite.
    pub(crate) suite: String,
    /// The state's number.
    pub(crate) state: usize,
    /// What was done.
    pub(crate) what: String,
    /// What came of it.
    pub(crate) why: String,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// What random choices began with.
    pub(crate) seed: u64,
    /// Seconds that it took.
    pub(crate) seconds: u64,
    /// States in all.
    pub(crate) states: usize,
    /// What came of each suite.
    pub(crate) suites: Vec<Tally>,
    /// What failed.
    pub(crate) failures: Vec<Failure>,
}

impl Summary {
    /// Of these suites.
    pub(crate) fn new(
        seed: u64,
        took: Duration,
        suites: Vec<Tally>,
        failures: Vec<Failure>,
    ) -> Self {
        Self {
            seed,
            seconds: took.as_secs(),
            states: suites.iter().map(|tally| tally.states).sum(),
            suites,
            failures,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.suites.iter().map(|tally| tally.suite.len()).max();
        let name = widest.unwrap_or(0).max("suite".len());
        let columns = ["of", "tried", "old", "new", "failed", "missed"];
        write!(f, "{:name$}", "suite")?;
        for column in columns {
            write!(f, " {column:>7}")?;
        }
        for tally in &self.suites {
            write!(f, "\n{:name$}", tally.suite)?;
            let numbers = [
                tally.known,
                tally.states,
                tally.old,
                tally.new,
                tally.failed,
                tally.missed,
            ];
            for number in numbers {
                write!(f, " {number:7}")?;
            }
        }
        let Self {
            states,
            failures,
            seconds,
            seed,
            ..
        } = self;
        let failed = failures.len();
        write!(
            f,
            "\n{states} states in {seconds} s, {failed} failed; seed {seed}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_did_not_come_is_no_state() {
        let mut tally = Tally::default();
        for ended in [
            Some(Ended::Old),
            Some(Ended::New),
            Some(Ended::Undisturbed),
            None,
        ] {
            tally.count(ended);
        }
        let Tally {
            states,
            old,
            new,
            failed,
            missed,
            ..
        } = tally;
        assert_eq!((states, old, new, failed, missed), (3, 1, 1, 1, 1));
    }
}

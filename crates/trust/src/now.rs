//! What is known of the present when something may have expired.
//!
//! A recovery often has no clock: it starts in 1970. A device must not be bricked by that, so a
//! clock that is behind only means that nothing has expired yet, and a signature made "in the
//! future" is accepted: it was made by a trusted key, so the clock is what is wrong (the original's
//! upgrader ignores clock conflicts too). In return every verified signature proves that its time
//! has come, and [`Now::at_least`] moves the present forward to it: setting a clock back does not
//! bring expired keys to life once anything newer was verified in the same run.

use std::fmt;

/// The present, in Unix seconds, or a lower bound of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now(i64);

impl Now {
    /// Nothing is known: nothing counts as expired.
    pub const UNKNOWN: Self = Self(i64::MIN);

    /// What the device's clock says, in Unix seconds, UTC.
    pub const fn from_clock(seconds: i64) -> Self {
        Self(seconds)
    }

    /// The present, if `seconds` (Unix, UTC) is known to have been reached.
    #[must_use]
    pub fn at_least(self, seconds: i64) -> Self {
        Self(self.0.max(seconds))
    }

    /// Unix seconds; far in the past when nothing is known.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// Whether a validity that ends at `end` (its first invalid second) is over.
    pub(crate) fn is_past(self, end: i64) -> bool {
        self.0 >= end
    }
}

/// Shows Unix seconds as `2026-01-31 12:00:00 UTC`.
pub(crate) struct Utc(pub(crate) i64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: i64 = 86_400;
        let (days, seconds) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        // Counted in years that start in March, so that a leap day is a year's last day; 719,468
        // days lie between 0000-03-01 and 1970-01-01, and 146,097 are 400 years.
        let days = days + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_shown_in_utc() {
        for (seconds, want) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(Utc(seconds).to_string(), want);
        }
    }

    #[test]
    fn a_clock_that_is_behind_moves_to_what_is_proven_and_never_back() {
        assert_eq!(Now::UNKNOWN.at_least(5), Now::from_clock(5));
        assert_eq!(Now::from_clock(9).at_least(5), Now::from_clock(9));
        assert!(!Now::UNKNOWN.is_past(i64::MIN + 1));
        assert!(Now::from_clock(5).is_past(5) && !Now::from_clock(4).is_past(5));
    }
}

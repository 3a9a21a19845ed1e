//! Byte counts for eyes.

use std::fmt;

/// A number of bytes, shown as `452 B`, `1.5 kB`, `6.7 MB`: decimal units, as storage is sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
        if self.0 < 1000 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1000.0;
        let mut unit = 0;
        while value >= 999.95 && unit + 1 < UNITS.len() {
            value /= 1000.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_change_at_a_thousand() {
        let shown =
            [0, 999, 1000, 999_949, 999_950, 6_712_488, u64::MAX].map(|n| Size(n).to_string());
        assert_eq!(
            shown,
            [
                "0 B",
                "999 B",
                "1.0 kB",
                "999.9 kB",
                "1.0 MB",
                "6.7 MB",
                "18446744.1 TB"
            ]
        );
    }
}

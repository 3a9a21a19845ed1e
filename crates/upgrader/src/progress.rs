//! Progress on standard output, as the recovery reads it (upgrader spec, section 13): a line
//! `progress total: N`, then lines `progress: K` with K growing up to N.
//!
//! The unit is that of the original, 150,000 compressed bytes. Each tarball counts twice, because
//! it is read twice: once to be verified, once to be applied.

use std::io::Write;

/// Compressed bytes in a unit.
const UNIT: u64 = 150_000;

/// Counts bytes and prints a line for each unit.
#[derive(Debug)]
pub struct Progress<W> {
    out: W,
    total: u64,
    bytes: u64,
    printed: u64,
}

impl<W: Write> Progress<W> {
    /// Prints the total of tarballs of these sizes.
    pub fn start(sizes: impl IntoIterator<Item = u64>, mut out: W) -> Self {
        let total = sizes
            .into_iter()
            .map(|size| 2 * size)
            .sum::<u64>()
            .div_ceil(UNIT)
            .max(1);
        // Nobody reads it any more: no reason to stop.
        let _ = writeln!(out, "progress total: {total}").and_then(|()| out.flush());
        Self {
            out,
            total,
            bytes: 0,
            printed: 0,
        }
    }

    /// `bytes` more are done.
    pub fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        let done = (self.bytes / UNIT).min(self.total);
        while self.printed < done {
            self.printed += 1;
            self.print();
        }
    }

    /// All is done, whatever the sizes promised.
    pub fn finish(&mut self) {
        if self.printed < self.total {
            self.printed = self.total;
            self.print();
        }
    }

    fn print(&mut self) {
        let _ = writeln!(self.out, "progress: {}", self.printed).and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_up_to_the_total_and_not_beyond() {
        let mut out = Vec::new();
        let mut progress = Progress::start([150_000, 1], &mut out);
        progress.add(299_999);
        progress.add(1);
        progress.finish();
        progress.add(9_000_000);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "progress total: 3\nprogress: 1\nprogress: 2\nprogress: 3\n"
        );
    }
}

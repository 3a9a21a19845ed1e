//! Progress of one long step: a line that is drawn again and again on a terminal, a line now and
//! then elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use crate::Size;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How often the line on a terminal changes.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Columns of what the step is called, on a terminal.
const NAME: usize = 30;

/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;

/// Least columns that are worth a bar.
const LEAST_BAR: usize = 5;

/// Goes back to the beginning of a terminal's line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// What is counted.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Bytes,
    Things,
}

impl Unit {
    fn show(self, count: u64) -> String {
        match self {
            Self::Bytes => Size(count).to_string(),
            Self::Things => count.to_string(),
        }
    }
}

/// A bar on a terminal; elsewhere a line at the start and every ten seconds.
#[derive(Debug)]
pub struct Progress {
    what: String,
    unit: Unit,
    done: u64,
    total: u64,
    begun: Instant,
    shown: Instant,
    on_terminal: bool,
}

impl Progress {
    /// Of a step over `total` bytes; 0 when that is not known.
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        Self::of(what.into(), Unit::Bytes, total)
    }

    /// Of a step over `total` things that are told by `what`.
    pub fn counting(what: impl Into<String>, total: u64) -> Self {
        Self::of(what.into(), Unit::Things, total)
    }

    fn of(what: String, unit: Unit, total: u64) -> Self {
        let now = Instant::now();
        let progress = Self {
            what,
            unit,
            done: 0,
            total,
            begun: now,
            shown: now,
            on_terminal: stderr().is_terminal(),
        };
        if progress.on_terminal {
            progress.draw();
        } else {
            eprintln!("{}", progress.what);
        }
        progress
    }

    /// `more` bytes or things are done.
    pub fn add(&mut self, more: u64) {
        self.set(self.done + more);
    }

    /// `done` bytes or things are done in all.
    pub fn set(&mut self, done: u64) {
        self.done = done;
        let every = if self.on_terminal {
            DRAW_EVERY
        } else {
            LINE_EVERY
        };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        if self.on_terminal {
            self.draw();
        } else {
            let so_far = so_far(self.unit, self.done, self.total);
            eprintln!("{}: {so_far}", self.what);
        }
    }

    /// The step is over `total` bytes or things.
    pub fn set_total(&mut self, total: u64) {
        self.total = total;
    }

    /// The step is done.
    pub fn finish(self) {
        drop(self);
    }

    fn draw(&self) {
        let so_far = so_far(self.unit, self.done, self.total);
        let share = share(self.done, self.total);
        let took = self.begun.elapsed();
        eprint!(
            "{CLEAR}{}",
            line(&self.what, so_far, share, took, columns())
        );
    }
}

impl Drop for Progress {
    /// Leaves the terminal's line to whoever writes next.
    fn drop(&mut self) {
        if self.on_terminal {
            eprint!("{CLEAR}");
        }
    }
}

fn so_far(unit: Unit, done: u64, total: u64) -> String {
    if total == 0 {
        unit.show(done)
    } else {
        format!("{} of {}", unit.show(done), unit.show(total))
    }
}

/// Which part is done, if that is known.
fn share(done: u64, total: u64) -> Option<f64> {
    (total > 0).then(|| (done as f64 / total as f64).min(1.0))
}

/// Columns of the terminal.
pub fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(stderr()).map_or(0, |size| size.ws_col.into());
    if size == 0 { COLUMNS } else { size }
}

/// The line on a terminal of so many columns, the last of which stays free: what is done, how
/// much of it, and the time that is left if it goes on like this. A total of 0 is not known.
pub fn bar(what: &str, done: u64, total: u64, took: Duration, columns: usize) -> String {
    let so_far = so_far(Unit::Bytes, done, total);
    line(what, so_far, share(done, total), took, columns)
}

fn line(what: &str, so_far: String, share: Option<f64>, took: Duration, columns: usize) -> String {
    let name = format!("{what:NAME$.NAME$}");
    let mut numbers = so_far;
    if let Some(share) = share.filter(|share| *share > 0.0) {
        let left = took.div_f64(share).saturating_sub(took).as_secs();
        numbers += &format!(", {}:{:02} left", left / 60, left % 60);
    }
    let taken = NAME + " [] ".len() + numbers.chars().count() + 1;
    let line = match (share, columns.saturating_sub(taken)) {
        (Some(share), width @ LEAST_BAR..) => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of the columns is not more than them"
            )]
            let full = (share * width as f64) as usize;
            format!("{name} [{:width$}] {numbers}", "#".repeat(full))
        }
        _ => format!("{name} {numbers}"),
    };
    line.chars().take(columns.saturating_sub(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_the_line_and_never_more() {
        let second = Duration::from_secs(1);
        let at = |done, total, columns| bar("downloading", done, total, second, columns);
        let name = format!("{:30}", "downloading");
        for (got, want) in [
            (at(0, 0, 80), format!("{name} 0 B")),
            (at(2_500_000, 0, 80), format!("{name} 2.5 MB")),
            (at(0, 200, 60), format!("{name} [{:13}] 0 B of 200 B", "")),
            (
                at(50, 200, 70),
                format!("{name} [{:11}] 50 B of 200 B, 0:03 left", "##"),
            ),
            (
                at(300, 200, 70),
                format!("{name} [{:10}] 300 B of 200 B, 0:00 left", "#".repeat(10)),
            ),
            (at(1, 1000, 64), format!("{name} 1 B of 1.0 kB, 16:39 left")),
            (at(1, 1000, 20), "downloading        ".to_owned()),
            (at(1, 1000, 0), String::new()),
        ] {
            assert_eq!(got, want);
        }
    }
}

//! Progress of one long step.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Size;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar on a terminal; elsewhere a line at the start, every ten seconds and at the end.
#[derive(Debug)]
pub struct Progress {
    what: String,
    bar: Option<ProgressBar>,
    done: u64,
    total: u64,
    last_line: Instant,
}

impl Progress {
    /// Of a step over `total` bytes; 0 when that is not known.
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        let what = what.into();
        let bar = stderr().is_terminal().then(|| bar(&what, total));
        if bar.is_none() {
            eprintln!("{what}");
        }
        Self {
            what,
            bar,
            done: 0,
            total,
            last_line: Instant::now(),
        }
    }

    /// `more` bytes are done.
    pub fn add(&mut self, more: u64) {
        self.set(self.done + more);
    }

    /// `done` bytes are done in all.
    pub fn set(&mut self, done: u64) {
        self.done = done;
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                eprintln!("{}: {}", self.what, self.so_far());
            }
            None => {}
        }
    }

    /// The step is over `total` bytes.
    pub fn set_total(&mut self, total: u64) {
        self.total = total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// The step is done.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn so_far(&self) -> String {
        if self.total == 0 {
            Size(self.done).to_string()
        } else {
            format!("{} of {}", Size(self.done), Size(self.total))
        }
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let (bar, template) = if total == 0 {
        (
            ProgressBar::no_length(),
            "{msg:30!} {spinner} {decimal_bytes} ({decimal_bytes_per_sec})",
        )
    } else {
        let template = "{msg:30!} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {eta}";
        (ProgressBar::new(total), template)
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
    bar.set_message(what.to_owned());
    bar
}

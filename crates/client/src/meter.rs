//! Progress as callers of the original read it: dots, log records, JSON lines (client spec,
//! section 2.6); and a bar for people.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use system_image_report::Progress;

use crate::log::Log;

/// Dots on a line.
const DOTS: u32 = 78;

/// A meter named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// One dot on standard error per step.
    Dots,
    /// One log record per step.
    LogFile,
    /// One JSON object per line on standard output.
    Json,
}

/// The text names no meter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Unknown progress meter: {0}")]
pub struct UnknownMeter(String);

impl FromStr for Meter {
    type Err = UnknownMeter;

    fn from_str(text: &str) -> Result<Self, UnknownMeter> {
        match text {
            "dots" => Ok(Self::Dots),
            "logfile" => Ok(Self::LogFile),
            "json" => Ok(Self::Json),
            _ => Err(UnknownMeter(text.to_owned())),
        }
    }
}

/// Shows the progress of downloads.
#[derive(Clone, Debug)]
pub struct Meters {
    shown: Vec<Meter>,
    log: Arc<Log>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    dots: u32,
    total: u64,
    bar: Option<Progress>,
}

impl Meters {
    /// Shows what was asked for; where nothing was and there is a terminal, a bar.
    pub fn new(shown: Vec<Meter>, log: Arc<Log>) -> Self {
        Self {
            shown,
            log,
            state: Arc::default(),
        }
    }

    /// Whether failures are told as JSON too.
    pub fn is_json(&self) -> bool {
        self.shown.contains(&Meter::Json)
    }

    /// Begins to show a long download on a terminal.
    pub fn begin(&self, what: &str, total: u64) {
        let mut state = self.state();
        state.total = total;
        if self.shown.is_empty() && stderr().is_terminal() {
            state.bar = Some(Progress::new(what, total));
        }
    }

    /// Ends it.
    pub fn end(&self) {
        if let Some(bar) = self.state().bar.take() {
            bar.finish();
        }
    }

    /// `received` of `total` bytes are there; of as many as [`begin`](Self::begin) said if it is not
    /// known better.
    pub fn step(&self, received: u64, total: Option<u64>) {
        let mut state = self.state();
        let total = total.unwrap_or(state.total);
        if let Some(bar) = &mut state.bar {
            bar.set(received);
        }
        for meter in &self.shown {
            match meter {
                Meter::Dots => {
                    state.dots += 1;
                    let ends = state.dots == DOTS || received >= total;
                    state.dots = if ends { 0 } else { state.dots };
                    eprint!("{}", if ends { ".\n" } else { "." });
                }
                Meter::LogFile => self
                    .log
                    .debug(&format!("received: {received} of {total} bytes")),
                Meter::Json => {
                    // To the byte as the original writes it: readers may look for the text.
                    let line =
                        format!(r#"{{"type": "progress", "now": {received}, "total": {total}}}"#);
                    let mut out = stdout();
                    // A reader that has gone away does not stop an update.
                    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
                }
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

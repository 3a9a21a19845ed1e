//! The table at the end, in Markdown, so that it can go into a document as it is.

use system_image_demo::measure::Cost;

use crate::contest::Costs;

/// What the original is known to need, where no peer can be installed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    /// Processor seconds, least and most.
    pub(crate) cpu: (f64, f64),
    /// Peak memory in MiB.
    pub(crate) memory: f64,
}

/// What we have to keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Seconds by the wall, if they count.
    pub(crate) seconds: Option<f64>,
    /// Peak memory in MiB.
    pub(crate) memory: f64,
}

/// What was measured, line by line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    lines: Vec<[String; 6]>,
}

impl Table {
    /// Adds what was measured: our own costs first, then the peers'.
    pub(crate) fn row<'a>(
        &mut self,
        what: &str,
        costs: impl IntoIterator<Item = (&'a str, &'a Costs)>,
        reference: Option<Reference>,
    ) {
        self.rows(what, costs, |own| {
            reference.map(|reference| reference.line(own))
        });
    }

    /// The same for what has a limit.
    pub(crate) fn row_within<'a>(
        &mut self,
        what: &str,
        costs: impl IntoIterator<Item = (&'a str, &'a Costs)>,
        limit: Limit,
    ) {
        self.rows(what, costs, |own| Some(limit.line(own)));
    }

    fn rows<'a>(
        &mut self,
        what: &str,
        costs: impl IntoIterator<Item = (&'a str, &'a Costs)>,
        last: impl FnOnce(Cost) -> Option<[String; 6]>,
    ) {
        let mut costs = costs.into_iter();
        let Some((name, ours)) = costs.next() else {
            return;
        };
        let before = self.lines.len();
        let what = format!("{what} ({} rounds)", ours.rounds());
        self.line(what, name, ours, String::new());
        let own = ours.median();
        for (name, theirs) in costs {
            let factors = factors(theirs.median(), own);
            self.line(String::new(), name, theirs, factors);
        }
        self.lines.extend(last(own));
        // For those who wait, or do not want to wait for the rest.
        for line in &self.lines[before..] {
            eprintln!("{}", line.join(" | "));
        }
    }

    fn line(&mut self, what: String, name: &str, costs: &Costs, factors: String) {
        let median = costs.median();
        self.lines.push([
            what,
            name.to_owned(),
            format!("{} ({})", seconds(median.seconds), seconds(costs.fastest())),
            seconds(median.cpu),
            format!("{:.1}", mib(median.memory)),
            factors,
        ]);
    }

    /// Prints it on standard output.
    pub(crate) fn print(&self) {
        let head = [
            "measured",
            "by",
            "seconds, median (least)",
            "CPU s",
            "MiB",
            "against ours",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend_from_slice(&self.lines);
        let widths: [usize; 6] = std::array::from_fn(|column| {
            let lens = lines.iter().map(|line| line[column].chars().count());
            lens.max().unwrap_or(0)
        });
        for (at, line) in lines.iter().enumerate() {
            let cells = line.iter().zip(widths);
            let cells: Vec<_> = cells
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            println!("| {} |", cells.join(" | "));
            if at == 0 {
                let rules = widths.map(|width| "-".repeat(width));
                println!("| {} |", rules.join(" | "));
            }
        }
    }
}

impl Reference {
    fn line(self, own: Cost) -> [String; 6] {
        let (least, most) = self.cpu;
        let cpu = if least < most {
            format!("{least} to {most}")
        } else {
            least.to_string()
        };
        [
            String::new(),
            "the original (reference)".to_owned(),
            "–".to_owned(),
            cpu,
            self.memory.to_string(),
            format!(
                "CPU ×{:.1}, memory ×{:.1}",
                least / own.cpu,
                self.memory / mib(own.memory)
            ),
        ]
    }
}

impl Limit {
    fn line(self, own: Cost) -> [String; 6] {
        let memory = format!("memory ×{:.2}", self.memory / mib(own.memory));
        let (seconds, factors) = match self.seconds {
            Some(limit) => {
                let time = limit / own.seconds;
                (limit.to_string(), format!("time ×{time:.2}, {memory}"))
            }
            None => ("–".to_owned(), memory),
        };
        [
            String::new(),
            "the limit".to_owned(),
            seconds,
            "–".to_owned(),
            self.memory.to_string(),
            factors,
        ]
    }
}

fn factors(theirs: Cost, own: Cost) -> String {
    format!(
        "time ×{:.2}, CPU ×{:.2}, memory ×{:.2}",
        theirs.seconds / own.seconds,
        theirs.cpu / own.cpu,
        theirs.memory as f64 / own.memory as f64
    )
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Three digits that count.
fn seconds(seconds: f64) -> String {
    match seconds {
        small if small < 0.1 => format!("{small:.4}"),
        middle if middle < 10.0 => format!("{middle:.2}"),
        large => format!("{large:.1}"),
    }
}

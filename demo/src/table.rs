//! The table at the end.

use system_image_report::Size;

use crate::measure::Cost;

/// One line.
#[derive(Clone, Debug)]
struct Row {
    step: String,
    published: Option<u64>,
    downloaded: Option<u64>,
    cost: Cost,
}

/// What each step published, downloaded and cost.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a step that moved no bytes between server and device.
    pub fn step(&mut self, step: &str, cost: Cost) {
        self.rows.push(Row {
            step: step.into(),
            published: None,
            downloaded: None,
            cost,
        });
    }

    /// Adds a step that published `bytes`.
    pub fn published(&mut self, step: &str, bytes: u64, cost: Cost) {
        self.rows.push(Row {
            step: step.into(),
            published: Some(bytes),
            downloaded: None,
            cost,
        });
    }

    /// Adds a step that downloaded `bytes`.
    pub fn downloaded(&mut self, step: &str, bytes: u64, cost: Cost) {
        self.rows.push(Row {
            step: step.into(),
            published: None,
            downloaded: Some(bytes),
            cost,
        });
    }

    /// Prints it on standard output.
    pub fn print(&self) {
        let bytes =
            |bytes: Option<u64>| bytes.map_or(String::new(), |bytes| Size(bytes).to_string());
        println!(
            "\n{:<34}{:>12}{:>12}{:>9}{:>9}{:>12}",
            "step", "published", "downloaded", "seconds", "CPU s", "peak memory"
        );
        for row in &self.rows {
            println!(
                "{:<34}{:>12}{:>12}{:>9.1}{:>9.1}{:>12}",
                row.step,
                bytes(row.published),
                bytes(row.downloaded),
                row.cost.seconds,
                row.cost.cpu,
                Size(row.cost.memory),
            );
        }
    }
}

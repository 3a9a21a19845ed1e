//! Progress on standard output, as the recovery reads it (upgrader spec, section 13): a line
//! `progress total: N`, then lines `progress: K` with K growing up to N.
//!
//! The unit is that of the original, 150,000 compressed bytes. Each tarball counts twice: once while it is
//! unpacked, once for all that comes before and after. Others read one JSON object a line (section 17).

use std::io::Write;

/// How progress is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// `progress total: N`, `progress: K`.
    #[default]
    Lines,
    /// `{"type":"progress","now":K,"total":N}`.
    Json,
}

/// Compressed bytes in a unit.
const UNIT: u64 = 150_000;

/// Counts bytes and prints a line for each unit.
#[derive(Debug)]
pub struct Progress<W> {
    out: W,
    form: Form,
    total: u64,
    bytes: u64,
    printed: u64,
}

impl<W: Write> Progress<W> {
    /// Prints the total of tarballs of these sizes.
    pub fn start(sizes: impl IntoIterator<Item = u64>, form: Form, out: W) -> Self {
        let total = sizes
            .into_iter()
            .map(|size| 2 * size)
            .sum::<u64>()
            .div_ceil(UNIT)
            .max(1);
        let mut progress = Self {
            out,
            form,
            total,
            bytes: 0,
            printed: 0,
        };
        match form {
            Form::Lines => progress.line(&format!("progress total: {total}")),
            Form::Json => progress.print(),
        }
        progress
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

    /// Says what is under way, to those who read JSON.
    pub fn say(&mut self, what: &str) {
        if self.form == Form::Json {
            self.line(&serde_json::json!({"type": "spinner", "msg": what}).to_string());
        }
    }

    fn print(&mut self) {
        let (now, total) = (self.printed, self.total);
        match self.form {
            Form::Lines => self.line(&format!("progress: {now}")),
            Form::Json => {
                let object = serde_json::json!({"type": "progress", "now": now, "total": total});
                self.line(&object.to_string());
            }
        }
    }

    fn line(&mut self, line: &str) {
        // Nobody reads it any more: no reason to stop.
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_up_to_the_total_and_not_beyond() {
        let mut out = Vec::new();
        let mut progress = Progress::start([150_000, 1], Form::Lines, &mut out);
        progress.add(299_999);
        progress.add(1);
        progress.finish();
        progress.add(9_000_000);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "progress total: 3\nprogress: 1\nprogress: 2\nprogress: 3\n"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let mut out = Vec::new();
        let mut progress = Progress::start([75_000], Form::Json, &mut out);
        progress.say("a \"b\"");
        progress.finish();
        let text = String::from_utf8(out).unwrap();
        let objects: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            objects[0],
            serde_json::json!({"type": "progress", "now": 0, "total": 1})
        );
        assert_eq!(
            objects[1],
            serde_json::json!({"type": "spinner", "msg": "a \"b\""})
        );
        assert_eq!(
            objects[2],
            serde_json::json!({"type": "progress", "now": 1, "total": 1})
        );
    }
}

//! The log: on standard error, and in a file where recoveries show it from.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, OnceLock};

use camino::Utf8Path;

static FILE: OnceLock<Mutex<File>> = OnceLock::new();

/// Writes the log to this file too, in place of that of an earlier run.
pub fn also_to(path: &Utf8Path) -> io::Result<()> {
    let file = File::create(path)?;
    // Whoever came first keeps it.
    let _ = FILE.set(Mutex::new(file));
    Ok(())
}

/// Writes a line, or lines, to the log's file only.
pub fn to_file(text: &str) {
    if let Some(file) = FILE.get()
        && let Ok(mut file) = file.lock()
    {
        // A full disk must not stop an update that has room elsewhere.
        let _ = writeln!(file, "{}", text.trim_end());
    }
}

/// Tells those who read the log.
pub(crate) fn log(line: &str) {
    let line = system_image_report::printable(line);
    // Nobody reads it any more: no reason to stop.
    let _ = writeln!(io::stderr(), "{line}");
    to_file(&line);
}

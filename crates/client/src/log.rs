//! The log file, in the original's form (client spec, section 16).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Zoned;
use system_image_formats::config::LogLevel;
use system_image_report::printable;

use crate::files;

/// Writes records to the log file and, with any `-v`, to standard error.
#[derive(Debug)]
pub struct Log {
    file: Option<Mutex<File>>,
    level: LogLevel,
    on_stderr: bool,
}

impl Log {
    /// Opens the log file, or where it cannot be written the one in the user's cache.
    ///
    /// `verbosity` is the number of `-v`; the more talkative of it and the configuration counts.
    pub fn open(path: &Utf8Path, configured: LogLevel, verbosity: u8) -> Self {
        let asked = match verbosity {
            1 => LogLevel::Info,
            2 => LogLevel::Debug,
            3 => LogLevel::Critical,
            _ => LogLevel::Error,
        };
        let file = open(path).or_else(|| open(&fallback()?));
        Self {
            file: file.map(Mutex::new),
            level: configured.min(asked),
            on_stderr: verbosity > 0,
        }
    }

    /// A record that a person looks for after the fact.
    pub fn info(&self, message: &str) {
        self.write(LogLevel::Info, message);
    }

    /// A record that explains a decision.
    pub fn debug(&self, message: &str) {
        self.write(LogLevel::Debug, message);
    }

    /// A record of a failure.
    pub fn error(&self, message: &str) {
        self.write(LogLevel::Error, message);
    }

    fn write(&self, level: LogLevel, message: &str) {
        if level < self.level {
            return;
        }
        let time = Zoned::now().strftime("%b %d %H:%M:%S %Y").to_string();
        let process = std::process::id();
        let record = format!("[systemimage] {time} ({process}) {}\n", printable(message));
        if let Some(file) = &self.file {
            // A full disk must not stop an update that does not need it.
            let _ = file
                .lock()
                .expect("no holder panics")
                .write_all(record.as_bytes());
        }
        if self.on_stderr {
            eprint!("{record}");
        }
    }
}

fn open(path: &Utf8Path) -> Option<File> {
    files::make_directory(path.parent()?).ok()?;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .ok()
}

fn fallback() -> Option<Utf8PathBuf> {
    Some(files::user_cache()?.join("system-image/client.log"))
}

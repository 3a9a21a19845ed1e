//! The access log: one line per answer, in the combined format with its duration at the end.
//!
//! ```text
//! 192.0.2.7 - - [24/Nov/2026:10:00:00 +0000] "GET /channels.json HTTP/1.1" 200 4096 "-" "agent" 0.002
//! ```
//!
//! A thread of its own writes, so that a full disk or a slow terminal delays no answer; lines that
//! it cannot keep up with are counted and lost.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use camino::Utf8PathBuf;
use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use jiff::Timestamp;

/// Lines that may wait for the disk.
const MAX_WAITING: usize = 16 << 10;

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Appended to this file, which is opened again when asked to.
    File(Utf8PathBuf),
    /// Standard output.
    Stdout,
}

impl FromStr for LogTarget {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "-" => Self::Stdout,
            path => Self::File(path.into()),
        })
    }
}

enum Message {
    Line(String),
    Reopen,
    /// All lines before this have to be written; then it is dropped.
    Flush(SyncSender<()>),
}

/// A log that is being written.
#[derive(Debug)]
pub(super) struct Log {
    sender: SyncSender<Message>,
}

impl Log {
    pub(super) fn open(target: LogTarget) -> io::Result<Self> {
        let output = open(&target)?;
        let (sender, receiver) = sync_channel(MAX_WAITING);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(&target, output, &receiver))?;
        Ok(Self { sender })
    }

    /// Whether the line was taken.
    pub(super) fn line(&self, line: String) -> bool {
        self.sender.try_send(Message::Line(line)).is_ok()
    }

    /// The file was moved away: opens its name again.
    pub(super) fn reopen(&self) {
        // The queue is full only while the disk is; whoever rotates logs will try again.
        let _ = self.sender.try_send(Message::Reopen);
    }

    /// Waits until all lines are written, but not for ever: nobody may be reading them.
    pub(super) fn flush(&self, patience: Duration) {
        let (sender, flushed) = sync_channel(0);
        if self.sender.try_send(Message::Flush(sender)).is_ok() {
            // Nothing is ever sent: the other end is dropped when it is done.
            let _ = flushed.recv_timeout(patience);
        }
    }
}

fn open(target: &LogTarget) -> io::Result<Box<dyn Write + Send>> {
    Ok(match target {
        LogTarget::Stdout => Box::new(io::stdout()),
        LogTarget::File(path) => {
            let file: File = OpenOptions::new().append(true).create(true).open(path)?;
            Box::new(file)
        }
    })
}

/// Writes many lines at once when many come, and each at once when few do.
fn write(target: &LogTarget, output: Box<dyn Write + Send>, lines: &Receiver<Message>) {
    let mut output = BufWriter::new(output);
    let mut told = false;
    let mut note = |done: io::Result<()>| match done {
        Err(error) if !told => {
            eprintln!("cannot write the access log: {error}");
            told = true;
        }
        Ok(()) => told = false,
        Err(_) => {}
    };
    loop {
        let message = match lines.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Empty) => {
                note(output.flush());
                match lines.recv() {
                    Ok(message) => message,
                    Err(_) => return,
                }
            }
            Err(TryRecvError::Disconnected) => return note(output.flush()),
        };
        match message {
            Message::Line(line) => note(output.write_all(line.as_bytes())),
            Message::Flush(_done) => note(output.flush()),
            Message::Reopen => {
                note(output.flush());
                match open(target) {
                    Ok(new) => output = BufWriter::new(new),
                    Err(error) => eprintln!("cannot open the access log again: {error}"),
                }
            }
        }
    }
}

/// What of a request goes into its line, until the answer is known.
#[derive(Debug)]
pub(super) struct Line(String);

impl Line {
    pub(super) fn new<B>(peer: IpAddr, now: Timestamp, request: &Request<B>) -> Self {
        let time = now.strftime("%d/%b/%Y:%H:%M:%S +0000");
        let method = request.method();
        let mut line = format!("{peer} - - [{time}] \"{method} ");
        match request.uri().path_and_query() {
            Some(path) => quote(path.as_str().as_bytes(), &mut line),
            None => line.push('*'),
        }
        line.push_str(&format!(" {:?}\"", request.version()));
        let field = |name| quoted(request.headers(), &name);
        Self(format!(
            "{line}\u{0}{} {}",
            field(REFERER),
            field(USER_AGENT)
        ))
    }

    pub(super) fn finish(self, status: StatusCode, bytes: u64, took: Duration) -> String {
        // The answer stands between the two halves.
        let (request, client) = self.0.split_once('\0').unwrap_or((&self.0, ""));
        let (status, took) = (status.as_u16(), took.as_secs_f64());
        format!("{request} {status} {bytes} {client} {took:.3}\n")
    }
}

fn quoted(headers: &HeaderMap, name: &http::HeaderName) -> String {
    let mut text = String::from("\"");
    match headers.get(name) {
        Some(value) => quote(value.as_bytes(), &mut text),
        None => text.push('-'),
    }
    text.push('"');
    text
}

/// A client must not be able to write lines of its own, nor to a terminal.
fn quote(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => text.push_str(&format!("\\x{byte:02X}")),
            printable => text.push(char::from(*printable)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_the_client_sends() {
        let request = Request::get("/a?b=%0a\\c")
            .header(
                USER_AGENT,
                http::HeaderValue::from_bytes(b"a\"b\\\x80\tc").unwrap(),
            )
            .body(())
            .unwrap();
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        let line = Line::new([192, 0, 2, 7].into(), now, &request);
        assert_eq!(
            line.finish(StatusCode::OK, 5, Duration::from_micros(1234)),
            "192.0.2.7 - - [24/Nov/2026:10:00:00 +0000] \"GET /a?b=%0a\\x5Cc HTTP/1.1\" 200 5 \
             \"-\" \"a\\x22b\\x5C\\x80\\x09c\" 0.001\n"
        );
    }
}

//! Serves a directory over HTTP, and fails where a test says so.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use camino::Utf8Path;

use crate::http::{Answer, Asked, Server};

/// What goes wrong with the answers for one path, each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another status, with a body that is not the file.
    Status(&'static str),
    /// Something that is not HTTP.
    Garbage,
    /// A log-in page instead of the file.
    LogInPage,
    /// No answer, ever.
    Hang,
    /// So many bytes, and then nothing, ever.
    Stall(usize),
    /// So many bytes, and then the connection ends.
    Cut(usize),
    /// Bytes without end.
    Endless,
    /// The file with a byte too many.
    Longer,
    /// The file as it was before, which does not fit what stands beside it.
    Old,
}

/// A web server for a directory. It serves each file as it is at the time of the request.
#[derive(Debug)]
pub struct Web {
    server: Server,
    faults: Faults,
}

type Faults = Arc<Mutex<BTreeMap<String, Fault>>>;

impl Web {
    /// Serves a directory.
    pub fn of(root: &Utf8Path) -> Self {
        Self::after(root, root)
    }

    /// Serves a directory in place of another one, of which [`Fault::Old`] still shows files.
    pub fn after(before: &Utf8Path, root: &Utf8Path) -> Self {
        let (before, root, faults) = (before.to_owned(), root.to_owned(), Faults::default());
        let script = Arc::clone(&faults);
        let server = Server::start(move |asked| {
            let fault = script.lock().unwrap().get(&asked.path).copied();
            let (root, fault) = match fault {
                Some(Fault::Old) => (&before, None),
                fault => (&root, fault),
            };
            let file = fs::read(root.join(asked.path.trim_start_matches('/'))).ok();
            answer(asked, file.as_deref(), fault)
        });
        Self { server, faults }
    }

    /// Fails from now on when asked for `path`.
    pub fn fails(&self, path: &str, fault: Fault) {
        self.faults.lock().unwrap().insert(path.to_owned(), fault);
    }

    /// Fails no more.
    pub fn recovers(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// Its port on the loopback interface.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.server.asked()
    }

    /// The paths of the requests so far.
    pub fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.path).collect()
    }
}

fn answer(asked: &Asked, file: Option<&[u8]>, fault: Option<Fault>) -> Answer {
    let Some(bytes) = file else {
        return match fault {
            Some(fault) => spoilt(Answer::whole(b"nothing", ""), b"nothing", fault),
            None => Answer::status("404 Not Found"),
        };
    };
    // Names are for content here: a tag that changes with it.
    let sum = bytes.iter().fold(7u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add((*byte).into())
    });
    let good = Answer::file(asked, bytes, &format!("\"{sum:x}\""));
    match fault {
        Some(fault) => spoilt(good, bytes, fault),
        None => good,
    }
}

fn spoilt(good: Answer, bytes: &[u8], fault: Fault) -> Answer {
    match fault {
        Fault::Status(status) => Answer::status(status),
        Fault::Garbage => Answer::raw(b"\x16\x03\x01 this is not HTTP\r\n\r\n"),
        Fault::LogInPage => Answer::whole(b"<html>Welcome! Please log in.</html>", ""),
        Fault::Hang => Answer::raw(b"").hang(0),
        Fault::Stall(after) => good.hang(after),
        Fault::Cut(after) => good.cut(after),
        Fault::Endless => Answer::endless(),
        Fault::Longer => Answer::whole(&[bytes, b"x"].concat(), ""),
        Fault::Old => good,
    }
}

//! The built-in web server while it runs, and a client that speaks to it over a plain socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::Server;

/// How long a condition is waited for: only a test that fails takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Serving {
    child: Child,
    /// Of each port, without the scheme.
    pub(crate) addresses: Vec<String>,
    /// Where monitors ask.
    pub(crate) metrics: Option<String>,
    stdout: BufReader<std::process::ChildStdout>,
}

pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Serving {
    /// Serves with these options; a free port is listened on unless they name one.
    pub(crate) fn start(server: &Server, options: &[&str]) -> Self {
        let mut arguments = vec!["serve"];
        if !options.contains(&"--listen") {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        arguments.extend(options);
        let ports = arguments.iter().filter(|text| **text == "--listen").count();
        let has_metrics = options.contains(&"--metrics-listen");
        let mut child = server
            .command(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut url = || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line.trim().rsplit("://").next().unwrap().to_owned()
        };
        let addresses = (0..ports).map(|_| url()).collect();
        let metrics = has_metrics.then(|| url().trim_end_matches("/metrics").to_owned());
        Self {
            child,
            addresses,
            metrics,
            stdout,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.addresses[0]
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address())
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &str) -> Answer {
        ask(self.address(), request)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1"))
    }

    pub(crate) fn status(&self, request: &str) -> u16 {
        self.ask(request).status()
    }

    pub(crate) fn metrics(&self) -> String {
        let answer = ask(self.metrics.as_ref().unwrap(), "GET /metrics HTTP/1.1");
        assert_eq!(answer.status(), 200);
        String::from_utf8(answer.body).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status();
        assert!(status.unwrap().success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it printed, once it has ended by itself.
    pub(crate) fn ended(mut self) -> Output {
        until("it ends", || !self.is_running());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.stdout.read_to_end(&mut stdout).unwrap();
        let mut from = self.child.stderr.take().unwrap();
        from.read_to_end(&mut stderr).unwrap();
        Output {
            status: self.child.wait().unwrap(),
            stdout,
            stderr,
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.is_running() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

pub(crate) fn ask(address: &str, request: &str) -> Answer {
    let mut stream = connect(address);
    let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    Answer {
        head: String::from_utf8(answer[..at].to_vec()).unwrap(),
        body: answer[at + 4..].to_vec(),
    }
}

/// One request on a connection that stays open.
pub(crate) fn ask_on(stream: &mut TcpStream, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut answer = Answer {
        head,
        body: Vec::new(),
    };
    let len = answer.header("content-length").unwrap().parse().unwrap();
    answer.body = vec![0; len];
    stream.read_exact(&mut answer.body).unwrap();
    answer
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the other side has closed the connection; what it sent before is read.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

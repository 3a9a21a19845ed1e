//! An HTTP/1.1 server that does what a test tells it to, right or wrong, on a real socket.
//!
//! A script gets each request and returns the bytes to send. Nothing is added or corrected, so
//! every mistake that a server can make can be made. Connections are kept alive.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::{fmt, thread};

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How many came before it.
    pub number: usize,
    /// The path that was asked for.
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The first byte asked for, if not the whole file.
    pub fn range(&self) -> Option<usize> {
        self.span().map(|(first, _)| first)
    }

    /// The first byte asked for and the last, if not the whole file or its whole rest.
    pub fn span(&self) -> Option<(usize, Option<usize>)> {
        let (first, last) = self
            .header("Range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let last = (!last.is_empty()).then(|| last.parse().unwrap());
        Some((first.parse().unwrap(), last))
    }
}

/// What to send, byte by byte, and what to do then.
#[derive(Clone, Debug)]
pub struct Answer {
    bytes: Vec<u8>,
    head: usize,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Next,
    Close,
    /// Sends nothing more until the client goes away.
    Hang,
    /// Sends the body again and again until the client goes away.
    Repeat,
}

impl Answer {
    /// A status with headers, each ending with a line break, and nothing added.
    pub fn with(status: &str, headers: &str, body: &[u8]) -> Self {
        let mut bytes = format!("HTTP/1.1 {status}\r\n{headers}\r\n").into_bytes();
        let head = bytes.len();
        bytes.extend(body);
        Self {
            bytes,
            head,
            then: Then::Next,
        }
    }

    /// A status with a short body.
    pub fn status(status: &str) -> Self {
        Self::with(status, "Content-Length: 4\r\n", b"oops")
    }

    /// A whole body.
    pub fn whole(body: &[u8], more: &str) -> Self {
        Self::with(
            "200 OK",
            &format!("Content-Length: {}\r\n{more}", body.len()),
            body,
        )
    }

    /// What a good server answers about a file of this version.
    pub fn file(asked: &Asked, body: &[u8], etag: &str) -> Self {
        let headers = format!("ETag: {etag}\r\nAccept-Ranges: bytes\r\n");
        let same = asked.header("If-Range").is_none_or(|known| known == etag);
        match asked.span().filter(|_| same) {
            None => Self::whole(body, &headers),
            Some((first, _)) if first >= body.len() => Self::with(
                "416 Range Not Satisfiable",
                &format!(
                    "Content-Length: 0\r\nContent-Range: bytes */{}\r\n",
                    body.len()
                ),
                b"",
            ),
            Some((first, last)) => {
                let end = body.len() - 1;
                let last = last.map_or(end, |last| last.min(end));
                let range = format!("{first}-{last}/{}", body.len());
                Self::part(&range, &body[first..=last], &headers)
            }
        }
    }

    /// Part of a body.
    pub fn part(range: &str, body: &[u8], more: &str) -> Self {
        let len = body.len();
        let headers = format!("Content-Length: {len}\r\nContent-Range: bytes {range}\r\n{more}");
        Self::with("206 Partial Content", &headers, body)
    }

    /// A whole body whose length is not told before.
    pub fn chunked(body: &[u8]) -> Self {
        let mut chunks = Vec::new();
        for chunk in body.chunks(1000) {
            chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            chunks.extend(chunk);
            chunks.extend(b"\r\n");
        }
        chunks.extend(b"0\r\n\r\n");
        Self::with("200 OK", "Transfer-Encoding: chunked\r\n", &chunks)
    }

    /// A body without end, whose length is not told.
    pub fn endless() -> Self {
        let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, "x".repeat(1 << 16));
        let mut answer = Self::with("200 OK", "Transfer-Encoding: chunked\r\n", chunk.as_bytes());
        answer.then = Then::Repeat;
        answer
    }

    /// Any bytes, and the end of the connection.
    pub fn raw(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            head: 0,
            then: Then::Close,
        }
    }

    /// A redirect.
    pub fn redirect(to: &str) -> Self {
        Self::with(
            "302 Found",
            &format!("Location: {to}\r\nContent-Length: 0\r\n"),
            b"",
        )
    }

    /// Closes the connection after so many bytes of the body.
    pub fn cut(mut self, after: usize) -> Self {
        self.bytes.truncate(self.head + after);
        self.then = Then::Close;
        self
    }

    /// Sends so many bytes of the body, and then nothing for ever.
    pub fn hang(mut self, after: usize) -> Self {
        self.bytes.truncate(self.head + after);
        self.then = Then::Hang;
        self
    }
}

/// Runs until it is dropped.
pub struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server at {}", self.address)
    }
}

type Script = dyn FnMut(&Asked) -> Answer + Send;

struct State {
    script: Mutex<Box<Script>>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    busy: AtomicUsize,
    most_busy: AtomicUsize,
    over: AtomicBool,
}

impl Server {
    /// Answers each request as the script says, one at a time.
    pub fn start(script: impl FnMut(&Asked) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Mutex::new(Box::new(script)),
            asked: Mutex::default(),
            connections: AtomicUsize::default(),
            busy: AtomicUsize::default(),
            most_busy: AtomicUsize::default(),
            over: AtomicBool::default(),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.over.load(Ordering::SeqCst) {
                    break;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                // A client that goes away in the middle is part of many tests.
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { address, state }
    }

    /// Its port on the loopback interface.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// The most requests that were under way at one time.
    pub fn most_busy(&self) -> usize {
        self.state.most_busy.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, state: &State) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let asked = read_request(&mut reader, state)?;
        let busy = state.busy.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_busy.fetch_max(busy, Ordering::SeqCst);
        let answer = (state.script.lock().unwrap())(&asked);
        let sent = writer.write_all(&answer.bytes);
        match answer.then {
            Then::Hang => drop(reader.read(&mut [0])),
            Then::Repeat => while writer.write_all(&answer.bytes[answer.head..]).is_ok() {},
            Then::Next | Then::Close => {}
        }
        state.busy.fetch_sub(1, Ordering::SeqCst);
        if sent.is_err() || answer.then != Then::Next {
            return None;
        }
    }
}

fn read_request(reader: &mut impl BufRead, state: &State) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let path = lines[0].split(' ').nth(1)?.to_owned();
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers = headers
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut all = state.asked.lock().unwrap();
    let asked = Asked {
        number: all.len(),
        path,
        headers,
    };
    all.push(asked.clone());
    Some(asked)
}

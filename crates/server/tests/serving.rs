//! The built-in web server, spoken to over a real socket.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use support::{CHANNEL, DEVICE, Server};

struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(server: &Server) -> Self {
        let mut child = server
            .command(&["serve", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().to_owned();
        Self { child, address }
    }

    fn ask(&self, request: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let at = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        (
            String::from_utf8(answer[..at].to_vec()).unwrap(),
            answer[at + 4..].to_vec(),
        )
    }

    fn status(&self, request: &str) -> u16 {
        self.ask(request)
            .0
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

#[test]
fn files_are_served_whole_in_ranges_and_on_condition() {
    let server = Server::new();
    let serving = Serving::start(&server);
    let path = format!("/{CHANNEL}/{DEVICE}/index.json");
    let want = std::fs::read(server.index_path()).unwrap();

    let (head, body) = serving.ask(&format!("GET {path} HTTP/1.1"));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, want);
    assert_eq!(
        header(&head, "content-length"),
        Some(&*want.len().to_string())
    );
    assert_eq!(header(&head, "content-type"), Some("application/json"));
    assert_eq!(header(&head, "cache-control"), Some("no-cache"));
    let tag = header(&head, "etag").unwrap().to_owned();

    let (head, body) = serving.ask(&format!("HEAD {path} HTTP/1.1"));
    assert!(head.starts_with("HTTP/1.1 200") && body.is_empty());
    assert_eq!(
        header(&head, "content-length"),
        Some(&*want.len().to_string())
    );

    let (head, body) = serving.ask(&format!("GET {path} HTTP/1.1\r\nRange: bytes=5-9"));
    assert!(head.starts_with("HTTP/1.1 206"), "{head}");
    assert_eq!(body, want[5..=9]);
    let range = format!("bytes 5-9/{}", want.len());
    assert_eq!(header(&head, "content-range"), Some(&*range));

    let (head, body) = serving.ask(&format!(
        "GET {path} HTTP/1.1\r\nRange: bytes=5-\r\nIf-Range: {tag}"
    ));
    assert!(head.starts_with("HTTP/1.1 206"), "{head}");
    assert_eq!(body, want[5..]);
    let (head, body) = serving.ask(&format!(
        "GET {path} HTTP/1.1\r\nRange: bytes=5-\r\nIf-Range: \"other\""
    ));
    assert!(
        head.starts_with("HTTP/1.1 200"),
        "a changed file is sent whole: {head}"
    );
    assert_eq!(body, want);

    assert_eq!(
        serving.status(&format!("GET {path} HTTP/1.1\r\nIf-None-Match: {tag}")),
        304
    );
    assert_eq!(
        serving.status(&format!("GET {path} HTTP/1.1\r\nRange: bytes=99999999-")),
        416
    );
}

#[test]
fn only_published_files_are_served() {
    let server = Server::new();
    std::fs::write(server.www().join("half.new"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", server.www().join("escape")).unwrap();
    let serving = Serving::start(&server);
    for path in [
        "/",
        "/gpg",
        "/gpg/",
        "/none",
        "/gpg/blacklist.tar.xz",
        "/../etc/config",
        "/..%2fetc/config",
        "/%2e%2e/etc/config",
        "/half.new",
        "/escape",
        "/.channels.json/now/channels.json",
        "/channels.json/x",
        "/%00",
        "/%ff",
    ] {
        assert_eq!(
            serving.status(&format!("GET {path} HTTP/1.1")),
            404,
            "{path}"
        );
    }
    assert_eq!(
        serving.status("POST /channels.json HTTP/1.1\r\nContent-Length: 0"),
        405
    );
    assert_eq!(
        serving.status("GET /channels.json HTTP/1.1"),
        200,
        "it still serves"
    );
}

#[test]
fn a_port_that_is_taken_is_told() {
    let server = Server::new();
    let serving = Serving::start(&server);
    let output = server
        .command(&["serve", "--listen", &serving.address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        support::stderr(&output).contains("cannot listen"),
        "{}",
        support::stderr(&output)
    );
}

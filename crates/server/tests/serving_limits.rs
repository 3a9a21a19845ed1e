//! The built-in web server with clients that are slow, many or gone, and how it stops and tells.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use support::Server;
use support::serving::{Serving, ask, ask_on, connect, is_closed, until};

const METRICS: [&str; 2] = ["--metrics-listen", "127.0.0.1:0"];

/// Does not fit into the buffers between two sockets.
const LARGE: u64 = 64 << 20;

fn large_file(server: &Server) -> &'static str {
    fs::create_dir_all(server.www().join("pool")).unwrap();
    let file = File::create(server.www().join("pool/large.tar.xz")).unwrap();
    file.set_len(LARGE).unwrap();
    "/pool/large.tar.xz"
}

fn has(serving: &Serving, line: &str) -> bool {
    let line = format!("system_image_serve_{line}");
    serving.metrics().lines().any(|found| found == line)
}

fn dropped(reason: &str, times: u32) -> String {
    format!("connections_dropped_total{{reason=\"{reason}\"}} {times}")
}

#[test]
fn a_head_that_is_never_finished_is_not_waited_for() {
    let server = Server::new();
    let options = ["--head-timeout", "0.4", "--idle-timeout", "60"];
    let serving = Serving::start(&server, &[&options[..], &METRICS].concat());
    let mut slow = serving.connect();
    slow.write_all(b"GET /channels.json HTTP/1.1\r\n").unwrap();
    // A byte now and then is no progress.
    until("the slow one is dropped", || {
        let _ = slow.write_all(b"X");
        has(&serving, &dropped("slow_head", 1))
    });
    assert!(is_closed(&mut slow));
    assert_eq!(serving.get("/channels.json").status(), 200);
}

#[test]
fn a_connection_without_requests_is_closed() {
    let server = Server::new();
    let options = ["--idle-timeout", "0.3"];
    let serving = Serving::start(&server, &[&options[..], &METRICS].concat());
    let (mut silent, mut done) = (serving.connect(), serving.connect());
    assert_eq!(ask_on(&mut done, "/channels.json").status(), 200);
    assert!(is_closed(&mut silent));
    assert!(is_closed(&mut done));
    until("both are counted", || has(&serving, &dropped("idle", 2)));
}

#[test]
fn a_reader_that_takes_nothing_is_dropped_and_a_slow_one_is_not() {
    let server = Server::new();
    let path = large_file(&server);
    let options = ["--stall-timeout", "1"];
    let serving = Serving::start(&server, &[&options[..], &METRICS].concat());
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (mut stuck, mut slow) = (serving.connect(), serving.connect());
    stuck.write_all(request.as_bytes()).unwrap();
    slow.write_all(request.as_bytes()).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut taken = 0;
    until("the stuck one is dropped", || {
        taken += slow.read(&mut buffer).unwrap() as u64;
        has(&serving, &dropped("slow_reader", 1))
    });
    loop {
        match slow.read(&mut buffer).unwrap() {
            0 => break,
            read => taken += read as u64,
        }
    }
    assert!(taken > LARGE, "head and body, all of it");
    assert!(has(&serving, &dropped("slow_reader", 1)));
}

#[test]
fn one_address_cannot_take_all_connections() {
    let server = Server::new();
    let options = ["--max-connections-per-address", "2"];
    let serving = Serving::start(&server, &[&options[..], &METRICS].concat());
    let mut open: Vec<_> = (0..2).map(|_| serving.connect()).collect();
    for stream in &mut open {
        assert_eq!(ask_on(stream, "/channels.json").status(), 200);
    }
    assert!(is_closed(&mut serving.connect()));
    assert!(has(&serving, &dropped("per_address", 1)));
    assert_eq!(ask_on(&mut open[0], "/channels.json").status(), 200);
    drop(open);
    until("there is room again", || has(&serving, "connections 0"));
    assert_eq!(serving.get("/channels.json").status(), 200);
}

#[test]
fn more_connections_than_allowed_wait_for_their_turn() {
    let server = Server::new();
    let serving = Serving::start(&server, &["--max-connections", "1"]);
    let mut first = serving.connect();
    assert_eq!(ask_on(&mut first, "/channels.json").status(), 200);
    let mut second = serving.connect();
    let request = b"GET /channels.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    second.write_all(request).unwrap();
    second.set_nonblocking(true).unwrap();
    let waiting = second.read(&mut [0]).unwrap_err();
    assert_eq!(waiting.kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    second.set_nonblocking(false).unwrap();
    let mut answer = String::new();
    second.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_transfer_is_finished_before_the_server_ends() {
    let server = Server::new();
    let path = large_file(&server);
    let mut serving = Serving::start(&server, &METRICS);
    let monitor = serving.metrics.clone().unwrap();
    assert_eq!(ask(&monitor, "GET /healthz HTTP/1.1").status(), 200);
    let mut idle = serving.connect();
    assert_eq!(ask_on(&mut idle, "/channels.json").status(), 200);
    let mut transfer = serving.connect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    transfer.write_all(request.as_bytes()).unwrap();
    transfer.read_exact(&mut [0; 4]).unwrap();

    serving.signal("TERM");
    assert!(is_closed(&mut idle), "who has no request has to go");
    until("it says that it stops", || {
        ask(&monitor, "GET /healthz HTTP/1.1").status() == 503
    });
    let address = serving.address().to_owned();
    until("it takes nothing new", || {
        std::net::TcpStream::connect(&address).is_err()
    });
    assert!(serving.is_running());
    let mut rest = Vec::new();
    transfer.read_to_end(&mut rest).unwrap();
    assert!(rest.len() as u64 > LARGE, "{} bytes", rest.len());
    let output = serving.ended();
    assert!(output.status.success());
    assert_eq!(support::stderr(&output), "");
}

#[test]
fn a_transfer_does_not_hold_up_the_end_for_ever() {
    let server = Server::new();
    let path = large_file(&server);
    let stuck = |serving: &Serving| {
        let mut stream = serving.connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        stream
    };
    let serving = Serving::start(&server, &["--grace", "0.3"]);
    let one = stuck(&serving);
    serving.signal("INT");
    let output = serving.ended();
    assert!(output.status.success());
    let told = support::stderr(&output);
    assert!(told.contains("1 connections were cut off"), "{told}");
    drop(one);

    let serving = Serving::start(&server, &["--grace", "1000"]);
    let mut idle = serving.connect();
    assert_eq!(ask_on(&mut idle, "/channels.json").status(), 200);
    let one = stuck(&serving);
    serving.signal("TERM");
    assert!(is_closed(&mut idle), "it is stopping");
    serving.signal("TERM");
    assert!(serving.ended().status.success());
    drop(one);
}

#[test]
fn each_request_is_a_line_of_the_log_also_after_it_was_rotated() {
    let server = Server::new();
    let log = server.place().join("access.log");
    let options = ["--access-log", log.to_str().unwrap()];
    let serving = Serving::start(&server, &options);
    let lines = |path: &Path| -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    let size = fs::metadata(server.www().join("channels.json"))
        .unwrap()
        .len();
    serving.ask("GET /channels.json?x=\\ HTTP/1.1\r\nUser-Agent: a \"test\"");
    serving.ask("HEAD /none HTTP/1.1\r\nReferer: http://x/");
    until("both are written", || lines(&log).len() == 2);
    let written = lines(&log);
    let (before, after) = (&written[0], &written[1]);
    assert!(before.starts_with("127.0.0.1 - - ["), "{before}");
    let request = format!("\"GET /channels.json?x=\\x5C HTTP/1.1\" 200 {size} ");
    assert!(before.contains(&request), "{before}");
    assert!(before.contains("\"-\" \"a \\x22test\\x22\" 0."), "{before}");
    assert!(
        after.contains("\"HEAD /none HTTP/1.1\" 404 0 \"http://x/\" \"-\" 0."),
        "{after}"
    );

    let rotated = server.place().join("access.log.1");
    fs::rename(&log, &rotated).unwrap();
    serving.signal("HUP");
    until("it is opened again", || log.exists());
    serving.get("/channels.json");
    until("it is written", || lines(&log).len() == 1);
    assert_eq!(lines(&rotated).len(), 2);

    let to_stdout = Serving::start(&server, &["--access-log", "-"]);
    to_stdout.get("/channels.json");
    to_stdout.signal("TERM");
    let output = to_stdout.ended();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("\"GET /channels.json HTTP/1.1\" 200"),
        "{text}"
    );
}

#[test]
fn monitors_are_told_what_is_served() {
    let server = Server::new();
    let serving = Serving::start(&server, &METRICS);
    let size = fs::metadata(server.www().join("channels.json"))
        .unwrap()
        .len();
    serving.get("/channels.json");
    serving.get("/channels.json.asc");
    serving.get("/gpg/image-master.tar.xz");
    serving.get("/none");
    for line in [
        "requests_total{kind=\"document\",status=\"200\"} 1",
        "requests_total{kind=\"signature\",status=\"200\"} 1",
        "requests_total{kind=\"keyring\",status=\"200\"} 1",
        "requests_total{kind=\"nothing\",status=\"404\"} 1",
        "request_duration_seconds_count 4",
        "connections_total 4",
        &format!("sent_bytes_total{{kind=\"document\"}} {size}"),
    ] {
        until(line, || has(&serving, line));
    }
    let monitor = serving.metrics.clone().unwrap();
    assert_eq!(ask(&monitor, "GET /healthz HTTP/1.1").status(), 200);
    assert_eq!(ask(&monitor, "GET /channels.json HTTP/1.1").status(), 404);
    assert_eq!(serving.get("/metrics").status(), 404, "not for the public");
    fs::rename(server.www(), server.place().join("elsewhere")).unwrap();
    let answer = ask(&monitor, "GET /healthz HTTP/1.1");
    assert_eq!(answer.status(), 503);
    drop(connect(&monitor));
}

//! The built-in web server, spoken to over a real socket: what it serves, and what not.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;
use support::serving::{Serving, ask_on};
use support::{CHANNEL, DEVICE, Server};

fn index() -> String {
    format!("/{CHANNEL}/{DEVICE}/index.json")
}

#[test]
fn files_are_served_whole_in_ranges_and_on_condition() {
    let server = Server::new();
    let serving = Serving::start(&server, &[]);
    let path = index();
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let file = File::options()
        .write(true)
        .open(server.index_path())
        .unwrap();
    file.set_modified(an_hour_ago).unwrap();
    let want = std::fs::read(server.index_path()).unwrap();
    let len = want.len().to_string();

    let answer = serving.get(&path);
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.body, want);
    assert_eq!(answer.header("content-length"), Some(&*len));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("vary"), Some("accept-encoding"));
    assert_eq!(answer.header("content-encoding"), None);
    let tag = answer.header("etag").unwrap().to_owned();
    let modified = answer.header("last-modified").unwrap().to_owned();

    let answer = serving.ask(&format!("HEAD {path} HTTP/1.1"));
    assert!(answer.status() == 200 && answer.body.is_empty());
    assert_eq!(answer.header("content-length"), Some(&*len));

    let answer = serving.ask(&format!("GET {path} HTTP/1.1\r\nRange: bytes=5-9"));
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.body, want[5..=9]);
    let range = format!("bytes 5-9/{len}");
    assert_eq!(answer.header("content-range"), Some(&*range));

    let resume = |if_range: &str| {
        serving.ask(&format!(
            "GET {path} HTTP/1.1\r\nRange: bytes=5-\r\nIf-Range: {if_range}"
        ))
    };
    let answer = resume(&tag);
    assert_eq!((answer.status(), &answer.body[..]), (206, &want[5..]));
    let answer = resume("\"other\"");
    let whole = (answer.status(), &answer.body[..]);
    assert_eq!(whole, (200, &want[..]), "a changed file is sent whole");

    for (condition, status) in [
        (format!("If-None-Match: {tag}"), 304),
        ("If-None-Match: \"other\"".to_owned(), 200),
        (format!("If-Modified-Since: {modified}"), 304),
        (format!("If-Match: {tag}"), 200),
        ("If-Match: \"other\"".to_owned(), 412),
        ("Range: bytes=99999999-".to_owned(), 416),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\n{condition}");
        assert_eq!(serving.status(&request), status, "{condition}");
    }
}

#[test]
fn a_large_file_comes_from_the_kernel_and_is_the_same() {
    let server = Server::new();
    // Longer than a window, and no multiple of a page.
    let want: Vec<u8> = (0..3_500_001_u32)
        .map(|n| n.to_le_bytes()[(n % 3) as usize])
        .collect();
    std::fs::create_dir_all(server.www().join("pool")).unwrap();
    std::fs::write(server.www().join("pool/large.tar.xz"), &want).unwrap();
    let serving = Serving::start(&server, &[]);
    let path = "/pool/large.tar.xz";

    let answer = serving.get(path);
    assert!(answer.body == want, "all of it");
    assert_eq!(answer.header("content-type"), Some("application/x-xz"));
    assert_eq!(
        answer.header("cache-control"),
        Some("public, max-age=86400")
    );
    let answer = serving.ask(&format!(
        "GET {path} HTTP/1.1\r\nRange: bytes=1000001-3000000"
    ));
    assert!(answer.body == want[1_000_001..=3_000_000], "a part of it");
    let answer = serving.ask(&format!(
        "GET {path} HTTP/1.1\r\nRange: bytes=0-1100000,2000000-2000009"
    ));
    assert_eq!(answer.status(), 206);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("multipart/byteranges")
    );
    let has = |part: &[u8]| answer.body.windows(part.len()).any(|found| found == part);
    assert!(
        has(&want[..=1_100_000]) && has(&want[2_000_000..2_000_010]),
        "two parts of it"
    );

    // One connection, one after the other, with requests that do not wait for the answer.
    let mut stream = serving.connect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let last = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream
        .write_all((request.repeat(2) + &last).as_bytes())
        .unwrap();
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    let found = answers
        .windows(1000)
        .filter(|found| *found == &want[..1000])
        .count();
    assert_eq!(found, 3);
    assert!(answers.ends_with(&want));
}

#[test]
fn documents_are_compressed_only_for_those_who_ask() {
    let server = Server::new();
    let text = format!("{{\"text\": \"{}\"}}", "repeated ".repeat(1000));
    std::fs::write(server.www().join("long.json"), &text).unwrap();
    let serving = Serving::start(&server, &[]);
    let with = |field: &str| serving.ask(&format!("GET /long.json HTTP/1.1\r\n{field}"));

    let plain = with("Accept: */*");
    assert_eq!(plain.body, text.as_bytes());
    for _ in 0..2 {
        let answer = with("Accept-Encoding: br, gzip");
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        assert_eq!(answer.header("vary"), Some("accept-encoding"));
        assert!(answer.body.len() < text.len() / 10);
        let mut unpacked = String::new();
        GzDecoder::new(&answer.body[..])
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, text);
        let tag = answer.header("etag").unwrap();
        assert_ne!(
            Some(tag),
            plain.header("etag"),
            "they are not the same bytes"
        );
        let again = with(&format!("Accept-Encoding: gzip\r\nIf-None-Match: {tag}"));
        assert_eq!(again.status(), 304);
    }
    for field in [
        "Accept-Encoding: identity",
        "Accept-Encoding: gzip;q=0",
        "Accept-Encoding: identity, gzip;q=0.5",
    ] {
        assert_eq!(with(field).body, text.as_bytes(), "{field}");
    }
    let part = with("Accept-Encoding: gzip\r\nRange: bytes=2-5");
    assert_eq!(part.body, b"text"[..], "a part is one of what is verified");

    // As those who publish do; a file that is written in place may keep its time for a tick.
    std::fs::write(server.www().join("long.json.new"), text.to_uppercase()).unwrap();
    std::fs::rename(
        server.www().join("long.json.new"),
        server.www().join("long.json"),
    )
    .unwrap();
    let answer = with("Accept-Encoding: gzip");
    let mut unpacked = String::new();
    GzDecoder::new(&answer.body[..])
        .read_to_string(&mut unpacked)
        .unwrap();
    assert_eq!(
        unpacked,
        text.to_uppercase(),
        "what was replaced is not found any more"
    );
}

#[test]
fn a_connection_is_given_a_document_and_the_signature_that_belongs_to_it() {
    let server = Server::new();
    let serving = Serving::start(&server, &[]);
    let (document, signature) = (index(), format!("{}.asc", index()));
    let on_disk = |path: &str| std::fs::read(server.www().join(&path[1..])).unwrap();
    let archive = server.archive("one", &[("etc/version", "1")]);

    for (first, second) in [(&document, &signature), (&signature, &document)] {
        let mut stream = serving.connect();
        let (old_first, old_second) = (on_disk(first), on_disk(second));
        assert_eq!(ask_on(&mut stream, first).body, old_first);
        server.publish(&archive);
        assert_ne!(on_disk(second), old_second);
        assert_eq!(
            ask_on(&mut stream, second).body,
            old_second,
            "it belongs to the first"
        );
        assert_eq!(
            ask_on(&mut stream, second).body,
            on_disk(second),
            "asked again, it is new"
        );
        assert_eq!(ask_on(&mut stream, first).body, on_disk(first));
        assert_eq!(
            serving.get(second).body,
            on_disk(second),
            "others are not concerned"
        );
        server.archive("one", &[("etc/version", "2")]);
    }
}

#[test]
fn only_published_files_are_served() {
    let server = Server::new();
    std::fs::write(server.www().join("half.new"), "x").unwrap();
    for (name, target) in [
        ("escape", "/etc/passwd"),
        ("upwards", "../etc/config"),
        ("loop", "loop"),
        ("process", "/proc/self/environ"),
    ] {
        std::os::unix::fs::symlink(target, server.www().join(name)).unwrap();
    }
    let serving = Serving::start(&server, &[]);
    let long = format!("/{}", "a".repeat(300));
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
        "/upwards",
        "/loop",
        "/process",
        "/.channels.json/now/channels.json",
        "/channels.json/x",
        "/%00",
        "/%ff",
        &long,
    ] {
        let answer = serving.get(path);
        assert_eq!(answer.status(), 404, "{path}");
        let cached = answer.header("cache-control");
        assert_eq!(cached, Some("no-cache"), "it may be published next");
    }
    let answer = serving.ask("POST /channels.json HTTP/1.1\r\nContent-Length: 0");
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    let too_long = format!("GET /{} HTTP/1.1", "a".repeat(5000));
    assert_eq!(serving.status(&too_long), 414);
    let too_large = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(20_000));
    assert_eq!(serving.status(&too_large), 431);
    let too_many = format!("GET / HTTP/1.1{}", "\r\nX: y".repeat(200));
    assert_eq!(serving.status(&too_many), 431);
    assert_eq!(
        serving.get("/channels.json").status(),
        200,
        "it still serves"
    );
}

#[test]
fn a_port_that_is_taken_is_told() {
    let server = Server::new();
    let serving = Serving::start(&server, &[]);
    let output = server
        .command(&["serve", "--listen", serving.address()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = support::stderr(&output);
    assert!(
        told.contains("cannot listen") && told.contains("hint:"),
        "{told}"
    );
}

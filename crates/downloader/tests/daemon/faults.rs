//! Servers that are wrong in one way or another: what is finished is right, or it is told what is wrong
//! (specification, sections 8 and 9).

use std::fs;

use system_image_testkit::http::{Answer, Asked, Server};
use system_image_testkit::{Bus, Https};

use crate::support::{Daemon, Place, command, noise, sha256};

const LEN: usize = 300_000;

/// What a server does with a request for a file.
type Does = fn(&Asked, &[u8]) -> Answer;

fn right(asked: &Asked, body: &[u8]) -> Answer {
    Answer::file(asked, body, "\"1\"")
}

/// The first time otherwise.
fn first(asked: &Asked, body: &[u8], other: Answer) -> Answer {
    if asked.number == 0 {
        other
    } else {
        right(asked, body)
    }
}

#[test]
fn what_comes_right_in_the_end_is_finished() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    let body = noise(LEN);
    let digest = sha256(&body);
    let cases: [(&str, Does); 10] = [
        ("cut at once", |a, b| first(a, b, right(a, b).cut(0))),
        ("cut after a byte", |a, b| first(a, b, right(a, b).cut(1))),
        ("cut before the last byte", |a, b| {
            first(a, b, right(a, b).cut(LEN - 1))
        }),
        ("no HTTP", |a, b| first(a, b, Answer::raw(b"SSH-2.0-x\r\n"))),
        ("busy", |a, b| {
            first(a, b, Answer::status("503 Service Unavailable"))
        }),
        ("a hint before the answer", |a, b| {
            let hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", b.len());
            let _ = a;
            Answer::raw(&[hint, head.as_bytes(), b].concat())
        }),
        ("a part of another version", |a, b| match a.range() {
            None if a.number == 0 => Answer::file(a, b, "\"0\"").cut(LEN / 2),
            Some(from) => Answer::part(
                &format!("{from}-{}/{}", b.len() - 1, b.len()),
                &vec![0; b.len() - from],
                "ETag: \"2\"\r\n",
            ),
            None => right(a, b),
        }),
        ("the wrong part", |a, b| match a.range() {
            None if a.number == 0 => right(a, b).cut(LEN / 2),
            Some(_) => Answer::part(&format!("0-9/{}", b.len()), &b[..10], "ETag: \"1\"\r\n"),
            None => right(a, b),
        }),
        ("all of it although a part was asked for", |a, b| {
            match a.number {
                0 => right(a, b).cut(LEN / 2),
                _ => Answer::whole(b, "ETag: \"1\"\r\n"),
            }
        }),
        ("chunks that are cut", |a, b| {
            first(a, b, Answer::chunked(b).cut(5000))
        }),
    ];
    for (at, (what, does)) in cases.into_iter().enumerate() {
        for (kind, hash) in [("with", &digest[..]), ("without", "")] {
            let content = body.clone();
            let server = Server::start(move |asked| does(asked, &content));
            let file = place.file(&format!("{at}-{kind}"));
            let metadata = crate::support::local_path(&file);
            let path = daemon.create(&server.url("/x"), hash, "sha256", &metadata);
            daemon.call(&path, "start", &[]);
            daemon.until(&path, "finished");
            assert!(fs::read(&file).unwrap() == body, "{what}, {kind} a digest");
            daemon.call(&path, "collected", &[]);
        }
    }
}

#[test]
fn what_stays_wrong_is_told() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    let cases: [(&str, Does, &str); 5] = [
        (
            "always cut",
            |a, b| right(a, b).cut(10),
            "networkError ((2, ",
        ),
        (
            "a part that nobody asked for",
            |_, b| Answer::part(&format!("0-9/{}", b.len()), &b[..10], ""),
            "networkError ((399, ",
        ),
        (
            "no such range",
            |_, _| Answer::status("416 Range Not Satisfiable"),
            "httpError ((416, ",
        ),
        (
            "redirects without end",
            |a, _| {
                let to = format!("Location: /{}\r\nContent-Length: 0\r\n", a.number + 1);
                Answer::with("302 Found", &to, b"")
            },
            "networkError ((10, ",
        ),
        (
            "always another version",
            |a, b| Answer::file(a, b, &format!("\"{}\"", a.number)).cut(LEN / 2),
            "networkError ((2, ",
        ),
    ];
    for (what, does, cause) in cases {
        let server = Server::start(move |asked| does(asked, &noise(LEN)));
        let path = daemon.create(&server.url("/x"), "", "", "@a{sv} {}");
        daemon.call(&path, "start", &[]);
        let signals = daemon.until(&path, "error");
        let [.., told, last] = &signals[..] else {
            panic!("{what}: {signals:?}");
        };
        assert!(told.starts_with(cause), "{what}: {signals:?}");
        assert_eq!(last, "error ('NETWORK ERROR',)", "{what}");
        assert_eq!(place.files(), [""; 0], "{what}");
    }
}

#[test]
fn an_answer_without_content_is_an_empty_file() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|_| Answer::with("204 No Content", "", b""));
    let daemon = Daemon::start(&bus, &place);
    let file = place.file("empty");
    let path = daemon.fetch(&server.url("/x"), &file);
    daemon.call(&path, "start", &[]);
    daemon.until(&path, "finished");
    assert_eq!(fs::read(file).unwrap(), b"");
}

#[test]
fn a_certificate_must_be_trusted_valid_and_the_servers() {
    let bus = Bus::start();
    for (what, accepted, name, years_ago, error) in [
        ("nobody vouches for it", false, "IP:127.0.0.1", 0, true),
        ("it is accepted", true, "IP:127.0.0.1", 0, false),
        ("it is accepted but too old", true, "IP:127.0.0.1", 3, true),
        (
            "it is accepted but another's",
            true,
            "IP:127.0.0.2",
            0,
            true,
        ),
    ] {
        let place = Place::new();
        let root = place.file("www");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("x"), "content").unwrap();
        let server = Https::serve(&root, place.path(), name, years_ago);
        let mut daemon = command(&bus, &place);
        if accepted {
            let pattern = place.file("certif*.pem");
            daemon.args(["-self-signed-certs", pattern.as_str()]);
        }
        let daemon = Daemon::with(&bus, daemon);
        let file = place.file("x");
        let url = format!("https://127.0.0.1:{}/x", server.port());
        let path = daemon.fetch(&url, &file);
        daemon.call(&path, "start", &[]);
        if error {
            let signals = daemon.until(&path, "error");
            assert!(
                signals
                    .iter()
                    .any(|told| told.starts_with("networkError ((6, ")),
                "{what}: {signals:?}"
            );
            assert_eq!(signals.last().unwrap(), "error ('SSL ERROR',)", "{what}");
            assert!(!file.exists(), "{what}");
        } else {
            daemon.until(&path, "finished");
            assert_eq!(fs::read(&file).unwrap(), b"content", "{what}");
        }
    }
}

//! Servers that mean harm, or do it.

use system_image_fetch::{FetchError, Fetcher, Request, Settings, Size, Trouble};
use system_image_testkit::http::{Answer, Server};

use crate::support::*;

fn once(request: &Request) -> Result<system_image_fetch::Fetched, FetchError> {
    let mut settings = Settings::new("Tester/1");
    settings.patience.attempts = 1;
    run(Fetcher::new(settings).unwrap().fetch(request, &mut |_| {}))
}

#[test]
fn an_endless_body_ends_at_the_limit() {
    let place = Place::new();
    let server = Server::start(|_| Answer::endless());
    let request = Request {
        size: Size::AtMost(10 << 20),
        digest: None,
        ..place.request(&server, b"")
    };
    let error = fetch(&request).unwrap_err();
    assert!(matches!(error, FetchError::TooLong { .. }), "{error:?}");
}

#[test]
fn endless_headers_end_too() {
    let place = Place::new();
    for head in [
        format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(100_000)),
        format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(4 << 20)),
        format!("HTTP/1.1 200 {}", "y".repeat(4 << 20)),
    ] {
        let server = Server::start(move |_| Answer::raw(head.as_bytes()));
        let refused = trouble(once(&place.request(&server, b"x")));
        assert!(
            matches!(refused, Trouble::Garbled | Trouble::Lost),
            "{refused:?}"
        );
    }
}

#[test]
fn absurd_headers_do_no_harm() {
    let long = "x".repeat(50_000);
    for (headers, good) in [
        (format!("Content-Disposition: filename={long}\r\n"), true),
        (format!("Content-Type: {long}\r\n"), true),
        (format!("ETag: \"{long}\"\r\n"), true),
        ("ETag: \"a\u{1}b\"\r\n".to_owned(), false),
        (
            "Last-Modified: Sun, 99 Foo 0000 99:99:99 GMT\r\n".to_owned(),
            true,
        ),
        ("Retry-After: 99999999999999999999\r\n".to_owned(), true),
        ("Content-Length: 5\r\n".to_owned(), false),
    ] {
        let place = Place::new();
        let server = Server::start(move |_| Answer::whole(b"some", &headers));
        let request = Request {
            size: Size::AtMost(100),
            digest: None,
            ..place.request(&server, b"")
        };
        assert_eq!(once(&request).is_ok(), good);
        assert_eq!(request.destination.exists(), good);
    }
}

#[test]
fn a_size_that_no_disk_has_is_refused_before_anything_is_written() {
    let place = Place::new();
    let server = Server::start(|_| {
        Answer::with("200 OK", "Content-Length: 4611686018427387904\r\n", b"some")
    });
    let request = Request {
        size: Size::AtMost(u64::MAX),
        digest: None,
        ..place.request(&server, b"")
    };
    let error = once(&request).unwrap_err();
    assert!(
        matches!(error, FetchError::Full { .. } | FetchError::Disk { .. }),
        "{error:?}"
    );
}

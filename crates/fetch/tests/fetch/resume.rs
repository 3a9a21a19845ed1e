//! What is gone on with, and what is not, where no digest tells.

use std::fs;

use system_image_fetch::{FetchError, Request, Size, Trouble};
use system_image_testkit::http::{Answer, Asked, Server};

use crate::support::*;

const TIME: &str = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
const LATER: &str = "Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n";
const SAME: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

fn request(place: &Place, server: &Server) -> Request {
    Request {
        size: Size::AtMost(1 << 30),
        digest: None,
        ..place.request(server, b"")
    }
}

/// The rest that is asked for, as a server that knows ranges and nothing else.
fn rest(asked: &Asked, body: &[u8], headers: &str) -> Answer {
    match asked.range() {
        Some(first) => {
            let range = format!("{first}-{}/{}", body.len() - 1, body.len());
            Answer::part(&range, &body[first..], headers)
        }
        None => Answer::whole(body, headers),
    }
}

#[test]
fn a_time_joins_two_halves_only_if_its_second_was_over() {
    for (date, resumed, condition) in [
        (LATER, Some(60_000), Some("Sun, 06 Nov 1994 08:49:37 GMT")),
        (SAME, None, None),
        ("", None, None),
    ] {
        let (place, body) = (Place::new(), content(100_000, 1));
        let (copy, headers) = (body.clone(), format!("{TIME}{date}"));
        let server = Server::start(move |asked| {
            let answer = rest(asked, &copy, &headers);
            if asked.number == 0 {
                answer.cut(60_000)
            } else {
                answer
            }
        });
        let fetched = fetch(&request(&place, &server)).unwrap();
        assert_eq!(fs::read(fetched.path).unwrap(), body);
        let asked = server.asked();
        assert_eq!(asked.len(), 2, "{date}");
        assert_eq!(asked[1].range(), resumed, "{date}");
        assert_eq!(asked[1].header("If-Range"), condition, "{date}");
    }
}

#[test]
fn a_server_that_ignores_the_condition_does_not_get_its_halves_joined() {
    for headers in ["ETag: \"2\"\r\n", ""] {
        let (place, old, new) = (Place::new(), content(100_000, 1), content(100_000, 2));
        let copy = new.clone();
        let server = Server::start(move |asked| match asked.number {
            0 => Answer::whole(&old, "ETag: \"1\"\r\n").cut(60_000),
            _ => rest(asked, &copy, headers),
        });
        let fetched = fetch(&request(&place, &server)).unwrap();
        assert_eq!(fs::read(fetched.path).unwrap(), new, "{headers}");
    }
}

#[test]
fn a_range_that_begins_at_the_end_says_that_all_is_there() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let copy = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &copy, "\"1\""));
    let request = request(&place, &server);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let info = format!("{}\netag \"1\"\nboot {boot}", request.url);
    fs::write(place.path("file.part"), &body).unwrap();
    fs::write(place.path("file.part.info"), info).unwrap();
    let fetched = fetch(&request).unwrap();
    assert_eq!((fetched.transferred, server.asked().len()), (0, 1));
    assert_eq!(fs::read(fetched.path).unwrap(), body);
}

#[test]
fn fewer_bytes_than_promised_are_asked_for_and_in_the_end_are_no_file() {
    let place = Place::new();
    let server = Server::start(|asked| {
        let body = content(100_000, 1);
        match asked.range() {
            None => Answer::file(asked, &body, "\"1\"").cut(60_000),
            Some(_) => Answer::file(asked, &body, "\"1\"").cut(0),
        }
    });
    let request = request(&place, &server);
    assert_eq!(trouble(fetch(&request)), Trouble::Lost);
    assert!(!request.destination.exists());
    let ranges: Vec<_> = server.asked().iter().map(Asked::range).collect();
    assert_eq!(ranges, [None, Some(60_000), Some(60_000)]);
    assert_eq!(fs::metadata(place.path("file.part")).unwrap().len(), 60_000);
}

#[test]
fn more_bytes_than_promised_are_no_file() {
    let place = Place::new();
    let server = Server::start(|asked| {
        let body = content(100_000, 1);
        let Some(first) = asked.range() else {
            return Answer::file(asked, &body, "\"1\"").cut(60_000);
        };
        // Chunks tell no length, and so can be more than the range has.
        let mut chunk = format!("{:x}\r\n", 50_000).into_bytes();
        chunk.extend(content(50_000, 1));
        chunk.extend(b"\r\n0\r\n\r\n");
        Answer::with(
            "206 Partial Content",
            &format!(
                "ETag: \"1\"\r\nContent-Range: bytes {first}-99999/100000\r\n\
                Transfer-Encoding: chunked\r\n"
            ),
            &chunk,
        )
    });
    let request = request(&place, &server);
    let refused = trouble(fetch(&request));
    assert!(
        matches!(refused, Trouble::Garbled | Trouble::Lost),
        "{refused:?}"
    );
    assert!(!request.destination.exists());
}

#[test]
fn a_part_that_nobody_asked_for_is_refused() {
    let place = Place::new();
    let server = Server::start(|_| Answer::part("0-3/4", b"some", "ETag: \"1\"\r\n"));
    let request = request(&place, &server);
    assert_eq!(trouble(fetch(&request)), Trouble::Garbled);
}

#[test]
fn a_long_file_without_a_digest_is_made_durable_on_its_way() {
    let (place, body) = (Place::new(), vec![7; 130 << 20]);
    let server = Server::start(move |_| Answer::whole(&body, "ETag: \"1\"\r\n").hang(129 << 20));
    let request = request(&place, &server);
    let fetcher = fetcher();
    let noted = || {
        let info = fs::read_to_string(place.path("file.part.info")).unwrap_or_default();
        let synced = info.lines().find_map(|line| line.strip_prefix("synced "));
        synced.map_or(0, |bytes| bytes.parse().unwrap())
    };
    run(async {
        let mut ignore = |_| {};
        let mut download = std::pin::pin!(fetcher.receive(&request, &mut ignore));
        while noted() < 128u64 << 20 {
            let wait = tokio::time::timeout(SHORT, &mut download);
            assert!(wait.await.is_err(), "it does not end");
        }
    });
    let written = fs::metadata(place.path("file.part")).unwrap().len();
    assert!(noted() <= written);
}

#[test]
fn a_download_that_is_dropped_while_it_reads_what_is_there_lets_go_of_it() {
    let place = Place::new();
    let server = Server::start(|_| Answer::whole(b"some", ""));
    // Half a minute of hashing.
    let part = fs::File::create(place.path("file.part")).unwrap();
    part.set_len(64 << 30).unwrap();
    let long = Request {
        size: Size::AtMost(u64::MAX),
        ..place.request(&server, b"some")
    };
    let fetcher = fetcher();
    run(async {
        let mut ignore = |_| {};
        let begun = tokio::time::timeout(SHORT, fetcher.receive(&long, &mut ignore));
        assert!(begun.await.is_err(), "it reads");
        let other = request(&place, &server);
        assert_eq!(fetcher.receive(&other, &mut ignore).await.unwrap().size, 4);
    });
}

#[test]
fn a_body_that_ends_with_its_connection_is_whole_where_nothing_says_otherwise() {
    let place = Place::new();
    let server = Server::start(|_| Answer::with("200 OK", "", b"some").cut(4));
    let fetched = fetch(&request(&place, &server)).unwrap();
    assert_eq!(fetched.size, 4);
    let known = Request {
        size: Size::Exactly(5),
        ..request(&place, &server)
    };
    assert!(matches!(
        fetch(&known),
        Err(FetchError::Transfer {
            trouble: Trouble::Lost,
            ..
        })
    ));
}

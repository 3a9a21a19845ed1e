//! Files that are received whole and placed afterwards.

use std::fs;

use system_image_fetch::{
    Algorithm, Digest, FetchError, How, Place as At, Request, Size, Trouble, discard,
};
use system_image_testkit::http::{Answer, Server};

use crate::support::*;

fn named(server: &Server, place: &Place) -> Request {
    Request {
        url: server.url("/file"),
        destination: place.path("file"),
        size: Size::AtMost(1 << 30),
        digest: None,
        how: How {
            suffix: ".tmp",
            ..How::default()
        },
    }
}

const HEADERS: &str = "ETag: \"1\"\r\nContent-Type: application/zip\r\n\
    Content-Disposition: attachment; filename=\"../a b.zip\"\r\n";

#[test]
fn a_file_stays_under_its_temporary_name_until_it_is_placed() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let copy = body.clone();
    let server = Server::start(move |_| Answer::whole(&copy, HEADERS));
    let request = named(&server, &place);
    let mut received = receive(&request).unwrap();
    assert_eq!(received.part(), place.path("file.tmp"));
    assert_eq!(place.names(), ["file.tmp", "file.tmp.info"]);
    assert_eq!(received.content_type.as_deref(), Some("application/zip"));
    assert_eq!(received.name.as_deref(), Some("a b.zip"));
    assert_eq!((received.size, received.transferred), (100_000, 100_000));
    assert_eq!(received.digest, None, "nobody asked for one");

    fs::write(place.path("taken"), b"precious").unwrap();
    let refused = run(received.place(&place.path("taken"), At::New)).unwrap_err();
    assert!(
        matches!(&refused, FetchError::Exists { path } if *path == place.path("taken")),
        "{refused:?}"
    );
    assert_eq!(fs::read(place.path("taken")).unwrap(), b"precious");
    let fetched = run(received.place(&place.path("a b.zip"), At::New)).unwrap();
    assert_eq!(fetched.path, place.path("a b.zip"));
    assert_eq!(fs::read(&fetched.path).unwrap(), body);
    assert_eq!(place.names(), ["a b.zip", "taken"]);
}

#[test]
fn a_file_that_is_not_placed_is_found_whole_the_next_time() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let copy = body.clone();
    let server = Server::start(move |_| Answer::whole(&copy, HEADERS));
    let request = named(&server, &place);
    drop(receive(&request).unwrap());
    let mut received = receive(&request).unwrap();
    assert_eq!((received.size, received.transferred), (100_000, 0));
    assert_eq!(received.name.as_deref(), Some("a b.zip"));
    assert_eq!(received.content_type.as_deref(), Some("application/zip"));
    assert_eq!(server.asked().len(), 1);
    fs::write(&request.destination, b"old").unwrap();
    run(received.place(&request.destination, At::Replace)).unwrap();
    assert_eq!(fs::read(&request.destination).unwrap(), body);
    assert_eq!(place.names(), ["file"]);
}

#[test]
fn what_is_discarded_is_gone() {
    let place = Place::new();
    let server = Server::start(|_| Answer::whole(b"some", HEADERS));
    let request = named(&server, &place);
    drop(receive(&request).unwrap());
    for _ in 0..2 {
        discard(&request.destination, ".tmp").unwrap();
        assert!(place.names().is_empty());
    }
}

#[test]
fn an_answer_without_content_is_an_empty_file_where_that_is_wanted() {
    for status in ["204 No Content", "304 Not Modified"] {
        let place = Place::new();
        let server = Server::start(move |_| Answer::with(status, "", b""));
        let mut request = named(&server, &place);
        assert!(receive(&request).is_err(), "{status}");
        request.how.empty_answers = true;
        // What is left of another time does not belong to it.
        fs::write(place.path("file.tmp"), b"left").unwrap();
        let info = format!("{}\netag \"1\"\n", request.url);
        fs::write(place.path("file.tmp.info"), info).unwrap();
        let mut received = receive(&request).unwrap();
        assert_eq!(received.size, 0);
        run(received.place(&request.destination, At::New)).unwrap();
        assert_eq!(fs::read(place.path("file")).unwrap(), b"");
        request.destination = place.path("other");
        request.digest = Some(digest(b"x"));
        let wrong = receive(&request).unwrap_err();
        assert!(matches!(wrong, FetchError::Checksum { .. }), "{wrong:?}");
    }
}

#[test]
fn a_digest_of_any_kind_and_case_is_checked() {
    let place = Place::new();
    let server = Server::start(|_| Answer::whole(b"abc", ""));
    let mut request = named(&server, &place);
    for (algorithm, digits) in [
        (Algorithm::Md5, "900150983CD24FB0D6963F7D28E17F72"),
        (Algorithm::Sha1, "A9993E364706816ABA3E25717850C26C9CD0D89D"),
    ] {
        let want = Digest::parse(algorithm, digits).unwrap();
        request.digest = Some(want);
        assert_eq!(receive(&request).unwrap().digest, request.digest);
        discard(&request.destination, ".tmp").unwrap();
    }
    for algorithm in Algorithm::ALL {
        request.digest = None;
        request.how.compute = Some(algorithm);
        let computed = receive(&request).unwrap().digest.unwrap();
        assert_eq!(computed.algorithm(), algorithm);
        discard(&request.destination, ".tmp").unwrap();

        let other = computed.to_string().replace('0', "1");
        let other = Digest::parse(algorithm, &other).unwrap();
        request.digest = Some(other.clone());
        match receive(&request).unwrap_err() {
            FetchError::Checksum { want, got, .. } => assert_eq!((want, got), (other, computed)),
            error => panic!("{error:?}"),
        }
        assert!(place.names().is_empty(), "{:?}", place.names());
    }
}

#[test]
fn given_headers_are_sent_except_those_that_are_ours() {
    let place = Place::new();
    let server = Server::start(|_| Answer::whole(b"some", ""));
    let mut request = named(&server, &place);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    request.how.headers = vec![
        header("user-agent", "Other/2"),
        header("Cookie", "a=b"),
        header("rAnGe", "bytes=1-"),
        header("ACCEPT-ENCODING", "gzip"),
    ];
    assert_eq!(receive(&request).unwrap().size, 4);
    let asked = &server.asked()[0];
    for (name, want) in [
        ("User-Agent", Some("Other/2")),
        ("Cookie", Some("a=b")),
        ("Range", None),
        ("Accept-Encoding", Some("identity")),
    ] {
        assert_eq!(asked.header(name), want, "{name}");
    }
    request.how.headers = vec![header("X", "a\nb")];
    let refused = receive(&request).unwrap_err();
    assert!(matches!(refused, FetchError::Header { .. }), "{refused:?}");
}

#[test]
fn another_attempt_is_told_with_its_reason() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let server = Server::start(move |asked| match asked.number {
        0 => Answer::status("500 Internal Server Error"),
        1 => Answer::file(asked, &body, "\"1\"").cut(5000),
        _ => Answer::file(asked, &body, "\"1\""),
    });
    let (received, told) = retries(&named(&server, &place));
    assert_eq!(received.unwrap().size, 100_000);
    let url = server.url("/file");
    assert_eq!(
        told,
        [
            format!("The requested URL returned error: 500: {url}"),
            format!("{}: {url}", Trouble::Lost)
        ]
    );
}

#[test]
fn informational_answers_are_passed_over() {
    let place = Place::new();
    let server = Server::start(|_| {
        Answer::raw(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n\
            HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsome",
        )
    });
    assert_eq!(receive(&named(&server, &place)).unwrap().size, 4);
}

//! Further addresses of one file.

use std::fs;

use system_image_fetch::{FetchError, Request, Size};
use system_image_testkit::http::{Answer, Server};

use crate::support::*;

fn with_mirror(request: Request, mirror: &Server) -> Request {
    let mut request = request;
    request.how.mirrors = vec![mirror.url("/mirror")];
    request
}

#[test]
fn a_mirror_has_the_file_when_the_first_has_not() {
    let body = content(1000, 1);
    for answer in [
        Answer::status("404 Not Found"),
        Answer::status("500 Internal Server Error"),
        Answer::raw(b"garbage\r\n\r\n"),
        Answer::whole(&content(1000, 2), "ETag: \"1\"\r\n"),
        Answer::whole(&content(999, 1), "ETag: \"1\"\r\n"),
        Answer::redirect("/file"),
    ] {
        let place = Place::new();
        let (first, copy) = (Server::start(move |_| answer.clone()), body.clone());
        let mirror = Server::start(move |asked| Answer::file(asked, &copy, "\"2\""));
        let request = with_mirror(place.request(&first, &body), &mirror);
        let fetched = fetch(&request).unwrap();
        assert_eq!(fs::read(fetched.path).unwrap(), body);
        assert_eq!(place.names(), ["file"]);
    }
}

#[test]
fn a_mirror_goes_on_with_what_is_there_only_if_a_digest_is_known() {
    let body = content(100_000, 1);
    for (known, resumed) in [(true, Some(60_000)), (false, None)] {
        let place = Place::new();
        let (copy, other) = (body.clone(), body.clone());
        let first = Server::start(move |asked| match asked.number {
            0 => Answer::file(asked, &copy, "\"1\"").cut(60_000),
            _ => Answer::status("404 Not Found"),
        });
        let mirror = Server::start(move |asked| match asked.number {
            0 => Answer::file(asked, &other, "\"2\"").cut(20_000),
            _ => Answer::file(asked, &other, "\"2\""),
        });
        let request = Request {
            size: Size::AtMost(1 << 20),
            digest: known.then(|| digest(&body)),
            ..with_mirror(place.request(&first, &body), &mirror)
        };
        // The mirror does not know the other's tag, and need not.
        let fetched = fetch(&request).unwrap();
        assert_eq!(fs::read(fetched.path).unwrap(), body);
        assert_eq!(mirror.asked()[0].range(), resumed);
    }
}

#[test]
fn another_process_goes_on_with_the_mirror_that_has_begun() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let first = Server::start(|_| Answer::status("404 Not Found"));
    let copy = body.clone();
    let mirror = Server::start(move |asked| match asked.number {
        0 => Answer::file(asked, &copy, "\"2\"").cut(60_000),
        1 | 2 => Answer::status("503 Busy"),
        _ => Answer::file(asked, &copy, "\"2\""),
    });
    let request = Request {
        size: Size::AtMost(1 << 20),
        digest: None,
        ..with_mirror(place.request(&first, &body), &mirror)
    };
    assert!(fetch(&request).is_err());
    let fetched = fetch(&request).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), body);
    assert_eq!((first.asked().len(), fetched.transferred), (1, 40_000));
}

#[test]
fn when_no_mirror_has_it_the_last_one_says_why() {
    let place = Place::new();
    let first = Server::start(|_| Answer::status("403 Forbidden"));
    let mirror = Server::start(|_| Answer::status("404 Not Found"));
    let request = with_mirror(place.request(&first, b"x"), &mirror);
    let error = fetch(&request).unwrap_err();
    assert!(matches!(error, FetchError::Absent { .. }), "{error:?}");
}

#[test]
fn what_is_the_disks_fault_is_not_asked_of_a_mirror() {
    let place = Place::new();
    let first = Server::start(|_| Answer::whole(b"x", ""));
    let mirror = Server::start(|_| Answer::whole(b"x", ""));
    let request = Request {
        destination: place.path("none/file"),
        ..with_mirror(place.request(&first, b"x"), &mirror)
    };
    assert!(matches!(fetch(&request), Err(FetchError::Disk { .. })));
    assert!(first.asked().is_empty() && mirror.asked().is_empty());
}

//! Answers that servers compress.

use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use system_image_fetch::{FetchError, Request, Size, Trouble};
use system_image_testkit::http::{Answer, Server};

use crate::support::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn coded(coding: &str, bytes: &[u8]) -> Answer {
    let headers = format!("ETag: \"1\"\r\nContent-Encoding: {coding}\r\n");
    Answer::whole(bytes, &headers)
}

fn request(place: &Place, server: &Server, body: &[u8]) -> Request {
    let mut request = place.request(server, body);
    request.how.decompress = true;
    request
}

#[test]
fn what_is_compressed_is_stored_as_it_was_before() {
    let body = content(1000, 1).repeat(1000);
    for (coding, bytes) in [
        ("gzip", gzip(&body)),
        ("x-gzip", gzip(&body)),
        ("DEFLATE", deflate(&body)),
        ("identity", body.clone()),
    ] {
        let place = Place::new();
        let server = Server::start(move |_| coded(coding, &bytes));
        let fetched = fetch(&request(&place, &server, &body)).unwrap();
        assert!(fs::read(&fetched.path).unwrap() == body, "{coding}");
        assert_eq!(fetched.size, 1_000_000);
        let asked = &server.asked()[0];
        assert_eq!(asked.header("Accept-Encoding"), Some("gzip, deflate"));
    }
}

#[test]
fn little_that_becomes_too_much_is_stopped() {
    let bomb = gzip(&vec![0; 100 << 20]);
    let place = Place::new();
    let server = Server::start(move |_| coded("gzip", &bomb));
    let request = Request {
        size: Size::AtMost(1 << 20),
        digest: None,
        ..request(&place, &server, b"")
    };
    let error = fetch(&request).unwrap_err();
    assert!(
        matches!(error, FetchError::TooLong { max, .. } if max == 1 << 20),
        "{error:?}"
    );
    let written = fs::metadata(place.path("file.part")).unwrap().len();
    assert!(written <= 1 << 20, "{written}");
}

#[test]
fn much_that_becomes_nothing_is_stopped() {
    let place = Place::new();
    // An empty block that is not the last, again and again.
    let blocks = [0x00, 0x00, 0x00, 0xff, 0xff].repeat(1 << 20);
    let body = [&[0x78, 0x9c][..], &blocks].concat();
    let server = Server::start(move |_| coded("deflate", &body));
    let request = Request {
        size: Size::AtMost(1000),
        digest: None,
        ..request(&place, &server, b"")
    };
    let error = fetch(&request).unwrap_err();
    assert!(matches!(error, FetchError::TooLong { .. }), "{error:?}");
}

#[test]
fn what_is_cut_or_damaged_is_begun_anew_and_never_finished() {
    let body = content(100_000, 1);
    let good = gzip(&body);
    let mut damaged = good.clone();
    damaged[50_000] ^= 1;
    let short = good[..good.len() - 1].to_vec();
    for (first, then, want) in [
        (coded("gzip", &good).cut(50_000), coded("gzip", &good), None),
        (coded("gzip", &damaged), coded("gzip", &good), None),
        (
            coded("gzip", &short),
            coded("gzip", &short),
            Some(Trouble::Garbled),
        ),
        (
            coded("gzip", &damaged),
            coded("gzip", &damaged),
            Some(Trouble::Garbled),
        ),
        (
            coded("br", &good),
            coded("br", &good),
            Some(Trouble::Garbled),
        ),
    ] {
        let place = Place::new();
        let server = Server::start(move |asked| match asked.number {
            0 => first.clone(),
            _ => then.clone(),
        });
        let request = Request {
            digest: None,
            ..request(&place, &server, &body)
        };
        let result = fetch(&request);
        assert!(server.asked().iter().all(|asked| asked.range().is_none()));
        match want {
            None => assert!(fs::read(result.unwrap().path).unwrap() == body),
            Some(want) => {
                assert_eq!(trouble(result), want);
                assert!(!request.destination.exists());
            }
        }
    }
}

#[test]
fn a_size_is_that_of_what_is_stored() {
    let (place, body) = (Place::new(), content(1000, 1));
    let bytes = gzip(&body);
    let server = Server::start(move |_| coded("gzip", &bytes));
    let request = Request {
        size: Size::Exactly(1001),
        digest: None,
        ..request(&place, &server, &body)
    };
    let error = fetch(&request).unwrap_err();
    assert!(
        matches!(
            error,
            FetchError::Size {
                want: 1001,
                got: 1000,
                ..
            }
        ),
        "{error:?}"
    );
}

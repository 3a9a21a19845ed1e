//! Redirects over real servers.

use std::fs;

use system_image_fetch::{FetchError, Fetcher, Request, Settings};
use system_image_testkit::http::{Answer, Server};

use crate::support::*;

#[test]
fn every_kind_of_redirect_leads_to_the_file() {
    for status in ["301 x", "302 x", "303 x", "307 x", "308 x"] {
        let (place, body) = (Place::new(), content(1000, 1));
        let copy = body.clone();
        let server = Server::start(move |asked| match asked.path.as_str() {
            "/a/file" => Answer::with(status, "Location: ../b?c\r\nContent-Length: 0\r\n", b""),
            "/b?c" => Answer::whole(&copy, ""),
            _ => Answer::status("404 Not Found"),
        });
        let request = Request {
            url: server.url("/a/file"),
            ..place.request(&server, &body)
        };
        let fetched = fetch(&request).unwrap();
        assert_eq!(fs::read(fetched.path).unwrap(), body, "{status}");
    }
}

#[test]
fn the_number_of_redirects_is_limited() {
    let place = Place::new();
    let server = Server::start(|asked| Answer::redirect(&format!("/{}", asked.number)));
    let request = place.request(&server, b"x");
    for max in [0, 5] {
        let before = server.asked().len();
        let mut settings = Settings::new("Tester/1");
        settings.max_redirects = max;
        let fetcher = Fetcher::new(settings).unwrap();
        let error = run(fetcher.fetch(&request, &mut |_| {})).unwrap_err();
        assert!(
            matches!(error, FetchError::Redirects { max: told, .. } if told == max),
            "{error:?}"
        );
        assert_eq!(server.asked().len() - before, 1 + max);
    }
}

#[test]
fn a_redirect_to_where_it_comes_from_is_a_loop_at_once() {
    let place = Place::new();
    let server = Server::start(|asked| Answer::redirect(&asked.path));
    let error = fetch(&place.request(&server, b"x")).unwrap_err();
    assert!(matches!(error, FetchError::Loop { .. }), "{error:?}");
    assert_eq!(server.asked().len(), 1);
    assert!(!place.path("file").exists());
}

#[test]
fn a_redirect_to_another_kind_of_address_is_refused() {
    let place = Place::new();
    let server = Server::start(|_| Answer::redirect("file:///etc/passwd"));
    let error = fetch(&place.request(&server, b"x")).unwrap_err();
    assert!(
        matches!(&error, FetchError::Scheme { scheme, .. } if scheme == "file"),
        "{error:?}"
    );
}

#[test]
fn secrets_do_not_follow_to_another_server() {
    let (place, body) = (Place::new(), content(1000, 1));
    let copy = body.clone();
    let other = Server::start(move |_| Answer::whole(&copy, ""));
    let there = other.url("/file");
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/file" => Answer::redirect("/here"),
        _ => Answer::redirect(&there),
    });
    let mut request = place.request(&server, &body);
    for name in ["Authorization", "cookie", "X-Mine"] {
        let header = (name.to_owned(), "secret".to_owned());
        request.how.headers.push(header);
    }
    fetch(&request).unwrap();
    for asked in server.asked() {
        assert_eq!(asked.header("Authorization"), Some("secret"));
        assert_eq!(asked.header("Cookie"), Some("secret"));
    }
    let asked = &other.asked()[0];
    assert_eq!(asked.header("Authorization"), None);
    assert_eq!(asked.header("Cookie"), None);
    assert_eq!(asked.header("X-Mine"), Some("secret"));
}

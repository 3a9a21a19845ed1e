//! Downloads through a proxy, and what its errors are called.

use std::net::TcpListener;

use system_image_fetch::{FetchError, Fetched, Fetcher, Request, Settings, Trouble};
use system_image_testkit::http::{Answer, Server};

use crate::support::*;

fn through(proxy: &str, request: &Request) -> Result<Fetched, FetchError> {
    let mut settings = Settings::new("Tester/1");
    settings.proxy = Some(proxy.to_owned());
    settings.patience.attempts = 1;
    run(Fetcher::new(settings).unwrap().fetch(request, &mut |_| {}))
}

#[test]
fn a_proxy_is_asked_for_the_whole_address() {
    let place = Place::new();
    let proxy = Server::start(|_| Answer::whole(b"some", ""));
    let request = Request {
        url: "http://no-such-host.invalid/file".to_owned(),
        ..place.request(&proxy, b"some")
    };
    through(&proxy.url(""), &request).unwrap();
    assert_eq!(proxy.asked()[0].path, request.url);
}

#[test]
fn what_is_wrong_with_a_proxy_is_named() {
    let place = Place::new();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let proxy = Server::start(|asked| match asked.path.as_str() {
        "who:443" => Answer::status("407 Proxy Authentication Required"),
        "fails:443" => Answer::status("502 Bad Gateway"),
        "garbled:443" => Answer::raw(b"\r\n\r\nwhat\r\n\r\n"),
        _ => Answer::raw(b""),
    });
    let good = proxy.url("");
    for (proxy, url, want) in [
        (
            format!("http://{nobody}"),
            "http://h/",
            Trouble::ProxyRefused,
        ),
        (
            format!("http://{nobody}"),
            "https://h/",
            Trouble::ProxyRefused,
        ),
        (
            "http://no-such-host.invalid:1".to_owned(),
            "http://h/",
            Trouble::ProxyNotFound,
        ),
        (good.clone(), "http://h/", Trouble::ProxyLost),
        (good.clone(), "https://h/", Trouble::ProxyLost),
        (good.clone(), "https://who/", Trouble::ProxyAuthentication),
        (good.clone(), "https://fails/", Trouble::ProxyFailed),
        (good.clone(), "https://garbled/", Trouble::ProxyFailed),
    ] {
        let request = Request {
            url: url.to_owned(),
            destination: place.path("file"),
            ..place.request(&Server::start(|_| Answer::raw(b"")), b"x")
        };
        assert_eq!(trouble(through(&proxy, &request)), want, "{proxy} {url}");
    }
    let request = Request {
        url: "http://h/".to_owned(),
        ..place.request(&Server::start(|_| Answer::raw(b"")), b"x")
    };
    let who = Server::start(|_| Answer::status("407 Proxy Authentication Required"));
    let error = through(&who.url(""), &request).unwrap_err();
    assert!(
        matches!(error, FetchError::Status { status: 407, .. }),
        "{error:?}"
    );
    let nonsense = Settings {
        proxy: Some("http://[".to_owned()),
        ..Settings::new("Tester/1")
    };
    assert!(matches!(Fetcher::new(nonsense), Err(FetchError::Setup(_))));
}

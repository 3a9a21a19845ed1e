//! Files on their way to their place, from servers that are right, wrong, slow, full of themselves or
//! gone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::TcpListener;
use std::sync::mpsc;

use proptest::prelude::*;
use system_image_fetch::{
    FetchError, Fetched, Fetcher, Progress, Request, Settings, Size, Trouble,
};
use system_image_testkit::SmallDisk;
use system_image_testkit::http::{Answer, Asked, Server};

use crate::support::*;

/// Fetches with a server that answers the n-th request with the n-th answer, the last one for ever.
fn fetch_from(
    place: &Place,
    body: &[u8],
    answers: Vec<Answer>,
) -> (Result<Fetched, FetchError>, Server) {
    let server = Server::start(move |asked| answers[asked.number.min(answers.len() - 1)].clone());
    let got = fetch(&place.request(&server, body));
    (got, server)
}

#[test]
fn a_file_comes_to_its_place_and_nothing_stays_beside_it() {
    let (place, body) = (Place::new(), content(1_000_000, 1));
    let copy = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &copy, "\"1\""));
    let mut seen = Vec::new();
    let request = place.request(&server, &body);
    let fetched = run(fetcher().fetch(&request, &mut |progress| seen.push(progress))).unwrap();

    assert_eq!(fs::read(&request.destination).unwrap(), body);
    assert_eq!(
        (fetched.size, fetched.digest),
        (1_000_000, Some(digest(&body)))
    );
    assert_eq!(fetched.transferred, 1_000_000);
    assert_eq!(place.names(), ["file"]);
    assert!(seen.is_sorted_by_key(|progress| progress.received));
    assert_eq!(
        seen.last(),
        Some(&Progress {
            received: 1_000_000,
            total: Some(1_000_000)
        })
    );
    let asked = &server.asked()[0];
    assert_eq!(asked.header("User-Agent"), Some("Tester/1"));
    assert_eq!(asked.header("Accept-Encoding"), Some("identity"));
    assert_eq!(asked.header("Range"), None);
}

#[test]
fn a_connection_that_is_cut_is_resumed_where_it_ended() {
    let (place, body) = (Place::new(), content(1_000_000, 1));
    let copy = body.clone();
    let server = Server::start(move |asked| match asked.number {
        0 => Answer::file(asked, &copy, "\"1\"").cut(400_000),
        1 => Answer::file(asked, &copy, "\"1\"").cut(300_000),
        _ => Answer::file(asked, &copy, "\"1\""),
    });
    let fetched = fetch(&place.request(&server, &body)).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), body);
    assert_eq!(fetched.transferred, 1_000_000, "no byte twice");
    let asked = server.asked();
    let ranges: Vec<_> = asked.iter().map(Asked::range).collect();
    assert_eq!(ranges, [None, Some(400_000), Some(700_000)]);
    assert_eq!(asked[1].header("If-Range"), Some("\"1\""));
    assert_eq!(place.names(), ["file"]);
}

/// Begins a download and drops it once the server has nothing more to send; as a killed process,
/// it has no chance to tidy up.
fn abandon(request: &Request, after: u64) {
    run(async {
        let fetcher = fetcher();
        let (sender, receiver) = mpsc::channel();
        let mut report = move |progress: Progress| {
            if progress.received >= after {
                let _ = sender.send(());
            }
        };
        let mut download = std::pin::pin!(fetcher.fetch(request, &mut report));
        std::future::poll_fn(|context| {
            assert!(download.as_mut().poll(context).is_pending());
            match receiver.try_recv() {
                Ok(()) => std::task::Poll::Ready(()),
                Err(_) => std::task::Poll::Pending,
            }
        })
        .await;
    });
}

#[test]
fn a_download_that_was_killed_is_resumed_by_another_process() {
    let (place, body) = (Place::new(), content(3_000_000, 1));
    let copy = body.clone();
    let server = Server::start(move |asked| match asked.number {
        0 => Answer::file(asked, &copy, "\"1\"").hang(2_000_000),
        _ => Answer::file(asked, &copy, "\"1\""),
    });
    let request = place.request(&server, &body);
    abandon(&request, 2_000_000);
    assert_eq!(place.names(), ["file.part", "file.part.info"]);

    let fetched = fetch(&request).unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), body);
    let resumed = server.asked()[1].range().unwrap();
    assert!((262_144..=2_000_000).contains(&resumed), "{resumed}");
    assert_eq!(fetched.transferred, 3_000_000 - resumed as u64);
    assert_eq!(place.names(), ["file"]);
}

#[test]
fn what_is_left_of_another_version_is_not_joined_to_this_one() {
    type Serve = fn(&Asked, &[u8]) -> Answer;
    let cases: [(&str, Serve); 7] = [
        ("good server", |asked, new| {
            Answer::file(asked, new, "\"2\"")
        }),
        ("no ranges", |_, new| Answer::whole(new, "")),
        ("no If-Range, another tag", |asked, new| {
            match asked.range() {
                Some(first) => Answer::part(
                    &format!("{first}-99999/100000"),
                    &new[first..],
                    "ETag: \"2\"\r\n",
                ),
                None => Answer::whole(new, ""),
            }
        }),
        ("no If-Range, no tag", |asked, new| match asked.range() {
            Some(first) => Answer::part(&format!("{first}-99999/100000"), &new[first..], ""),
            None => Answer::whole(new, ""),
        }),
        ("another beginning", |asked, new| match asked.range() {
            Some(_) => Answer::part("0-99999/100000", new, "ETag: \"1\"\r\n"),
            None => Answer::whole(new, ""),
        }),
        ("another end", |asked, new| match asked.range() {
            Some(first) => Answer::part(
                &format!("{first}-99998/100000"),
                &new[first..99_999],
                "ETag: \"1\"\r\n",
            ),
            None => Answer::whole(new, ""),
        }),
        ("not satisfiable", |asked, new| match asked.range() {
            Some(_) => Answer::status("416 Range Not Satisfiable"),
            None => Answer::whole(new, ""),
        }),
    ];
    for (name, serve) in cases {
        let place = Place::new();
        let (old, new) = (content(100_000, 1), content(100_000, 2));
        let copy = new.clone();
        let server = Server::start(move |asked| serve(asked, &copy));
        let request = place.request(&server, &new);
        fs::write(place.path("file.part"), &old[..60_000]).unwrap();
        fs::write(
            place.path("file.part.info"),
            format!("{}\netag \"1\"\n", request.url),
        )
        .unwrap();

        let fetched = fetch(&request).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(server.asked()[0].range(), Some(60_000), "{name}");
        assert_eq!(fs::read(fetched.path).unwrap(), new, "{name}");
        assert_eq!(place.names(), ["file"], "{name}");
    }
}

#[test]
fn a_part_that_a_power_cut_damaged_is_fetched_anew() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let copy = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &copy, "\"1\""));
    let request = place.request(&server, &body);
    for len in [60_000, 100_000, 100_001] {
        fs::write(place.path("file.part"), vec![0; len]).unwrap();
        fs::write(
            place.path("file.part.info"),
            format!("{}\netag \"1\"\n", request.url),
        )
        .unwrap();
        assert_eq!(
            fs::read(fetch(&request).unwrap().path).unwrap(),
            body,
            "{len}"
        );
        assert_eq!(place.names(), ["file"]);
        fs::remove_file(place.path("file")).unwrap();
    }
}

#[test]
fn a_part_without_any_side_file_is_used_where_a_digest_decides_in_the_end() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let copy = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &copy, "\"1\""));
    let mut request = place.request(&server, &body);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let known = request.digest.clone();
    for (digest, info, resumed) in [
        (known.clone(), "", Some(60_000)),
        (known, "garbage\u{0}\n", Some(60_000)),
        (None, "", None),
        (None, "garbage\u{0}\n", None),
        (None, &format!("{}\nmodified Mon\n", request.url), None),
        (None, "http://elsewhere/file\netag \"1\"\n", None),
        (
            None,
            &format!("{}\netag \"1\"\nboot {boot}", request.url),
            Some(60_000),
        ),
        // After another boot, only what was synced is good.
        (
            None,
            &format!("{}\netag \"1\"\nboot x\nsynced 40000\n", request.url),
            Some(40_000),
        ),
        (None, &format!("{}\netag \"1\"\n", request.url), None),
    ] {
        request.digest.clone_from(&digest);
        fs::write(place.path("file.part"), &body[..60_000]).unwrap();
        fs::write(place.path("file.part.info"), info).unwrap();
        assert_eq!(fs::read(fetch(&request).unwrap().path).unwrap(), body);
        assert_eq!(
            server.asked().last().unwrap().range(),
            resumed,
            "{digest:?} {info:?}"
        );
        fs::remove_file(place.path("file")).unwrap();
    }
}

#[test]
fn a_part_that_is_whole_already_needs_no_server() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let server = Server::start(|_| Answer::status("500 Internal Server Error"));
    let request = place.request(&server, &body);
    fs::write(place.path("file.part"), &body).unwrap();
    assert_eq!(fetch(&request).unwrap().transferred, 0);
    assert_eq!(fs::read(place.path("file")).unwrap(), body);
    assert!(server.asked().is_empty());
}

#[test]
fn a_file_that_is_there_is_not_fetched_again_and_a_wrong_one_is_replaced() {
    let (place, body) = (Place::new(), content(100_000, 1));
    let (result, server) = fetch_from(&place, &body, vec![Answer::whole(&body, "")]);
    assert_eq!(result.unwrap().transferred, 100_000);
    let request = place.request(&server, &body);
    let mut progress = Progress::default();
    let again = run(fetcher().fetch(&request, &mut |p| progress = p)).unwrap();
    assert_eq!((again.transferred, server.asked().len()), (0, 1));
    assert_eq!(
        progress,
        Progress {
            received: 100_000,
            total: Some(100_000)
        }
    );

    fs::write(&request.destination, content(100_000, 2)).unwrap();
    assert_eq!(fetch(&request).unwrap().transferred, 100_000);
    assert_eq!(fs::read(&request.destination).unwrap(), body);
}

#[test]
fn wrong_content_never_reaches_its_place() {
    let (place, body) = (Place::new(), content(1000, 1));
    fs::write(place.path("file"), b"the last good one").unwrap();
    let (result, server) = fetch_from(
        &place,
        &body,
        vec![Answer::whole(&content(1000, 2), "ETag: \"1\"\r\n")],
    );
    let error = result.unwrap_err();
    assert!(matches!(error, FetchError::Checksum { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("HASH ERROR: {}", place.path("file"))
    );
    assert_eq!(fs::read(place.path("file")).unwrap(), b"the last good one");
    assert_eq!(place.names(), ["file"], "the bad content is gone");
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn each_status_has_its_meaning_and_its_number_of_attempts() {
    let (body, busy) = (content(1000, 1), "Content-Length: 0\r\nRetry-After: 0\r\n");
    let good = Answer::whole(&body, "");
    for (answers, want, attempts) in [
        (vec![Answer::status("404 Not Found")], "Absent 404", 1),
        (vec![Answer::status("410 Gone")], "Absent 410", 1),
        (vec![Answer::status("403 Forbidden")], "Status 403", 1),
        (vec![Answer::status("304 Not Modified")], "Status 304", 1),
        (
            vec![Answer::status("416 Range Not Satisfiable")],
            "Status 416",
            1,
        ),
        (
            vec![Answer::status("500 Internal Server Error")],
            "Status 500",
            3,
        ),
        (vec![Answer::status("408 Request Timeout")], "Status 408", 3),
        (
            vec![Answer::with("503 Service Unavailable", busy, b"")],
            "Status 503",
            3,
        ),
        (
            vec![
                Answer::with("429 Too Many Requests", busy, b""),
                good.clone(),
            ],
            "good",
            2,
        ),
        (
            vec![Answer::status("502 Bad Gateway"), good.clone()],
            "good",
            2,
        ),
        (vec![Answer::with("204 No Content", "", b"")], "Garbled", 3),
        (vec![Answer::part("0-999/1000", &body, "")], "Garbled", 3),
    ] {
        let place = Place::new();
        let (result, server) = fetch_from(&place, &body, answers);
        let got = match &result {
            Ok(_) => "good".to_owned(),
            Err(FetchError::Absent { status, .. }) => format!("Absent {status}"),
            Err(FetchError::Status { status, .. }) => format!("Status {status}"),
            Err(FetchError::Transfer { trouble, .. }) => format!("{trouble:?}"),
            Err(other) => format!("{other:?}"),
        };
        assert_eq!((got.as_str(), server.asked().len()), (want, attempts));
        assert_eq!(place.path("file").exists(), want == "good");
    }
}

#[test]
fn errors_read_as_the_originals() {
    let place = Place::new();
    let (result, server) = fetch_from(&place, b"x", vec![Answer::status("404 Not Found")]);
    let want = format!(
        "The requested URL returned error: 404: {}",
        server.url("/file")
    );
    assert_eq!(result.unwrap_err().to_string(), want);
}

#[test]
fn what_is_no_http_is_named_so() {
    for bytes in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"\x00\x01\x02\x03\r\n\r\n",
        b"HTTP/9.9 what\r\n\r\n",
    ] {
        let place = Place::new();
        let (result, server) = fetch_from(&place, b"x", vec![Answer::raw(bytes)]);
        assert_eq!(trouble(result), Trouble::Garbled, "{bytes:?}");
        assert_eq!(server.asked().len(), 3);
    }
}

#[test]
fn a_server_that_hangs_up_or_is_not_there_ends_in_an_error() {
    let place = Place::new();
    let (result, _) = fetch_from(&place, b"x", vec![Answer::raw(b"")]);
    assert_eq!(trouble(result), Trouble::Lost);

    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (_, server) = fetch_from(&place, b"x", vec![Answer::raw(b"")]);
    for (url, want) in [
        (format!("http://{nobody}/"), Trouble::Refused),
        (
            "http://no-such-host.invalid/".to_owned(),
            Trouble::HostNotFound,
        ),
        (
            server.url("/").replace("http:", "https:"),
            Trouble::Handshake,
        ),
    ] {
        let request = Request {
            url,
            ..place.request(&server, b"x")
        };
        assert_eq!(trouble(fetch(&request)), want, "{}", request.url);
    }
}

#[test]
fn a_server_that_never_answers_or_stops_or_trickles_ends_in_an_error() {
    let body = content(1000, 1);
    for answer in [
        Answer::raw(b"").hang(0),
        Answer::whole(&body, "").hang(0),
        Answer::whole(&body, "").hang(500),
    ] {
        let place = Place::new();
        let mut settings = Settings::new("Tester/1");
        settings.connect_timeout = SHORT;
        settings.stall_timeout = SHORT;
        settings.patience.attempts = 1;
        let server = Server::start(move |_| answer.clone());
        let fetcher = Fetcher::new(settings).unwrap();
        let result = run(fetcher.fetch(&place.request(&server, &body), &mut |_| {}));
        assert_eq!(trouble(result), Trouble::Stalled);
    }
}

#[test]
fn a_file_of_another_size_is_refused_as_soon_as_that_shows() {
    let body = content(1000, 1);
    for (answers, want) in [
        (vec![Answer::whole(&content(1001, 1), "")], "Size"),
        (vec![Answer::whole(&content(999, 1), "")], "Size"),
        (vec![Answer::chunked(&content(1001, 1))], "TooLong"),
        (vec![Answer::chunked(&content(100_000_000, 1))], "TooLong"),
        (vec![Answer::chunked(&content(999, 1))], "Transfer { url"),
        (
            vec![Answer::with("200 OK", "Connection: close\r\n", &body[..999]).cut(999)],
            "Transfer { url",
        ),
        (
            vec![Answer::with("200 OK", "Content-Length: x\r\n", &body)],
            "Transfer { url",
        ),
        (
            vec![Answer::with(
                "200 OK",
                "Content-Length: 99999999999999999999\r\n",
                &body,
            )],
            "Transfer { url",
        ),
        (vec![Answer::chunked(&body)], ""),
    ] {
        let place = Place::new();
        let (result, _server) = fetch_from(&place, &body, answers);
        let got = result.map_or_else(|error| format!("{error:?}"), |_| String::new());
        assert!(got.starts_with(want), "{want}: {got}");
        assert_eq!(place.path("file").exists(), want.is_empty());
    }
}

#[test]
fn a_file_of_unknown_size_is_bounded() {
    let body = content(1000, 1);
    for (answer, max, good) in [
        (Answer::whole(&body, ""), 1000, true),
        (Answer::whole(&body, ""), 999, false),
        (Answer::chunked(&body), 1000, true),
        (Answer::chunked(&body), 999, false),
        (
            Answer::with("200 OK", "Connection: close\r\n", &body).cut(1000),
            1000,
            true,
        ),
    ] {
        let place = Place::new();
        let server = Server::start(move |_| answer.clone());
        let request = Request {
            size: Size::AtMost(max),
            digest: None,
            ..place.request(&server, &body)
        };
        match fetch(&request) {
            Ok(fetched) => assert!(good && fetched.digest.is_none()),
            Err(FetchError::TooLong { max: limit, .. }) => assert!(!good && limit == max),
            Err(other) => panic!("{other:?}"),
        }
        let small = run(fetcher().fetch_small(&request.url, usize::try_from(max).unwrap()));
        let unnamed = run(fetcher().fetch_unnamed(&request.url, max, &place.path("")));
        for document in [small, unnamed.map(contents)] {
            match document {
                Ok(bytes) => assert!(good && bytes == body),
                Err(FetchError::TooLong { max: limit, .. }) => assert!(!good && limit == max),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_small_file_is_tried_again_and_its_absence_is_definite() {
    let server = Server::start(|asked| match (asked.path.as_str(), asked.number) {
        ("/small", 0) => Answer::whole(b"signature", "").cut(3),
        ("/small", 1) => Answer::status("500 Internal Server Error"),
        ("/small", _) => Answer::whole(b"signature", ""),
        _ => Answer::status("404 Not Found"),
    });
    let fetcher = fetcher();
    assert_eq!(
        run(fetcher.fetch_small(&server.url("/small"), 100)).unwrap(),
        b"signature"
    );
    let absent = run(fetcher.fetch_small(&server.url("/none"), 100)).unwrap_err();
    assert!(
        matches!(absent, FetchError::Absent { status: 404, .. }),
        "{absent:?}"
    );
    assert_eq!(server.asked().len(), 4);
}

fn contents(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn an_unnamed_file_is_begun_anew_in_each_attempt_and_leaves_nothing_behind() {
    let (place, body) = (Place::new(), content(1_000_000, 1));
    let copy = body.clone();
    let server = Server::start(move |asked| match (asked.path.as_str(), asked.number) {
        ("/file", 0) => Answer::whole(&content(1_000_000, 2), "").cut(700_000),
        ("/file", 1) => Answer::chunked(&copy).cut(100_000),
        ("/file", _) => Answer::chunked(&copy),
        ("/cut", _) => Answer::whole(&copy, "").cut(700_000),
        ("/endless", _) => Answer::endless(),
        _ => Answer::status("404 Not Found"),
    });
    let fetch = |path| {
        let url = server.url(path);
        run(fetcher().fetch_unnamed(&url, 1_000_000, &place.path("")))
    };
    assert_eq!(contents(fetch("/file").unwrap()), body);
    for (path, want) in [
        ("/cut", "Transfer"),
        ("/endless", "TooLong"),
        ("/none", "Absent"),
    ] {
        let refused = format!("{:?}", fetch(path).unwrap_err());
        assert!(refused.starts_with(want), "{path}: {refused}");
    }
    assert!(place.names().is_empty(), "{:?}", place.names());
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.header("Range").is_none())
    );
}

#[test]
fn a_directory_that_takes_no_temporary_file_is_named() {
    let place = Place::new();
    let server = Server::start(|_| Answer::whole(&content(2 << 20, 1), ""));
    let fetch = || run(fetcher().fetch_unnamed(&server.url("/"), 4 << 20, &place.path("tmp")));
    let told = |error: FetchError| match &error {
        FetchError::Temporary { directory, source } => {
            assert_eq!(*directory, place.path("tmp"));
            assert!(error.to_string().contains(directory.as_str()), "{error}");
            source.kind()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(told(fetch().unwrap_err()), io::ErrorKind::NotFound);
    assert!(
        server.asked().is_empty(),
        "what cannot be kept is not fetched"
    );

    fs::create_dir(place.path("tmp")).unwrap();
    let Some(_disk) = SmallDisk::mount(place.path("tmp"), "1m") else {
        return;
    };
    assert_eq!(told(fetch().unwrap_err()), io::ErrorKind::StorageFull);
    assert_eq!(server.asked().len(), 1, "once is enough");
}

#[test]
fn what_is_stored_is_what_the_server_has_without_decoding() {
    let (place, body) = (Place::new(), content(1000, 1));
    let (result, _server) = fetch_from(
        &place,
        &body,
        vec![Answer::whole(&body, "Content-Encoding: gzip\r\n")],
    );
    assert_eq!(fs::read(result.unwrap().path).unwrap(), body);
}

#[test]
fn redirects_are_followed_and_circles_are_not() {
    let (place, body) = (Place::new(), content(1000, 1));
    let copy = body.clone();
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/file" => Answer::redirect("/2"),
        "/2" => Answer::redirect("/3"),
        "/3" => Answer::whole(&copy, ""),
        _ => Answer::redirect("/circle"),
    });
    assert!(fetch(&place.request(&server, &body)).is_ok());
    let circle = Request {
        url: server.url("/circle"),
        destination: place.path("x"),
        ..place.request(&server, &body)
    };
    let error = fetch(&circle).unwrap_err();
    assert!(matches!(error, FetchError::Loop { .. }), "{error:?}");
    assert_eq!(server.asked().len(), 3 + 1);
}

#[test]
fn addresses_of_other_kinds_are_refused() {
    let place = Place::new();
    let server = Server::start(|_| Answer::status("404 Not Found"));
    for (url, scheme) in [
        ("", None),
        ("/file", None),
        ("http://", None),
        ("ftp://host/file", Some("ftp")),
        ("file:///etc/passwd", Some("file")),
        ("data:,x", Some("data")),
    ] {
        let request = Request {
            url: url.to_owned(),
            ..place.request(&server, b"x")
        };
        let got = match fetch(&request) {
            Err(FetchError::Url { .. }) => None,
            Err(FetchError::Scheme { scheme, .. }) => Some(scheme),
            other => panic!("{other:?}"),
        };
        assert_eq!(got.as_deref(), scheme, "{url}");
    }
}

#[test]
fn connections_are_used_again() {
    let place = Place::new();
    let server = Server::start(|asked| Answer::whole(asked.path.as_bytes(), ""));
    run(async {
        let fetcher = fetcher();
        for path in ["/a", "/b", "/c"] {
            assert_eq!(
                fetcher.fetch_small(&server.url(path), 10).await.unwrap(),
                path.as_bytes()
            );
        }
        let request = Request {
            size: Size::AtMost(10),
            digest: None,
            ..place.request(&server, b"")
        };
        fetcher.fetch(&request, &mut |_| {}).await.unwrap();
    });
    assert_eq!((server.asked().len(), server.connections()), (4, 1));
}

/// Requests for `count` files, each with its own content.
fn group(place: &Place, server: &Server, count: u32) -> Vec<Request> {
    let request = |number: u32| {
        let body = content(50_000, number);
        Request {
            url: server.url(&format!("/{number}")),
            destination: place.path(&number.to_string()),
            ..place.request(server, &body)
        }
    };
    (0..count).map(request).collect()
}

fn numbered(asked: &Asked) -> Answer {
    let number = asked.path[1..].parse().unwrap();
    Answer::file(asked, &content(50_000, number), "\"1\"")
}

#[test]
fn a_group_is_fetched_four_at_a_time_and_counted_together() {
    let place = Place::new();
    let server = Server::start(numbered);
    let mut requests = group(&place, &server, 12);
    requests.push(requests[3].clone());
    let mut last = Progress::default();
    let fetched = run(fetcher().fetch_all(&requests, &mut |progress| last = progress)).unwrap();
    for (request, fetched) in requests.iter().zip(&fetched) {
        assert_eq!(request.destination, fetched.path);
        assert_eq!(fetched.digest, request.digest);
    }
    assert_eq!(fetched.len(), 13);
    assert_eq!(
        server.asked().len(),
        12,
        "what is asked for twice is fetched once"
    );
    assert_eq!(
        last,
        Progress {
            received: 600_000,
            total: Some(600_000)
        }
    );
    assert!(server.most_busy() <= 4, "{}", server.most_busy());
    assert!(
        run(fetcher().fetch_all(&[], &mut |_| {}))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_group_with_one_failure_fails_and_goes_on_from_there_the_next_time() {
    let place = Place::new();
    let server = Server::start(|asked| match asked.path.as_str() {
        "/5" if asked.number < 12 => Answer::status("404 Not Found"),
        _ => numbered(asked),
    });
    let requests = group(&place, &server, 8);
    let error = run(fetcher().fetch_all(&requests, &mut |_| {})).unwrap_err();
    assert!(matches!(error, FetchError::Absent { .. }), "{error:?}");
    while server.asked().len() < 12 {
        run(fetcher().fetch_small(&server.url("/0"), 50_000)).unwrap();
    }
    let fetched = run(fetcher().fetch_all(&requests, &mut |_| {})).unwrap();
    assert!(
        fetched.iter().any(|file| file.transferred == 0),
        "what was there is kept"
    );
    for (number, request) in (0..).zip(&requests) {
        assert_eq!(
            fs::read(&request.destination).unwrap(),
            content(50_000, number)
        );
    }
}

#[test]
fn two_different_files_for_one_place_are_refused_before_anything_is_fetched() {
    let place = Place::new();
    let server = Server::start(numbered);
    let mut requests = group(&place, &server, 2);
    requests[1].destination = requests[0].destination.clone();
    let error = run(fetcher().fetch_all(&requests, &mut |_| {})).unwrap_err();
    assert!(matches!(error, FetchError::Conflict { .. }), "{error:?}");
    assert!(server.asked().is_empty());
}

#[test]
fn a_file_that_is_being_downloaded_is_left_to_its_downloader() {
    let (place, body) = (Place::new(), content(1000, 1));
    let copy = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &copy, "\"1\"").hang(0));
    let request = place.request(&server, &body);
    run(async {
        let mut settings = Settings::new("Tester/1");
        settings.patience.attempts = 1;
        let patient = Fetcher::new(settings).unwrap();
        let (mut a, mut b) = (|_| {}, |_| {});
        let first = patient.fetch(&request, &mut a);
        let second = patient.fetch(&request, &mut b);
        let (first, second) = (std::pin::pin!(first), std::pin::pin!(second));
        let ended = futures_util::future::select(first, second).await;
        let ended = ended.factor_first().0;
        assert!(matches!(ended, Err(FetchError::InUse { .. })), "{ended:?}");
    });
}

#[test]
fn a_part_that_is_no_plain_file_is_refused() {
    let (place, body) = (Place::new(), content(1000, 1));
    let victim = place.path("victim");
    fs::write(&victim, b"keep").unwrap();
    std::os::unix::fs::symlink(&victim, place.path("file.part")).unwrap();
    let (result, _server) = fetch_from(&place, &body, vec![Answer::whole(&body, "")]);
    assert!(matches!(result, Err(FetchError::Disk { .. })));
    assert_eq!(fs::read(victim).unwrap(), b"keep");

    fs::remove_file(place.path("file.part")).unwrap();
    fs::create_dir(place.path("file.part")).unwrap();
    let (result, _server) = fetch_from(&place, &body, vec![Answer::whole(&body, "")]);
    assert!(matches!(result, Err(FetchError::Disk { .. })));
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let place = Place::new();
    let server = Server::start(|_| Answer::whole(b"x", ""));
    let request = Request {
        destination: place.path("none/file"),
        ..place.request(&server, b"x")
    };
    let error = fetch(&request).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot write `{}.part`", request.destination)
    );
    assert!(
        server.asked().is_empty(),
        "nothing is fetched that cannot be kept"
    );
}

#[test]
fn a_file_for_which_there_is_no_room_is_not_begun_and_goes_on_when_there_is() {
    let (place, body) = (Place::new(), content(2 << 20, 1));
    let Some(disk) = SmallDisk::mount(&place.0, "1m") else {
        return;
    };
    let copy = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &copy, "\"1\""));
    let request = place.request(&server, &body);
    fs::write(place.path("file.part"), &body[..100_000]).unwrap();
    let mut events = 0;
    let full = run(fetcher().receive(&request, &mut |_| events += 1));
    let kept = fs::read(place.path("file.part"));
    disk.resize("4m");
    let resumed = fetch(&request);
    let content = fs::read(&request.destination);
    drop(disk);

    let error = full.unwrap_err();
    assert!(matches!(error, FetchError::Full { .. }), "{error:?}");
    assert!(error.hint().is_some());
    assert_eq!(events, 0, "nothing of it was received");
    assert_eq!(kept.unwrap(), body[..100_000]);
    assert_eq!(resumed.unwrap().transferred, (2 << 20) - 100_000);
    assert_eq!(content.unwrap(), body);
}

#[test]
fn a_disk_that_is_full_in_the_middle_keeps_what_it_took() {
    let (place, body) = (Place::new(), content(2 << 20, 1));
    let Some(disk) = SmallDisk::mount(&place.0, "1m") else {
        return;
    };
    let copy = body.clone();
    let server = Server::start(move |asked| match asked.range() {
        None => Answer::chunked(&copy),
        Some(_) => Answer::file(asked, &copy, "\"1\""),
    });
    let request = Request {
        size: Size::AtMost(4 << 20),
        ..place.request(&server, &body)
    };
    let full = fetch(&request);
    disk.resize("4m");
    let resumed = fetch(&request);
    let content = fs::read(&request.destination);
    drop(disk);

    let error = full.unwrap_err();
    assert!(matches!(error, FetchError::Full { .. }), "{error:?}");
    assert!(resumed.unwrap().transferred < 2 << 20);
    assert_eq!(content.unwrap(), body);
}

#[test]
fn a_download_can_be_spawned() {
    fn is_send<T: Send>(_: &T) {}
    let place = Place::new();
    let server = Server::start(numbered);
    let (fetcher, requests) = (fetcher(), group(&place, &server, 1));
    let mut ignore = |_| {};
    is_send(&fetcher.fetch(&requests[0], &mut ignore));
    let mut ignore = |_| {};
    is_send(&fetcher.fetch_all(&requests, &mut ignore));
    is_send(&fetcher.fetch_small("", 0));
    is_send(&fetcher.fetch_unnamed("", 0, &place.path("")));
}

/// One thing that a server may do to a request.
#[derive(Clone, Debug)]
enum Whim {
    Serve,
    Cut(usize),
    IgnoreRange,
    Change,
    WrongRange,
    Status(u16),
    Garbage,
}

fn whim() -> impl Strategy<Value = Whim> {
    prop_oneof![
        3 => Just(Whim::Serve),
        4 => (0usize..600_000).prop_map(Whim::Cut),
        1 => Just(Whim::IgnoreRange),
        1 => Just(Whim::Change),
        1 => Just(Whim::WrongRange),
        1 => prop::sample::select(vec![200, 206, 301, 404, 416, 500, 503]).prop_map(Whim::Status),
        1 => Just(Whim::Garbage),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn whatever_a_server_does_only_the_right_file_reaches_its_place(
        whims in proptest::collection::vec(whim(), 0..8), known in any::<bool>()
    ) {
        let (place, body) = (Place::new(), content(600_000, 1));
        let (mut version, wanted) = (1, body.clone());
        let server = Server::start(move |asked| {
            if let Some(Whim::Change) = whims.get(asked.number) {
                version += 1;
            }
            // Later versions are only other bytes where nobody knows the digest.
            let (bytes, tag) = if known { (wanted.clone(), 1) } else { (content(600_000, version), version) };
            let file = Answer::file(asked, &bytes, &format!("\"{tag}\""));
            match whims.get(asked.number) {
                None | Some(Whim::Serve | Whim::Change) => file,
                Some(Whim::Cut(after)) => file.cut(*after),
                Some(Whim::IgnoreRange) => Answer::whole(&bytes, &format!("ETag: \"{tag}\"\r\n")),
                Some(Whim::WrongRange) => Answer::part("7-599999/600000", &bytes[7..], ""),
                Some(Whim::Status(status)) => Answer::status(&format!("{status} Whim")),
                Some(Whim::Garbage) => Answer::raw(b"\x16\x03\x01garbage"),
            }
        });
        let request = Request {
            digest: known.then(|| digest(&body)),
            ..place.request(&server, &body)
        };
        for _ in 0..12 {
            match fetch(&request) {
                Ok(_) => break,
                Err(_) => prop_assert!(!request.destination.exists()),
            }
        }
        let got = fs::read(&request.destination).unwrap();
        let versions: Vec<_> = if known { vec![1] } else { (1..10).collect() };
        prop_assert!(versions.into_iter().any(|version| got == content(600_000, version)));
        prop_assert_eq!(place.names(), ["file"]);
    }
}

//! One file in ranges side by side.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;
use system_image_fetch::{Request, Size};
use system_image_testkit::http::{Answer, Asked, Server};

use crate::support::*;

const LEN: usize = 5_300_000;

fn request(place: &Place, server: &Server, known: bool) -> Request {
    let mut request = Request {
        size: Size::AtMost(1 << 30),
        digest: known.then(|| digest(&content(LEN, 1))),
        ..place.request(server, b"")
    };
    request.how.connections = 4;
    request
}

fn good(asked: &Asked) -> Answer {
    Answer::file(asked, &content(LEN, 1), "\"1\"")
}

fn assert_right(place: &Place) {
    assert!(fs::read(place.path("file")).unwrap() == content(LEN, 1));
    assert_eq!(place.names(), ["file"]);
}

#[test]
fn ranges_are_fetched_side_by_side_and_put_together() {
    for known in [true, false] {
        let (place, server) = (Place::new(), Server::start(good));
        let fetched = fetch(&request(&place, &server, known)).unwrap();
        assert_right(&place);
        assert_eq!(fetched.transferred, LEN as u64);
        let spans: BTreeSet<_> = server.asked().iter().filter_map(Asked::span).collect();
        assert_eq!((spans.len(), server.asked().len()), (6, 6), "{spans:?}");
        assert!((2..=4).contains(&server.connections()));
    }
}

#[test]
fn what_an_earlier_process_left_is_gone_on_with() {
    let (place, server) = (Place::new(), Server::start(good));
    fs::write(place.path("file.part"), &content(LEN, 1)[..3_000_000]).unwrap();
    let fetched = fetch(&request(&place, &server, true)).unwrap();
    assert_right(&place);
    assert_eq!(fetched.transferred, LEN as u64 - 3_000_000);
    assert_eq!(server.asked()[0].span(), Some((3_000_000, Some(4_048_575))));
}

#[test]
fn a_range_that_is_cut_is_fetched_from_where_the_file_ends() {
    let place = Place::new();
    let server = Server::start(|asked| match asked.number {
        3 => good(asked).cut(100_000),
        _ => good(asked),
    });
    fetch(&request(&place, &server, false)).unwrap();
    assert_right(&place);
}

#[test]
fn a_server_that_cannot_do_it_is_asked_in_the_usual_way() {
    type Serve = fn(&Asked) -> Answer;
    let cases: [(&str, Serve); 6] = [
        ("no ranges", |_| Answer::whole(&content(LEN, 1), "")),
        ("another range", |asked| match asked.span() {
            Some((0, Some(_))) => Answer::part(
                &format!("0-9/{LEN}"),
                &content(LEN, 1)[..10],
                "ETag: \"1\"\r\n",
            ),
            _ => good(asked),
        }),
        ("no size", |asked| match asked.span() {
            Some((first, Some(last))) => Answer::part(
                &format!("{first}-{last}/*"),
                &content(LEN, 1)[first..=last],
                "ETag: \"1\"\r\n",
            ),
            _ => good(asked),
        }),
        ("nothing proves that ranges go together", |asked| {
            let body = content(LEN, 1);
            match asked.span() {
                Some((first, Some(last))) => {
                    Answer::part(&format!("{first}-{last}/{LEN}"), &body[first..=last], "")
                }
                _ => Answer::whole(&body, ""),
            }
        }),
        ("one at a time", |asked| match asked.span() {
            Some((1.., Some(_))) => Answer::status("403 Forbidden"),
            _ => good(asked),
        }),
        ("ranges make no sense to it", |asked| match asked.span() {
            Some((_, Some(_))) => Answer::status("416 Range Not Satisfiable"),
            _ => Answer::whole(&content(LEN, 1), ""),
        }),
    ];
    for (name, serve) in cases {
        let (place, server) = (Place::new(), Server::start(serve));
        let fetched = fetch(&request(&place, &server, false));
        fetched.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_right(&place);
    }
}

#[test]
fn an_absent_file_is_asked_for_once() {
    let (place, server) = (
        Place::new(),
        Server::start(|_| Answer::status("404 Not Found")),
    );
    assert!(fetch(&request(&place, &server, true)).is_err());
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn an_empty_file_is_a_file() {
    let place = Place::new();
    let server = Server::start(|asked| Answer::file(asked, b"", "\"1\""));
    assert_eq!(fetch(&request(&place, &server, false)).unwrap().size, 0);
}

#[test]
fn mirrors_share_the_ranges_only_where_a_digest_decides() {
    for known in [true, false] {
        let (place, server) = (Place::new(), Server::start(good));
        let mirror = Server::start(|asked| Answer::file(asked, &content(LEN, 1), "\"other\""));
        let mut request = request(&place, &server, known);
        request.how.mirrors = vec![mirror.url("/file")];
        fetch(&request).unwrap();
        assert_right(&place);
        assert_eq!(mirror.asked().len(), if known { 3 } else { 0 });
    }
}

#[test]
fn a_mirror_with_another_file_is_found_out() {
    let (place, server) = (Place::new(), Server::start(good));
    let mirror = Server::start(|asked| Answer::file(asked, &content(LEN, 2), "\"1\""));
    let mut request = request(&place, &server, true);
    request.how.mirrors = vec![mirror.url("/file")];
    fetch(&request).unwrap();
    assert_right(&place);
}

/// One thing that a server may do to a request.
#[derive(Clone, Debug)]
enum Whim {
    Serve,
    Cut(usize),
    IgnoreRange,
    Change,
    Status(u16),
}

fn whim() -> impl Strategy<Value = Whim> {
    prop_oneof![
        6 => Just(Whim::Serve),
        3 => (0usize..1_000_000).prop_map(Whim::Cut),
        1 => Just(Whim::IgnoreRange),
        1 => Just(Whim::Change),
        1 => prop::sample::select(vec![200, 206, 404, 416, 503]).prop_map(Whim::Status),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn whatever_a_server_does_side_by_side_only_one_version_reaches_its_place(
        whims in proptest::collection::vec(whim(), 0..16), known in any::<bool>()
    ) {
        let (place, mut version) = (Place::new(), 1);
        let server = Server::start(move |asked| {
            let whim = whims.get(asked.number);
            if let (Some(Whim::Change), false) = (whim, known) {
                version += 1;
            }
            let (body, tag) = (content(LEN, version), format!("\"{version}\""));
            match whim {
                None | Some(Whim::Serve | Whim::Change) => Answer::file(asked, &body, &tag),
                Some(Whim::Cut(after)) => Answer::file(asked, &body, &tag).cut(*after),
                Some(Whim::IgnoreRange) => Answer::whole(&body, &format!("ETag: {tag}\r\n")),
                Some(Whim::Status(status)) => Answer::status(&format!("{status} Whim")),
            }
        });
        let mut request = request(&place, &server, known);
        request.size = Size::Exactly(LEN as u64);
        for _ in 0..20 {
            match fetch(&request) {
                Ok(_) => break,
                Err(_) => prop_assert!(!request.destination.exists()),
            }
        }
        let got = fs::read(&request.destination).unwrap();
        prop_assert!((1..=17).any(|version| got == content(LEN, version)));
        prop_assert_eq!(place.names(), ["file"]);
    }
}

//! The command line for people.

use std::fs;
use std::process::Output;

use system_image_testkit::Bus;
use system_image_testkit::http::{Answer, Server};

use crate::support::{Daemon, Place, noise, sha256};

fn run(bus: &Bus, arguments: &[&str]) -> Output {
    let mut program = bus.program(env!("CARGO_BIN_EXE_system-image-downloader"));
    program.arg("--system").args(arguments).output().unwrap()
}

fn text(bus: &Bus, arguments: &[&str]) -> String {
    let output = run(bus, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_download_is_added_steered_and_watched() {
    let (bus, place) = (Bus::start(), Place::new());
    let body = noise(400_000);
    let digest = format!("sha256:{}", sha256(&body));
    let content = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &content, "\"1\""));
    let _daemon = Daemon::start(&bus, &place);
    let file = place.file("x");
    let url = server.url("/x");
    let added = text(
        &bus,
        &[
            "add",
            &url,
            "--to",
            file.as_str(),
            "--hash",
            &digest,
            "--throttle",
            "100k",
            "--title",
            "My file",
        ],
    );
    let id = added.trim();
    assert_eq!(id.len(), 32, "{added}");
    let listed = text(&bus, &["list"]);
    assert!(
        listed.starts_with(&id[..8]) && listed.contains("My file"),
        "{listed}"
    );
    text(&bus, &["pause", &id[..6]]);
    let json: serde_json::Value = serde_json::from_str(&text(&bus, &["list", "--json"])).unwrap();
    assert_eq!(json["schema"], 1);
    let shown = &json["downloads"][0];
    assert_eq!(
        (&shown["activity"], &shown["throttle"]),
        (&"paused".into(), &100_000.into())
    );
    text(&bus, &["throttle", "0", id]);
    text(&bus, &["mobile-data", "yes"]);
    text(&bus, &["resume", id]);
    let watched = text(
        &bus,
        &["add", &url, "--to", place.file("y").as_str(), "--wait"],
    );
    assert!(
        watched.trim_end().ends_with(place.file("y").as_str()),
        "{watched}"
    );
    while !text(&bus, &["list"]).contains("complete") {}
    assert_eq!(fs::read(&file).unwrap(), body);
    text(&bus, &["collect", id]);
    assert_eq!(text(&bus, &["watch"]), "");
    assert_eq!(text(&bus, &["list"]), "");
}

#[test]
fn what_goes_wrong_is_said_with_a_hint() {
    let (bus, place) = (Bus::start(), Place::new());
    let none = run(&bus, &["list"]);
    let said = String::from_utf8(none.stderr).unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(
        said.contains("there is no download service on the system bus") && said.contains("hint:"),
        "{said}"
    );
    let other = Bus::with_services(&[(crate::support::NAME, "/usr/bin/lomiri-download-manager")]);
    let another = run(&other, &["list"]);
    let said = String::from_utf8(another.stderr).unwrap();
    assert!(
        said.contains("is another program") && said.contains("hint:"),
        "{said}"
    );
    let _daemon = Daemon::start(&bus, &place);
    let unknown = run(&bus, &["pause", "abc"]);
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("there is no download `abc`"), "{said}");
    let bad = run(&bus, &["add", "no url"]);
    let said = String::from_utf8(bad.stderr).unwrap();
    assert!(said.contains("Invalid URL"), "{said}");
    let server = Server::start(|_| Answer::status("404 Not Found"));
    let missing = run(&bus, &["add", &server.url("/x"), "--wait"]);
    let said = String::from_utf8(missing.stderr).unwrap();
    let want = "error: the download has failed\ncaused by: the server says 404 Not Found\n";
    assert_eq!(said, want);
    let word = run(&bus, &["lst"]);
    assert_eq!(word.status.code(), Some(2));
    let hash = run(&bus, &["add", "http://h/x", "--hash", "sha256:12"]);
    assert_eq!(hash.status.code(), Some(2));
}

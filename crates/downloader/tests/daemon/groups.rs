//! Groups: all files or none (specification, section 11).

use std::fs;

use system_image_testkit::Bus;
use system_image_testkit::http::{Answer, Server};

use crate::support::{Daemon, Place, names, noise};

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn all_files_come_and_the_group_is_gone() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| match asked.path.as_str() {
        "/abc" => Answer::file(asked, b"abc", "\"1\""),
        _ => Answer::file(asked, &noise(500_000), "\"2\""),
    });
    let daemon = Daemon::start(&bus, &place);
    let files: Vec<_> = (0..9)
        .map(|n| (server.url("/big"), place.file(&format!("big{n}")), ""))
        .chain([(server.url("/abc"), place.file("abc"), ABC)])
        .collect();
    let path = daemon.group(&files);
    assert_eq!(
        daemon.call_group(&path, "progress"),
        "(uint64 10, uint64 0, uint64 10, uint64 0)"
    );
    daemon.call_group(&path, "start");
    let signals = daemon.group_until(&path, "finished");
    assert_eq!(signals[0], "started (true,)");
    assert!(
        signals.contains(&format!("processing ('{}',)", place.file("abc"))),
        "{signals:?}"
    );
    let progress = signals
        .iter()
        .rev()
        .find(|signal| signal.starts_with("progress"));
    assert_eq!(
        progress.unwrap(),
        "progress (uint64 4500003, uint64 4500003)"
    );
    let finished = signals.last().unwrap();
    for (_, file, _) in &files {
        assert!(finished.contains(file.as_str()), "{finished}");
        assert!(file.exists());
    }
    let gone = daemon.refused(
        &path,
        "com.lomiri.applications.GroupDownload.totalSize",
        &[],
    );
    assert!(gone.contains("UnknownObject"), "{gone}");
}

#[test]
fn the_first_failure_takes_everything_with_it() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| match asked.path.as_str() {
        "/no" => Answer::status("404 Not Found"),
        _ => Answer::file(asked, b"abd", "\"1\""),
    });
    let daemon = Daemon::start(&bus, &place);
    for (bad, hash, cause, text) in [
        ("no", "", "httpError", "NETWORK ERROR"),
        ("abd", ABC, "", "HASH ERROR"),
    ] {
        let bad = server.url(&format!("/{bad}"));
        let files = [
            (server.url("/one"), place.file("one"), ""),
            (bad.clone(), place.file("two"), hash),
        ];
        let path = daemon.group(&files);
        daemon.call_group(&path, "start");
        let signals = daemon.group_until(&path, "error");
        assert_eq!(signals.last().unwrap(), &format!("error ('{bad}:{text}',)"));
        if !cause.is_empty() {
            let want = format!("{cause} ('{bad}', (404, 'Not Found'))");
            assert!(signals.contains(&want), "{signals:?}");
        }
        assert_eq!(place.files(), [""; 0]);
        let gone = daemon.refused(&path, "com.lomiri.applications.GroupDownload.start", &[]);
        assert!(gone.contains("UnknownObject"), "{gone}");
    }
}

#[test]
fn a_group_is_paused_resumed_and_canceled() {
    let (bus, place) = (Bus::start(), Place::new());
    let body = noise(1_000_000);
    let content = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &content, "\"1\""));
    let daemon = Daemon::start(&bus, &place);
    let files = [
        (server.url("/a"), place.file("a"), ""),
        (server.url("/b"), place.file("b"), ""),
    ];
    let path = daemon.group(&files);
    let throttle = "com.lomiri.applications.GroupDownload.setThrottle";
    daemon
        .bus
        .call(crate::support::NAME, &path, throttle, &["200000"]);
    daemon.call_group(&path, "start");
    daemon.line_with("progress (uint64");
    daemon.call_group(&path, "pause");
    let signals = daemon.group_until(&path, "paused");
    assert_eq!(signals.last().unwrap(), "paused (true,)");
    daemon
        .bus
        .call(crate::support::NAME, &path, throttle, &["0"]);
    daemon.call_group(&path, "resume");
    let signals = daemon.group_until(&path, "finished");
    assert_eq!(names(&signals), ["resumed", "progress", "finished"]);
    for (_, file, _) in &files {
        assert_eq!(fs::read(file).unwrap(), body);
    }

    let files = [(server.url("/c"), place.file("c"), "")];
    let path = daemon.group(&files);
    daemon
        .bus
        .call(crate::support::NAME, &path, throttle, &["200000"]);
    daemon.call_group(&path, "start");
    daemon.line_with("progress (uint64");
    daemon.call_group(&path, "cancel");
    daemon.group_until(&path, "canceled");
    assert_eq!(place.files(), ["a", "b"]);
}

#[test]
fn bad_groups_are_refused_and_an_empty_one_is_done_at_once() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    let method = "com.lomiri.applications.DownloadManager.createDownloadGroup";
    let twice = place.file("x");
    let files = format!("[('http://h/a', '{twice}', ''), ('http://h/b', '{twice}', '')]");
    let refused = daemon.refused(
        "/",
        method,
        &[&files, "sha256", "true", "@a{sv} {}", "@a{ss} {}"],
    );
    assert!(
        refused.contains(&format!("Duplicated local path passed: {twice}")),
        "{refused}"
    );

    let path = daemon.group(&[]);
    daemon.call_group(&path, "start");
    let signals = daemon.group_until(&path, "finished");
    assert_eq!(signals, ["started (true,)", "finished (@as [],)"]);
    let gone = daemon.refused(&path, "com.lomiri.applications.GroupDownload.start", &[]);
    assert!(gone.contains("UnknownObject"), "it blocks nobody: {gone}");

    let unwritable = place.file("no/such/place");
    let path = daemon.group(&[("http://127.0.0.1:1/x".into(), unwritable, "")]);
    daemon.call_group(&path, "start");
    let signals = daemon.group_until(&path, "error");
    assert!(
        signals.last().unwrap().contains("FILE SYSTEM ERROR: 2"),
        "{signals:?}"
    );
}

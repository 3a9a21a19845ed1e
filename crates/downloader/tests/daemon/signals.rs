//! Signals in their orders (specification, section 6), against a server that is right or wrong.

use std::fs;

use system_image_testkit::Bus;
use system_image_testkit::http::{Answer, Server};

use crate::support::{Daemon, MANAGER, Place, names, noise};

const SHA256: &str = "sha256";

#[test]
fn a_download_is_started_comes_and_is_collected() {
    let (bus, place) = (Bus::start(), Place::new());
    let body = noise(300_000);
    let content = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &content, "\"1\""));
    let daemon = Daemon::start(&bus, &place);
    let path = daemon.create(&server.url("/a%20b%2Fc.bin"), "", "", "@a{sv} {}");
    daemon.line_with(&format!("{MANAGER}.downloadCreated (objectpath '{path}',)"));
    assert_eq!(daemon.call(&path, "state", &[]), "(0,)");
    assert_eq!(server.asked().len(), 0, "nothing moves before `start`");
    assert_eq!(daemon.call(&path, "start", &[]), "()");
    let signals = daemon.until(&path, "finished");
    let file = place.downloads().join("c.bin");
    assert_eq!(
        signals,
        [
            "started (true,)".to_owned(),
            "progress (uint64 300000, uint64 300000)".to_owned(),
            format!("finished ('{file}',)"),
        ]
    );
    assert_eq!(fs::read(&file).unwrap(), body);
    for (method, want) in [
        ("state", "(5,)".to_owned()),
        ("progress", "(uint64 300000,)".to_owned()),
        ("totalSize", "(uint64 300000,)".to_owned()),
        ("filePath", format!("('{file}',)")),
    ] {
        assert_eq!(daemon.call(&path, method, &[]), want, "{method}");
    }
    daemon.call(&path, "collected", &[]);
    let gone = daemon.refused(&path, "com.lomiri.applications.Download.state", &[]);
    assert!(gone.contains("UnknownObject"), "{gone}");
    assert_eq!(fs::read(&file).unwrap(), body, "it is its owner's now");
    assert_eq!(place.files(), ["c.bin"]);

    let asked = &server.asked()[0];
    for (header, want) in [
        ("Accept-Encoding", "identity"),
        ("User-Agent", "Mozilla/5.0"),
    ] {
        assert_eq!(asked.header(header), Some(want));
    }
}

#[test]
fn a_digest_is_checked_in_any_case_and_a_wrong_one_is_told() {
    const ABC: &str = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| Answer::file(asked, b"abc", "\"1\""));
    let daemon = Daemon::start(&bus, &place);
    for (hash, algorithm, metadata, end) in [
        (ABC, SHA256, "@a{sv} {}", "finished"),
        (
            "900150983cd24fb0d6963f7d28e17f72",
            "",
            "@a{sv} {}",
            "finished",
        ),
        (
            "a9993e364706816aba3e25717850c26c9cd0d89d",
            "SHA1",
            "@a{sv} {}",
            "finished",
        ),
        (
            "900150983cd24fb0d6963f7d28e17f73",
            "md5",
            "@a{sv} {}",
            "error",
        ),
        ("no digest", "md5", "@a{sv} {}", "error"),
    ] {
        let path = daemon.create(&server.url("/x"), hash, algorithm, metadata);
        daemon.call(&path, "start", &[]);
        let signals = daemon.until(&path, end);
        let told = names(&signals);
        if end == "finished" {
            assert_eq!(
                told,
                ["started", "progress", "processing", "finished"],
                "{hash}"
            );
            daemon.call(&path, "collected", &[]);
        } else {
            let want = ["started", "progress", "processing", "hashError", "error"];
            assert_eq!(told, want, "{hash}");
            let error =
                format!("hashError (('md5', '{hash}', '900150983cd24fb0d6963f7d28e17f72'),)");
            assert_eq!(signals[3], error);
            assert_eq!(signals[4], "error ('HASH ERROR',)");
        }
    }
    assert_eq!(
        place.files(),
        ["x", "x (1)", "x (2)"],
        "what is wrong is deleted"
    );
}

#[test]
fn it_is_paused_and_goes_on_where_it_was() {
    let (bus, place) = (Bus::start(), Place::new());
    let body = noise(2_000_000);
    let content = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &content, "\"1\""));
    let daemon = Daemon::start(&bus, &place);
    let file = place.file("out");
    let path = daemon.fetch(&server.url("/x"), &file);
    daemon.call(&path, "setThrottle", &["400000"]);
    daemon.call(&path, "start", &[]);
    place.waits_for("out.tmp");
    daemon.call(&path, "pause", &[]);
    let paused = daemon.until(&path, "paused");
    assert_eq!(paused.last().unwrap(), "paused (true,)");
    assert_eq!(daemon.call(&path, "state", &[]), "(2,)");
    assert_eq!(place.files(), ["out.tmp", "out.tmp.info"]);
    daemon.call(&path, "pause", &[]);
    daemon.call(&path, "setThrottle", &["0"]);
    daemon.call(&path, "resume", &[]);
    let resumed = daemon.until(&path, "finished");
    assert_eq!(names(&resumed), ["resumed", "progress", "finished"]);
    assert_eq!(resumed[1], "progress (uint64 2000000, uint64 2000000)");
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].range().is_some_and(|first| first > 0));
    assert_eq!(asked[1].header("If-Range"), Some("\"1\""));
    assert_eq!(fs::read(&file).unwrap(), body);
    // Calls that make no sense any more change nothing.
    for (method, signal) in [
        ("start", "started"),
        ("pause", "paused"),
        ("resume", "resumed"),
    ] {
        daemon.call(&path, method, &[]);
        assert_eq!(daemon.until(&path, signal), [format!("{signal} (false,)")]);
        assert_eq!(daemon.call(&path, "state", &[]), "(5,)");
    }
}

#[test]
fn what_is_canceled_leaves_nothing_and_what_is_complete_stays() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| Answer::file(asked, &noise(1_000_000), "\"1\""));
    let daemon = Daemon::start(&bus, &place);
    let path = daemon.fetch(&server.url("/x"), &place.file("gone"));
    daemon.call(&path, "setThrottle", &["100000"]);
    daemon.call(&path, "start", &[]);
    daemon.line_with("progress (uint64");
    daemon.call(&path, "cancel", &[]);
    let signals = daemon.until(&path, "canceled");
    assert_eq!(signals.last().unwrap(), "canceled (true,)");
    assert_eq!(place.files(), [""; 0]);
    let kept = daemon.fetch(&server.url("/x"), &place.file("kept"));
    daemon.call(&kept, "start", &[]);
    daemon.until(&kept, "finished");
    daemon.call(&kept, "cancel", &[]);
    daemon.until(&kept, "canceled");
    assert_eq!(place.files(), ["kept"]);
}

#[test]
fn failures_have_a_typed_signal_and_one_error() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| match asked.path.as_str() {
        "/circle" => Answer::with(
            "302 Found",
            "Location: circle\r\nContent-Length: 0\r\n",
            b"",
        ),
        "/there" => Answer::with(
            "307 Temporary Redirect",
            "Location: sub/../x\r\nContent-Length: 0\r\n",
            b"",
        ),
        "/401" => Answer::status("401 Unauthorized"),
        "/x" => Answer::file(asked, b"x", "\"1\""),
        _ => Answer::status("404 Not Found"),
    });
    let daemon = Daemon::start(&bus, &place);
    let nobody = "http://127.0.0.1:1/x".to_owned();
    for (url, cause, error) in [
        (
            server.url("/no"),
            "httpError ((404, 'Not Found'),)",
            "NETWORK ERROR",
        ),
        (
            server.url("/401"),
            "httpError ((401, 'Unauthorized'),)",
            "NETWORK ERROR",
        ),
        (
            server.url("/circle"),
            "networkError ((203, 'ContentNotFoundError'),)",
            "NETWORK ERROR",
        ),
        (
            "ftp://host/x".into(),
            "networkError ((301, 'Protocol \"ftp\" is unknown'),)",
            "NETWORK ERROR",
        ),
        (
            nobody,
            "networkError ((1, 'Connection refused'),)",
            "NETWORK ERROR",
        ),
    ] {
        let path = daemon.create(&url, "", "", "@a{sv} {}");
        daemon.call(&path, "start", &[]);
        let signals = daemon.until(&path, "error");
        let error = format!("error ('{error}',)");
        assert_eq!(signals, ["started (true,)", cause, &error], "{url}");
        let gone = daemon.refused(&path, "com.lomiri.applications.Download.state", &[]);
        assert!(gone.contains("UnknownObject"), "{gone}");
        let id = path.rsplit('/').next().unwrap();
        let known = daemon.manager("getDownloadState", &[id]);
        assert!(known.starts_with(&format!("((7, '{url}',")), "{known}");
    }
    let path = daemon.create(&server.url("/there"), "", "", "@a{sv} {}");
    daemon.call(&path, "start", &[]);
    daemon.until(&path, "finished");
    assert_eq!(
        place.files(),
        ["there"],
        "the name is the original address's"
    );
}

#[test]
fn a_file_that_cannot_be_written_is_told_in_the_answer() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    let missing = place.file("no/such/place");
    let path = daemon.fetch("http://127.0.0.1:1/x", &missing);
    let refused = daemon.refused(&path, "com.lomiri.applications.Download.start", &[]);
    let text = format!("Destination file path is not writable: '{missing}'");
    assert!(
        refused.contains("AccessDenied") && refused.contains(&text),
        "{refused}"
    );
    let gone = daemon.refused(&path, "com.lomiri.applications.Download.start", &[]);
    assert!(gone.contains("UnknownObject"), "{gone}");
}

#[test]
fn a_server_may_name_the_file_but_not_its_directory() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|_| {
        let header = "Content-Disposition: attachment; filename=\"../../else where\"\r\n";
        Answer::whole(b"x", header)
    });
    let daemon = Daemon::start(&bus, &place);
    let path = daemon.create(&server.url("/x"), "", "", "@a{sv} {}");
    assert!(daemon.call(&path, "filePath", &[]).ends_with("/x',)"));
    daemon.call(&path, "start", &[]);
    let signals = daemon.until(&path, "finished");
    let file = place.downloads().join("else where");
    assert_eq!(signals.last().unwrap(), &format!("finished ('{file}',)"));
    assert_eq!(daemon.call(&path, "filePath", &[]), format!("('{file}',)"));
    let exact = daemon.fetch(&server.url("/x"), &place.file("exact"));
    daemon.call(&exact, "start", &[]);
    daemon.until(&exact, "finished");
    assert_eq!(place.files(), ["else where", "exact"]);
}

#[test]
fn data_and_archives_are_unpacked() {
    let (bus, place) = (Bus::start(), Place::new());
    let archive = zip_of("inner", b"content");
    let server =
        Server::start(move |_| Answer::whole(&archive, "Content-Type: application/zip\r\n"));
    let plain = Server::start(|_| Answer::whole(b"x", "Content-Type: text/plain\r\n"));
    let daemon = Daemon::start(&bus, &place);
    let data = daemon.create("data:text/plain,hello%20you", "", "", "@a{sv} {}");
    daemon.call(&data, "start", &[]);
    let signals = daemon.until(&data, "finished");
    assert_eq!(names(&signals).first(), Some(&"started"));
    let id = data.rsplit('/').next().unwrap();
    let file = place.downloads().join(format!("{id}.txt"));
    assert_eq!(fs::read(&file).unwrap(), b"hello you");

    let extract = "{'extract': <true>}";
    let path = daemon.create(&server.url("/a.zip"), "", "", extract);
    daemon.call(&path, "start", &[]);
    let signals = daemon.until(&path, "finished");
    let directory = place.downloads();
    assert_eq!(
        signals.last().unwrap(),
        &format!("finished ('{directory}',)")
    );
    assert_eq!(fs::read(directory.join("inner")).unwrap(), b"content");
    assert!(!directory.join("a.zip").exists());

    let path = daemon.create(&plain.url("/b.zip"), "", "", extract);
    daemon.call(&path, "start", &[]);
    let signals = daemon.until(&path, "finished");
    let file = directory.join("b.zip");
    assert_eq!(signals.last().unwrap(), &format!("finished ('{file}',)"));
}

fn zip_of(name: &str, content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    writer.start_file(name, options).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap().into_inner()
}

//! The service as others use it: the published client library, and the update client's way.

use std::process::Command;

use system_image_testkit::Bus;
use system_image_testkit::http::{Answer, Server};

use crate::support::{Daemon, Place, noise, sha256};

fn source(name: &str) -> String {
    format!("{}/tests/foreign/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What the compiler must be told, if the library is there.
fn flags() -> Option<Vec<String>> {
    let packages = [
        "lomiri-download-manager-client",
        "lomiri-download-manager-common",
    ];
    let told = Command::new("pkg-config")
        .args(["--cflags", "--libs"])
        .args(packages)
        .output()
        .ok()
        .filter(|told| told.status.success())?;
    let text = String::from_utf8(told.stdout).unwrap();
    Some(text.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn the_published_client_library_downloads() {
    let Some(flags) = flags() else {
        eprintln!("not tested: the client library's headers are not installed");
        return;
    };
    let (bus, place) = (Bus::start(), Place::new());
    let program = place.file("client");
    let mut compiler = Command::new("c++");
    compiler.args(["-std=c++17", "-fPIC", "-O0", "-o", program.as_str()]);
    compiler.arg(source("client.cpp")).args(flags);
    assert!(compiler.status().unwrap().success());

    let body = noise(600_000);
    let (digest, content) = (sha256(&body), body.clone());
    let server = Server::start(move |asked| Answer::file(asked, &content, "\"1\""));
    let _daemon = Daemon::start(&bus, &place);
    let run = |url: &str, digest: &str| {
        let told = bus
            .program(program.as_str())
            .args([url, digest])
            .output()
            .unwrap();
        let text = String::from_utf8(told.stdout).unwrap();
        assert!(
            told.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&told.stderr)
        );
        text
    };
    let text = run(&server.url("/x"), &digest);
    let lines: Vec<&str> = text.lines().collect();
    let file = place.downloads().join("x");
    let finished = format!("finished {file}");
    assert_eq!(
        lines,
        [
            "title a title",
            "number 7",
            "header yes",
            "state 0, mobile 1",
            "throttle 400000",
            "started 1",
            "paused 1, state 2",
            "resumed 1",
            "progress 600000 of 600000",
            "processing",
            &finished,
            "listed without error: 1",
        ]
    );
    assert_eq!(std::fs::read(&file).unwrap(), body);
    assert_eq!(server.asked()[0].header("X-Test"), Some("yes"));

    let wrong = "0".repeat(64);
    let text = run(&server.url("/x"), &wrong);
    assert!(text.lines().last().unwrap().starts_with("error "), "{text}");
    let text = run("ftp://nowhere/x", "");
    assert!(text.lines().last().unwrap().starts_with("error "), "{text}");
}

#[test]
fn the_update_client_gets_its_files() {
    let (bus, place) = (Bus::start(), Place::new());
    let body = noise(500_000);
    let (digest, content) = (sha256(&body), body.clone());
    let server = Server::start(move |asked| Answer::file(asked, &content, "\"1\""));
    let _daemon = Daemon::start(&bus, &place);
    let (file, signature) = (place.file("x.tar.xz"), place.file("x.tar.xz.asc"));
    let told = Command::new("/usr/bin/python3")
        .arg(source("update_client.py"))
        .args([bus.address(), &server.url("/x"), file.as_str(), &digest])
        .args([&server.url("/x.asc"), signature.as_str()])
        .output()
        .unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(
        told.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&told.stderr)
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "started 1");
    assert!(lines.last().unwrap().starts_with("finished ["), "{text}");
    for file in [file, signature] {
        assert_eq!(std::fs::read(file).unwrap(), body);
    }
    let agent = "Ubuntu System Image Upgrade Client: device=lamp;channel=stable;build=1";
    assert!(
        server
            .asked()
            .iter()
            .all(|asked| asked.header("User-Agent") == Some(agent))
    );
}

//! Servers that are gone, silent, broken or full of themselves: one clear error each, and the
//! device stays as it was.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::net::TcpListener;
use std::thread;

use support::{give_up_soon, prepared, refuse, succeed};
use system_image_testkit::{Device, Fault, Keys, Published};

/// Everything that an update of these tests fetches.
const DOCUMENTS: [&str; 12] = [
    "/gpg/image-master.tar.xz",
    "/gpg/image-master.tar.xz.asc",
    "/gpg/image-signing.tar.xz",
    "/gpg/image-signing.tar.xz.asc",
    "/channels.json",
    "/channels.json.asc",
    "/stable/lamp/device-signing.tar.xz",
    "/stable/lamp/device-signing.tar.xz.asc",
    "/stable/lamp/index.json",
    "/stable/lamp/index.json.asc",
    "/pool/version-2.tar.xz",
    "/pool/version-2.tar.xz.asc",
];

/// Lets each document fail while the others are good; each time the client says what is wrong in
/// one of the given ways, and the update that was prepared before stays.
fn each_document_fails(fault: Fault, wants: &[&str]) {
    let keys = Keys::generate();
    let tree = Published::new(&keys).device_keyring().full(1).delta(1, 2);
    thread::scope(|scope| {
        for path in DOCUMENTS {
            let (keys, tree) = (&keys, &tree);
            scope.spawn(move || {
                let web = tree.serve();
                let device = Device::new(keys).served_by(&web);
                succeed(&device, &["-p", "0", "-m", "1"]);
                std::fs::remove_dir_all(device.path("keyrings")).unwrap();
                give_up_soon(&device);
                let device = device.at_version(1);
                web.fails(path, fault);
                let err = refuse(&device, &["-p", "0"]);
                let said = wants.iter().any(|want| err.contains(want));
                assert!(said, "{path} {fault:?}: {err}");
                assert!(err.contains(stem(path)), "{path}: {err}");
                assert_eq!(prepared(&device).unwrap()[0], "ubuntu-1.full.tar.xz");
                give_up_later(&device);
                web.recovers();
                succeed(&device, &["-p", "0"]);
                assert_eq!(prepared(&device).unwrap()[0], "ubuntu-2.delta-1.tar.xz");
            });
        }
    });
}

/// A document's name without what a keyring or a signature adds to it.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap();
    name.split('.').next().unwrap()
}

fn give_up_later(device: &Device) {
    device.configure("06_downloads.ini", "");
}

#[test]
fn each_document_may_be_missing() {
    let status = Fault::Status("404 Not Found");
    each_document_fails(status, &["returned error: 404: ", "the server has no `"]);
}

#[test]
fn each_document_may_meet_a_server_with_a_problem() {
    let status = Fault::Status("500 Internal Server Error");
    each_document_fails(status, &["returned error: 500: "]);
}

#[test]
fn each_document_may_be_no_http_at_all() {
    each_document_fails(Fault::Garbage, &["The server's answer makes no sense: "]);
}

#[test]
fn each_document_may_never_be_answered() {
    each_document_fails(Fault::Hang, &["Operation too slow or timed out: "]);
}

#[test]
fn each_document_may_stop_in_the_middle() {
    each_document_fails(Fault::Stall(20), &["Operation too slow or timed out: "]);
}

#[test]
fn each_document_may_be_cut_off() {
    each_document_fails(Fault::Cut(20), &["The connection was closed before"]);
}

#[test]
fn each_document_may_never_end() {
    each_document_fails(
        Fault::Endless,
        &["Maximum file size of ", " bytes instead of "],
    );
}

#[test]
fn each_document_may_be_a_log_in_page() {
    let wants = [
        "has no good signature",
        "the signature cannot be used",
        " bytes instead of ",
    ];
    each_document_fails(Fault::LogInPage, &wants);
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let keys = Keys::generate();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let device = Device::new(&keys);
    device.configure("10_server.ini", &format!("[service]\nhttp_port: {free}\n"));
    for options in [&["-p", "0"][..], &["-n", "-p", "0"], &["--list-channels"]] {
        let err = refuse(&device, options);
        assert!(err.contains("\ncaused by: Could not connect to the server: http://127.0.0.1:"));
        assert!(
            err.contains("\nhint: check the network and the server's address"),
            "{err}"
        );
    }
    assert!(device.dropped().is_empty());

    device.configure("10_server.ini", "[service]\nbase: no such host\n");
    let err = refuse(&device, &["-n", "-p", "0"]);
    assert!(
        err.contains("not a URL that can be fetched: http://no such host:9/gpg/"),
        "{err}"
    );
    device.configure("10_server.ini", "[service]\nbase: nowhere.invalid\n");
    let err = refuse(&device, &["-n", "-p", "0"]);
    assert!(
        err.contains("Could not resolve the host name: http://nowhere.invalid:9/"),
        "{err}"
    );
}

#[test]
fn a_server_that_fails_once_is_asked_again() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    // A payload that is cut again and again, and never at the same place.
    web.fails("/pool/ubuntu-1.full.tar.xz", Fault::Cut(300_000));
    succeed(&device, &["-p", "0"]);
    let asked = web.asked();
    let times = asked
        .iter()
        .filter(|asked| asked.path.ends_with("full.tar.xz"))
        .count();
    assert_eq!(times, 2);
}

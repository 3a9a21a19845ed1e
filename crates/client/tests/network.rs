//! Servers that are gone, silent, broken or full of themselves: one clear error each, and the
//! device stays as it was.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::net::TcpListener;

use support::faults::{Face, each_document_fails};
use support::{refuse, succeed};
use system_image_testkit::{Device, Fault, Keys, Published};

struct CommandLine;

impl Face for CommandLine {
    fn fails(&self, device: &Device) -> String {
        refuse(device, &["-p", "0"])
    }

    fn updates(&self, device: &Device) {
        succeed(device, &["-p", "0"]);
    }
}

#[test]
fn each_document_may_fail_in_each_way_and_the_next_run_converges() {
    each_document_fails(|_, run| run(&CommandLine));
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

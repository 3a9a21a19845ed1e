//! Publishing that is killed at any call that changes a name, writes, or makes something durable.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{CHANNEL, DEVICE, Server, copy};

/// The calls that leave a trace; not every machine has each.
const CALLS: [&str; 7] = [
    "?rename",
    "?renameat,?renameat2",
    "fsync",
    "?symlink,symlinkat",
    "?mkdir,mkdirat",
    "?unlink,unlinkat",
    "write",
];

/// Runs a command of the server and kills it at its n-th call of a kind.
fn killed_at(root: &Path, calls: &str, n: u32, arguments: &[&str]) -> bool {
    let root = ["--root", root.to_str().unwrap()];
    support::killed_at(calls, n, root.iter().chain(arguments))
}

#[test]
fn a_reader_sees_the_old_tree_or_the_new_one_and_the_next_run_converges() {
    let server = Server::new();
    server.publish(&server.archive("one", &[("etc/version", "1"), ("etc/gone", "x")]));
    let two = server.archive("two", &[("etc/version", "2")]);
    let arguments = ["publish", CHANNEL, DEVICE, two.to_str().unwrap()];
    let saved = server.place().join("saved");
    copy(&server.root(), &saved);
    let before = fs::read(server.index_path()).unwrap();
    let (mut old, mut new) = (0, 0);
    for calls in CALLS {
        // Writes are many and alike: every fifth.
        let step = if calls == "write" { 5 } else { 1 };
        let mut n = 1;
        while killed_at(&server.root(), calls, n, &arguments) {
            server.assert_consistent();
            if fs::read(server.index_path()).unwrap() == before {
                old += 1;
            } else {
                new += 1;
            }
            assert_eq!(server.publish(&two), "2", "after {calls} {n}");
            server.assert_consistent();
            assert_eq!(server.index()["images"].as_array().unwrap().len(), 3);
            let left = server
                .snapshot()
                .into_keys()
                .find(|name| name.rsplit('.').next() == Some("new"));
            assert_eq!(left, None, "left over after {calls} {n}");
            copy(&saved, &server.root());
            n += step;
        }
    }
    eprintln!("killed {old} times before the new index was visible, {new} times after");
    assert!(old > 40 && new > 0, "{old} {new}");
}

#[test]
fn setting_up_a_server_can_be_repeated_from_any_point() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("server");
    let init = ["init", "--key-type", "ed25519"];
    let mut kills = 0;
    for calls in CALLS.into_iter().filter(|calls| *calls != "write") {
        let mut n = 1;
        while killed_at(&root, calls, n, &init) {
            for arguments in [
                &init[..],
                &["channel", "create", "a"],
                &["device", "add", "a", "b"],
            ] {
                let output = Command::new(env!("CARGO_BIN_EXE_system-image-server"))
                    .arg("--root")
                    .arg(&root)
                    .args(arguments)
                    .output()
                    .unwrap();
                assert!(
                    output.status.success(),
                    "after {calls} {n}: {}",
                    support::stderr(&output)
                );
            }
            fs::remove_dir_all(&root).unwrap();
            kills += 1;
            n += 1;
        }
        fs::remove_dir_all(&root).unwrap();
    }
    assert!(kills > 40, "only {kills} calls were killed");
}

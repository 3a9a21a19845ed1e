//! Publishing that is killed at any call that changes a name or makes something durable.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use support::{CHANNEL, DEVICE, Server};

/// Runs a command of the server and kills it at its n-th call of that kind. `None` when it made
/// fewer calls and succeeded.
fn killed_at(server: &Server, n: u32, arguments: &[&str]) -> Option<()> {
    let calls = "rename,renameat2,fsync,fdatasync,symlinkat,mkdir,mkdirat,unlink,unlinkat";
    let status = Command::new("strace")
        .args([
            "--follow-forks",
            "--quiet=all",
            "--output=/dev/null",
            "--trace",
            calls,
        ])
        .arg(format!("--inject={calls}:signal=KILL:when={n}"))
        .arg(env!("CARGO_BIN_EXE_system-image-server"))
        .arg("--root")
        .arg(server.root())
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (_, Some(9)) | (Some(137), _) => Some(()),
        other => panic!("{other:?} at call {n}"),
    }
}

#[test]
fn a_reader_sees_the_old_tree_or_the_new_one_and_the_next_run_converges() {
    let server = Server::new();
    server.publish(&server.archive("one", &[("etc/version", "1"), ("etc/gone", "x")]));
    let two = server.archive("two", &[("etc/version", "2")]);
    let arguments = ["publish", CHANNEL, DEVICE, two.to_str().unwrap()];
    let before = fs::read(server.index_path()).unwrap();
    let mut kills = 0;
    while killed_at(&server, kills + 1, &arguments).is_some() {
        kills += 1;
        server.assert_consistent();
        let now = fs::read(server.index_path()).unwrap();
        if now != before {
            // Killed after the one step: what follows only tidies up.
            break;
        }
    }
    assert!(kills > 20, "only {kills} calls were killed");
    assert_eq!(server.publish(&two), "2");
    server.assert_consistent();
    assert_eq!(server.index()["images"].as_array().unwrap().len(), 3);
    let left: Vec<_> = server
        .snapshot()
        .into_keys()
        .filter(|name| name.ends_with(".new"))
        .collect();
    assert_eq!(left, [] as [&str; 0], "nothing is left over");
}

#[test]
fn setting_up_a_server_can_be_repeated_from_any_point() {
    let place = tempfile::tempdir().unwrap();
    let mut n = 1;
    loop {
        // Every third call, to keep the number of key generations down.
        let root = place.path().join(n.to_string());
        let calls = "rename,renameat2,fsync,symlinkat,mkdir,mkdirat";
        let init = ["init", "--key-type", "ed25519"];
        let program = env!("CARGO_BIN_EXE_system-image-server");
        let status = Command::new("strace")
            .args([
                "--follow-forks",
                "--quiet=all",
                "--output=/dev/null",
                "--trace",
                calls,
            ])
            .arg(format!("--inject={calls}:signal=KILL:when={n}"))
            .args([program, "--root"])
            .arg(&root)
            .args(init)
            .status()
            .unwrap();
        for arguments in [
            &init[..],
            &["channel", "create", "a"],
            &["device", "add", "a", "b"],
        ] {
            let output = Command::new(program)
                .arg("--root")
                .arg(&root)
                .args(arguments)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "after {n}: {}",
                support::stderr(&output)
            );
        }
        if status.success() {
            break;
        }
        n += 3;
    }
    assert!(n > 12, "only {n} calls were killed");
}

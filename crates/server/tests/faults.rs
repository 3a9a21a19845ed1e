//! What goes wrong around the server: a tree that cannot be written, a full disk, a key that is gone.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::{CHANNEL, DEVICE, Server, stderr};

fn published() -> Server {
    let server = Server::new();
    server.publish(&server.archive("one", &[("etc/version", "1")]));
    server.publish(&server.archive("two", &[("etc/version", "22")]));
    server.run(&["channel", "create", "rc"]);
    server.run(&["device", "add", "rc", DEVICE]);
    server
}

/// Runs the program in a mount namespace of its own, after `before` has prepared that.
fn inside(before: &str, directory: &Path, root: &Path, arguments: &[&str]) -> Output {
    Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c"])
        .arg(format!("set -e; {before}; shift; \"$@\""))
        .arg("sh")
        .arg(directory)
        .arg(env!("CARGO_BIN_EXE_system-image-server"))
        .arg("--root")
        .arg(root)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_tree_that_cannot_be_written_is_told_and_stays_as_it_is() {
    let server = published();
    let three = server.archive("three", &[("etc/version", "333")]);
    let read_only = "mount --bind \"$1\" \"$1\"; mount -o remount,ro,bind \"$1\"";
    // A keyring that is signed twice within a second is the same to the byte.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let before = server.snapshot();
    for arguments in [
        &["channel", "create", "x"][..],
        &["channel", "alias", "x", CHANNEL],
        &["channel", "rename", CHANNEL, "x"],
        &["device", "add", CHANNEL, "x"],
        &["publish", CHANNEL, DEVICE, three.to_str().unwrap()],
        &["promote", CHANNEL, "rc", DEVICE],
        &["tag", CHANNEL, DEVICE, "2", "x"],
        &["phase", "set", CHANNEL, DEVICE, "3"],
        &["withdraw", CHANNEL, DEVICE, "2"],
        &["resign", "--all"],
        &["keys", "renew", "image-signing"],
        &["keys", "rotate", "image-signing", "--key-type", "ed25519"],
    ] {
        let output = inside(read_only, &server.www(), &server.root(), arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("hint: run this as the user"),
            "{arguments:?}: {said}"
        );
        assert_eq!(server.snapshot(), before, "{arguments:?}");
    }
    // What only reads works.
    for arguments in [
        &["status"][..],
        &["verify", "--deep"],
        &[
            "publish",
            "--dry-run",
            CHANNEL,
            DEVICE,
            three.to_str().unwrap(),
        ],
    ] {
        let output = inside(read_only, &server.www(), &server.root(), arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
    // The rotation that was begun is finished.
    server.run(&["keys", "rotate", "image-signing", "--key-type", "ed25519"]);
    server.run(&["verify", "--deep"]);
    server.assert_consistent();
}

#[test]
fn a_disk_that_is_full_during_an_import_is_told_and_the_next_one_goes_on() {
    let server = published();
    let noise: String = (0..60_000u32)
        .map(|n| support::hex(&n.to_le_bytes()))
        .collect();
    let large = server.archive("large", &[("etc/version", "3"), ("usr/noise", &noise)]);
    let config = server.root().join("etc/config.d");
    fs::create_dir_all(&config).unwrap();
    let text = format!(
        "[channel_{CHANNEL}]\ntype = auto\nfiles = rootfs, version\nfile_rootfs = tar;{}\nfile_version = version\n",
        large.display()
    );
    fs::write(config.join("a.conf"), text).unwrap();
    let copy = server.place().join("copy");
    fs::create_dir(&copy).unwrap();
    let small = |size: &str| {
        format!(
            "mount -t tmpfs -o size={size} none \"$1\"; cp -a '{}/.' \"$1\"",
            server.root().display()
        )
    };
    let output = inside(&small("5m"), &copy, &copy, &["import"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said} {}", stderr(&output));
    assert!(said.contains("No space left"), "{said}");
    // Twice in the same place: first too little room, then enough.
    let both = format!(
        "{}; \"$2\" --root \"$1\" import > \"$1/said\" || true; mount -o remount,size=64m \"$1\"; \
         \"$2\" --root \"$1\" import > \"$1/said\"; \"$2\" --root \"$1\" verify --deep > \"$1/said\"",
        small("5m")
    );
    let output = inside(&both, &copy, &copy, &["image", "list", CHANNEL, DEVICE]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        said.contains("3: full") && said.contains("3: delta from 2"),
        "{said}"
    );
}

#[test]
fn a_key_that_is_gone_or_foreign_is_told_before_anything_happens() {
    let server = published();
    let three = server.archive("three", &[("etc/version", "333")]);
    let publish = ["publish", CHANNEL, DEVICE, three.to_str().unwrap()];
    let key = server
        .root()
        .join("secret/gpg/keys/image-signing/secret-key.asc");
    let kept = fs::read(&key).unwrap();
    let before = server.snapshot();
    let foreign = server.place().join("foreign.asc");
    server.run(&[
        "keys",
        "generate",
        "image-signing",
        "--key-type",
        "ed25519",
        "--out",
        foreign.to_str().unwrap(),
    ]);
    for (content, want) in [
        (None, "sign_command"),
        (Some(&b"garbage"[..]), "is not usable"),
        (
            Some(&fs::read(&foreign).unwrap()[..]),
            "is not in its keyring",
        ),
    ] {
        match content {
            None => fs::remove_file(&key).unwrap(),
            Some(bytes) => fs::write(&key, bytes).unwrap(),
        }
        let output = server.command(&publish).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(want), "{}", stderr(&output));
        assert_eq!(server.snapshot(), before);
        // Looking needs no key.
        server.run(&["status"]);
        server.run(&["verify", "--deep"]);
    }
    fs::write(&key, kept).unwrap();
    server.run(&publish);
}

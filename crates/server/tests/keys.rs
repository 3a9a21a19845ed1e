//! Key ceremonies, by the real program and GnuPG.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use support::{CHANNEL, DEVICE, Server, copy, killed_at, stderr};

fn published() -> Server {
    let server = Server::new();
    server.publish(&server.archive("one", &[("etc/version", "1")]));
    server.publish(&server.archive("two", &[("etc/version", "22")]));
    server
}

/// The keys of a role: fingerprint and whether it signs.
fn keys(server: &Server, role: &str) -> Vec<(String, bool)> {
    let roles: Value = serde_json::from_str(&server.run(&["keys", "list", "--json"])).unwrap();
    let roles = roles.as_array().unwrap().iter();
    let role = roles.clone().find(|found| found["role"] == role).unwrap();
    let keys = role["keys"].as_array().unwrap().iter();
    keys.map(|key| {
        (
            key["fingerprint"].as_str().unwrap().to_owned(),
            key["signs"].as_bool().unwrap(),
        )
    })
    .collect()
}

fn sound(server: &Server) {
    server.run(&["verify", "--deep"]);
    server.assert_consistent();
}

#[test]
fn a_rotation_signs_everything_anew_and_readers_follow() {
    let server = published();
    let old = keys(&server, "image-signing")[0].0.clone();
    let before = server.snapshot();
    server.run(&["keys", "rehearse", "image-signing"]);
    server.run(&[
        "keys",
        "rotate",
        "image-signing",
        "--dry-run",
        "--key-type",
        "ed25519",
    ]);
    assert_eq!(server.snapshot(), before);
    assert_eq!(
        keys(&server, "image-signing"),
        [(old.clone(), true)],
        "a rehearsal changes nothing"
    );

    server.run(&["keys", "rotate", "image-signing", "--key-type", "ed25519"]);
    let both = keys(&server, "image-signing");
    assert_eq!(
        (both.len(), &both[0], both[1].1),
        (2, &(old.clone(), false), true)
    );
    sound(&server);
    // Only the new key signs now.
    server.run(&["keys", "retire", "image-signing", &old]);
    assert_eq!(keys(&server, "image-signing"), [both[1].clone()]);
    sound(&server);
    // Then the old one can be refused everywhere.
    let retired = server
        .root()
        .join(format!("secret/gpg/keys/image-signing/retired-{old}.asc"));
    let public = public_of(&server, &retired);
    server.run(&["keys", "blacklist", "add", public.to_str().unwrap()]);
    assert_eq!(server.run(&["keys", "blacklist", "list"]).trim(), old);
    assert!(server.www().join("gpg/blacklist.tar.xz.asc").exists());
    sound(&server);
    let current = server
        .root()
        .join("secret/gpg/keys/image-signing/secret-key.asc");
    let output = server
        .command(&["keys", "blacklist", "add"])
        .arg(public_of(&server, &current))
        .output()
        .unwrap();
    assert!(stderr(&output).contains("rotate"), "{}", stderr(&output));
    server.run(&["keys", "blacklist", "remove", &old]);

    server.run(&[
        "keys",
        "rotate",
        "image-master",
        "--key-type",
        "ed25519",
        "--retire",
    ]);
    assert_eq!(keys(&server, "image-master").len(), 1);
    sound(&server);
    server.publish(&server.archive("three", &[("etc/version", "333")]));
    sound(&server);
}

/// The public part of a secret key, by GnuPG.
fn public_of(server: &Server, secret: &Path) -> PathBuf {
    // A home of its own: an agent that still listens in an old one would answer for it.
    let stem = secret.file_stem().unwrap().to_str().unwrap();
    let home = gnupg_home(server, &format!("x{}", stem.len()), Some(secret));
    let place = server.place().join(format!(
        "{}.gpg",
        secret.file_stem().unwrap().to_str().unwrap()
    ));
    let output = gpg(&home, &["--export", "--armor"]);
    fs::write(&place, output).unwrap();
    place
}

fn gnupg_home(server: &Server, name: &str, import: Option<&Path>) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    // Agents listen on sockets, whose names must be short.
    let home = server.place().join(name);
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    if let Some(key) = import {
        gpg(&home, &["--import", key.to_str().unwrap()]);
    }
    home
}

fn gpg(home: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("gpg")
        .arg("--homedir")
        .arg(home)
        .args([
            "--batch",
            "--quiet",
            "--passphrase",
            "",
            "--pinentry-mode",
            "loopback",
        ])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        stderr(&output)
    );
    output.stdout
}

#[test]
fn a_rotation_can_be_killed_anywhere_and_is_finished_by_the_next_run() {
    let server = published();
    let rotate = ["keys", "rotate", "image-signing", "--key-type", "ed25519"];
    let saved = server.place().join("saved");
    copy(&server.root(), &saved);
    let mut kills = 0;
    for calls in ["?rename", "?renameat,?renameat2", "?symlink,symlinkat"] {
        let mut n = 1;
        let root = server.root();
        let root = ["--root", root.to_str().unwrap()];
        while killed_at(calls, n, root.iter().chain(&rotate)) {
            // Readers with the published keyring verify all that is visible.
            server.assert_consistent();
            server.run(&rotate);
            let keys = keys(&server, "image-signing");
            assert_eq!(
                (keys.len(), keys[1].1),
                (2, true),
                "after {calls} {n}: {keys:?}"
            );
            sound(&server);
            kills += 1;
            n += 1;
            copy(&saved, &server.root());
        }
        copy(&saved, &server.root());
    }
    assert!(kills > 20, "only {kills} calls were killed");
}

#[test]
fn an_archive_master_changes_only_when_devices_have_the_new_one() {
    let server = published();
    let old = keys(&server, "archive-master")[0].0.clone();
    let said = server.run(&["keys", "rotate", "archive-master", "--key-type", "ed25519"]);
    assert!(said.contains("signs nothing yet"), "{said}");
    let both = keys(&server, "archive-master");
    assert_eq!((both.len(), &both[0]), (2, &(old.clone(), true)));
    sound(&server);
    server.run(&["keys", "retire", "archive-master", &old]);
    assert_eq!(keys(&server, "archive-master"), [(both[1].0.clone(), true)]);
    sound(&server);
}

#[test]
fn keys_may_live_in_gnupg_or_behind_a_command() {
    let server = published();
    // The home of an original server: its image-signing key, and nothing of ours.
    let home = server.root().join("secret/gpg/keys/image-signing");
    let secret = home.join("secret-key.asc");
    let elsewhere = server.place().join("elsewhere.asc");
    fs::copy(&secret, &elsewhere).unwrap();
    fs::remove_dir_all(&home).unwrap();
    gnupg_home(
        &server,
        "server/secret/gpg/keys/image-signing",
        Some(&elsewhere),
    );
    server.publish(&server.archive("three", &[("etc/version", "333")]));
    sound(&server);
    let roles: Value = serde_json::from_str(&server.run(&["keys", "list", "--json"])).unwrap();
    assert_eq!(roles[2]["signer"], "gnupg");

    // No key on this host at all.
    fs::remove_dir_all(&home).unwrap();
    let remote = gnupg_home(&server, "r", Some(&elsewhere));
    let script = server.place().join("sign");
    let text = format!(
        "[ $SYSTEM_IMAGE_ROLE = image-signing ] && exec gpg --homedir {} --batch --armor --detach-sign -o -",
        remote.display()
    );
    fs::write(&script, text).unwrap();
    let config = server.root().join("etc/config.d");
    fs::create_dir_all(&config).unwrap();
    let line = |command: &str| {
        fs::write(
            config.join("sign.conf"),
            format!("[global]\nsign_command_image-signing = {command}\n"),
        )
        .unwrap();
    };
    line(&format!("sh {}", script.display()));
    server.publish(&server.archive("four", &[("etc/version", "4444")]));
    sound(&server);
    // A command that fails, prints nothing, or signs something else, publishes nothing.
    let five = server.archive("five", &[("etc/version", "55555")]);
    for (command, want) in [
        ("false", "ended with"),
        ("cat > /dev/null", "made no signature"),
        ("cat > /dev/null; echo x", "cannot sign"),
        (
            &*format!("cat > /dev/null; echo y | sh {}", script.display()),
            "not signed by",
        ),
    ] {
        line(command);
        let before = fs::read(server.index_path()).unwrap();
        let output = server
            .command(&["publish", CHANNEL, DEVICE, five.to_str().unwrap()])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(
            said.contains(want) || said.contains("signed elsewhere"),
            "{command}: {said}"
        );
        assert_eq!(fs::read(server.index_path()).unwrap(), before);
    }
}

#[test]
fn a_device_keyring_is_made_attached_and_taken_away() {
    let server = published();
    let key = server.place().join("maker.asc");
    server.run(&[
        "keys",
        "generate",
        "device-signing",
        "--key-type",
        "ed25519",
        "--out",
        key.to_str().unwrap(),
    ]);
    let public = server.place().join("maker.gpg");
    let report = server.command(&["keys", "expire-report"]).output().unwrap();
    assert!(report.status.success());
    server.run(&[
        "keys",
        "device",
        DEVICE,
        public.to_str().unwrap(),
        "--attach",
        CHANNEL,
    ]);
    let channels: Value =
        serde_json::from_slice(&fs::read(server.www().join("channels.json")).unwrap()).unwrap();
    let path = format!("/{CHANNEL}/{DEVICE}/device.tar.xz");
    assert_eq!(
        channels[CHANNEL]["devices"][DEVICE]["keyring"],
        json!({"path": path, "signature": format!("{path}.asc")})
    );
    server.run(&["verify", "--deep"]);
    let report = server
        .command(&["keys", "expire-report", "--days", "40"])
        .output()
        .unwrap();
    assert_eq!(report.status.code(), Some(1), "it ends in a month");
    assert!(String::from_utf8_lossy(&report.stdout).contains("keys device tango"));
    // The model is the device's name: no other device takes it.
    server.run(&["device", "add", CHANNEL, "bravo"]);
    let archive = server.www().join(&path[1..]);
    let output = server
        .command(&[
            "device",
            "keyring",
            CHANNEL,
            "bravo",
            archive.to_str().unwrap(),
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    server.run(&["device", "keyring", CHANNEL, DEVICE, "--unset"]);
    server.run(&["device", "keyring", CHANNEL, DEVICE, "--path", &path]);
    server.run(&["device", "keyring", CHANNEL, DEVICE, "--unset"]);
    server.run(&["gc", "--grace", "0"]);
    assert!(!archive.exists());
    sound(&server);
}

#[test]
fn an_expired_keyring_is_told_and_renewed() {
    let server = published();
    let now = |server: &Server, arguments: &[&str], date: &str| {
        let mut command = Command::new("faketime");
        command
            .arg(date)
            .arg(env!("CARGO_BIN_EXE_system-image-server"))
            .arg("--root")
            .arg(server.root())
            .args(arguments);
        command.output().unwrap()
    };
    let later = "+1000 days";
    let three = server.archive("three", &[("etc/version", "333")]);
    let before = server.snapshot();
    let output = now(
        &server,
        &["publish", CHANNEL, DEVICE, three.to_str().unwrap()],
        later,
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("expired"), "{}", stderr(&output));
    assert_eq!(server.snapshot(), before);
    let output = now(&server, &["keys", "expire-report", "--json"], later);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ends"].as_array().unwrap().len(), 2, "{report}");
}

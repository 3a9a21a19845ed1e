//! What survives a run: what is prepared, what became of it, what was chosen.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use camino::Utf8PathBuf;
use system_image_testkit::{Device, Keys, Published};

use support::{prepared, run, succeed};

/// Where the upgrader says how it ended: beside the drop box.
fn result(device: &Device) -> Utf8PathBuf {
    device.drop_box().with_file_name("system-image-result.json")
}

fn last(device: &Device) -> String {
    let history = succeed(device, &["--history"]);
    history.lines().last().unwrap().to_owned()
}

#[test]
fn a_prepared_update_is_verified_and_a_damaged_one_is_mended_by_the_next_run() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    assert_eq!(
        succeed(&device, &["--history"]),
        "nothing has happened yet\n"
    );
    assert!(succeed(&device, &["--status"]).contains("prepared: nothing\n"));
    succeed(&device, &["-p", "0", "-g"]);
    let good = "prepared: version 7 of stable, every file verified\n";
    assert!(succeed(&device, &["--status"]).contains(good));
    assert!(last(&device).ends_with(" prepared stable 0 -> 7"));

    let payload = device.drop_box().join("ubuntu-7.full.tar.xz");
    let mut bytes = fs::read(&payload).unwrap();
    bytes[1000] ^= 1;
    fs::write(&payload, bytes).unwrap();
    let status = succeed(&device, &["--status"]);
    assert!(status.contains("prepared: unusable, "), "{status}");
    let ran = run(&device, &["--apply"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("ubuntu-7.full.tar.xz"), "{}", ran.err);

    succeed(&device, &["-p", "0", "-g"]);
    assert!(succeed(&device, &["--status"]).contains(good));
    // Without a network, days later.
    drop(web);
    succeed(&device, &["--apply"]);
    assert!(last(&device).ends_with(" handed over stable 0 -> 7"));
}

#[test]
fn after_the_restart_it_is_said_what_became_of_the_update() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).at_version(5).served_by(&web);
    succeed(&device, &["-p", "0"]);
    let status = succeed(&device, &["--status"]);
    assert!(status.contains("handed over: version 7"), "{status}");
    let refusal = r#"{"outcome": "refused", "reason": ["no key", "none at all"], "files": []}"#;
    fs::write(result(&device), refusal).unwrap();
    let status = succeed(&device, &["--status"]);
    assert!(
        status.contains(" failed stable 5 -> 7: no key: none at all\n"),
        "{status}"
    );

    succeed(&device, &["-p", "0"]);
    fs::remove_file(result(&device)).unwrap();
    device.installed("stable", 7, "");
    let status = succeed(&device, &["--status"]);
    assert!(status.contains(" installed stable 5 -> 7\n"), "{status}");
    assert!(
        status.starts_with("installed: version 7 of stable\n"),
        "{status}"
    );
}

#[test]
fn a_switch_is_kept_until_an_image_has_brought_it_and_leaves_nothing_of_the_old_channel() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7).alias("devel");
    let web = tree.serve();
    let device = Device::new(&keys).at_version(5).served_by(&web);
    succeed(&device, &["-p", "0", "-g"]);
    // Only looking is no choice.
    succeed(&device, &["-p", "0", "-n", "--switch", "devel"]);
    assert!(!succeed(&device, &["--status"]).contains("chosen"));

    succeed(&device, &["-p", "0", "-g", "--switch", "devel"]);
    let status = succeed(&device, &["--status"]);
    assert!(
        status.contains("chosen: devel, starting from version 0\n"),
        "{status}"
    );
    assert!(status.contains("prepared: version 7 of devel"), "{status}");
    // What is installed is what it was.
    assert!(succeed(&device, &["--info"]).contains("channel: stable\n"));
    succeed(&device, &["-p", "0", "-g"]);
    assert!(succeed(&device, &["--status"]).contains("prepared: version 7 of devel"));

    device.installed("devel", 7, "");
    let status = succeed(&device, &["--status"]);
    assert!(!status.contains("chosen"), "{status}");
}

#[test]
fn a_switch_that_finds_no_update_leaves_nothing_of_the_old_channel_either() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7).alias("devel");
    let web = tree.serve();
    let device = Device::new(&keys).at_version(5).served_by(&web);
    succeed(&device, &["-p", "0", "-g"]);
    // Explicit options win, so there is nothing newer.
    let options = [
        "-p", "0", "-g", "--switch", "stable", "-c", "devel", "-b", "7",
    ];
    succeed(&device, &options);
    let status = succeed(&device, &["--status"]);
    let chosen = "chosen: devel, starting from version 7\n";
    assert!(status.contains(chosen), "{status}");
    assert!(status.contains("prepared: nothing\n"), "{status}");
    assert!(
        last(&device).ends_with(" switched devel"),
        "{}",
        last(&device)
    );
    assert!(prepared(&device).is_none());
    assert_eq!(run(&device, &["--apply"]).code, Some(1));
}

#[test]
fn a_channel_that_the_server_does_not_have_is_not_chosen() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).at_version(5).served_by(&web);
    succeed(&device, &["-p", "0", "-g"]);
    let ran = run(&device, &["-p", "0", "-g", "--switch", "nowhere"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("no channel `nowhere`"), "{}", ran.err);
    let status = succeed(&device, &["--status"]);
    assert!(!status.contains("chosen"), "{status}");
    assert!(status.contains("prepared: version 7 of stable"), "{status}");
}

#[test]
fn records_that_may_not_be_read_are_not_taken_for_none() {
    let keys = Keys::generate();
    let device = Device::new(&keys);
    let state = device.path("data/state");
    fs::create_dir_all(&state).unwrap();
    let mode = |mode| fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o700);
    // Whoever comes from outside reaches the rest of the device.
    let place = device.path("");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    for option in ["--status", "--history"] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "nobody", "--clear-groups"]);
        command.arg(env!("CARGO_BIN_EXE_system-image-cli"));
        let output = command
            .args(["-C", device.config().as_str(), option])
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        if err.starts_with("setpriv") {
            eprintln!("not tested: only root may run as another user");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(
            err.starts_with("error: cannot read `") && err.contains("hint: "),
            "{err}"
        );
    }
}

#[test]
fn records_that_are_broken_are_as_if_they_were_not_there() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    succeed(&device, &["-p", "0"]);
    let state = device.path("data/state");
    for entry in state.read_dir_utf8().unwrap() {
        fs::write(entry.unwrap().path(), b"{\"at\": \xff").unwrap();
    }
    assert!(succeed(&device, &["--status"]).contains("prepared: nothing\n"));
    assert_eq!(
        succeed(&device, &["--history"]),
        "nothing has happened yet\n"
    );
    succeed(&device, &["-p", "0"]);
    assert!(succeed(&device, &["--status"]).contains("prepared: version 7"));
}

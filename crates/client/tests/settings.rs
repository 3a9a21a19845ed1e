//! The settings options and the resets (client spec, sections 2.2, 2.7 and 14).

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use system_image_testkit::{Device, Keys, Published};

use support::{run, succeed};

#[test]
fn settings_are_stored_shown_and_deleted() {
    let device = Device::new(&Keys::generate());
    assert_eq!(succeed(&device, &["--show-settings"]), "");
    assert_eq!(succeed(&device, &["--get", "auto_download"]), "1\n");
    assert_eq!(
        succeed(&device, &["--get", "x", "--get", "auto_download"]),
        "\n1\n"
    );
    assert_eq!(
        succeed(&device, &["--set", "x=a=b", "--set", "auto_download=any"]),
        ""
    );
    assert_eq!(
        succeed(&device, &["--show-settings"]),
        "auto_download=any\nx=a=b\n"
    );
    assert_eq!(succeed(&device, &["--del", "x", "--del", "nothing"]), "");
    assert_eq!(succeed(&device, &["--get", "x"]), "\n");
    let json = succeed(&device, &["--show-settings", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let want = serde_json::json!({"schema": 1, "settings": {"auto_download": "any"}});
    assert_eq!(json, want);
}

#[test]
fn wrong_uses_of_settings_are_errors_of_usage() {
    let device = Device::new(&Keys::generate());
    let mixed = "Cannot mix and match settings arguments";
    for (options, why) in [
        (&["--get", "x", "--set", "x=1"][..], mixed),
        (&["--show-settings", "--del", "x"], mixed),
        (&["--set", "x"], "--set takes KEY=VAL, not: x"),
        (
            &["--set", "y=1", "--set", "x"],
            "--set takes KEY=VAL, not: x",
        ),
    ] {
        let ran = run(&device, options);
        assert_eq!(ran.code, Some(2), "{options:?}");
        let line = format!("system-image-cli: error: {why}\n");
        assert!(ran.err.ends_with(&line), "{}", ran.err);
    }
    assert_eq!(
        succeed(&device, &["--get", "y"]),
        "\n",
        "nothing of it was stored"
    );
}

#[test]
fn resets_replace_what_is_prepared_and_run_the_hook() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    for (option, commands) in [
        ("--factory-reset", "format data\n"),
        ("--production-reset", "format data\nenable factory_wipe\n"),
    ] {
        succeed(&device, &["-p", "0"]);
        assert_ne!(device.command_file().unwrap(), commands);
        assert_eq!(succeed(&device, &[option]), "");
        assert_eq!(device.command_file().unwrap(), commands);
        let status = succeed(&device, &["--status"]);
        assert!(status.contains("prepared: nothing\n"), "{status}");
    }
}

#[test]
fn a_hook_of_the_integrators_own_gets_the_command_file_and_its_failure_is_told() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let (hook, seen) = (device.path("hook"), device.path("seen"));
    let script = format!("#!/bin/sh\ncp \"$1\" {seen}\n");
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    device.configure("50_hook.ini", &format!("[hooks]\napply: {hook}\n"));
    succeed(&device, &["-p", "0"]);
    assert_eq!(
        fs::read_to_string(&seen).unwrap(),
        device.command_file().unwrap()
    );

    fs::write(&hook, "#!/bin/sh\nexit 5\n").unwrap();
    let ran = run(&device, &["--apply"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("hook") && ran.err.contains("exit status: 5"),
        "{}",
        ran.err
    );
    let history = succeed(&device, &["--history"]);
    assert!(
        history.lines().last().unwrap().contains(" failed stable "),
        "{history}"
    );
    // It is still prepared.
    let status = succeed(&device, &["--status"]);
    assert!(
        status.contains("prepared: version 7 of stable, every file verified"),
        "{status}"
    );
}

#[test]
fn without_verification_anything_is_taken_and_that_is_said() {
    let keys = Keys::generate();
    let stranger = Keys::generate();
    let tree = Published::new(&stranger).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    assert_eq!(run(&device, &["-p", "0", "-n"]).code, Some(1));
    let ran = run(&device, &["-p", "0", "-n", "--skip-gpg-verification"]);
    assert_eq!(
        (ran.code, &*ran.out),
        (Some(0), "Upgrade path is 7\nTarget phase: 0%\n")
    );
    assert_eq!(
        ran.err,
        "WARNING: All GPG signature verifications have been disabled.\n\
         Your upgrades are INSECURE.\n"
    );
    let ran = run(&device, &["-p", "0", "-g", "--skip-gpg-verification"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(device.command_file().is_some());
}

//! What finds nothing proves nothing: an upgrader that forgets its command file too early is found
//! out, and what was found can be found again.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Installs full images, and verifies nothing. The shell itself reads the settings, as an upgrader
/// would.
const FORGETFUL: &str = r#"#!/bin/sh
set -e
: < "$2"
root=$(sed -n 's/^\(directory\|mountpoint\) = "\(.*\)"$/\2/p' "$2")
device=$(sed -n 's/^device = "\(\/.*\)"$/\1/p' "$2")
files=$(sed -n 's/^update \([^ ]*\) .*/\1/p' "$3")
rm "$3"
sync "$(dirname "$3")"
if [ -n "$device" ]; then
    mkfs.ext4 -q -F "$device"
    mount "$device" "$root"
else
    find "$root" -mindepth 1 -delete
fi
for file in $files; do
    tar -C "$root" --strip-components=1 -xf "$(dirname "$3")/$file"
done
[ -z "$device" ] || umount "$root"
"#;

fn cuts(directory: &Path, arguments: &[&str]) -> Output {
    let upgrader = directory.join("upgrader");
    if !upgrader.exists() {
        fs::write(&upgrader, FORGETFUL).unwrap();
        fs::set_permissions(&upgrader, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Command::new(env!("CARGO_BIN_EXE_system-image-cuts"))
        .arg("--upgrader")
        .arg(upgrader)
        .arg("--kept")
        .arg(directory.join("kept"))
        .args(["--json", "--short"])
        .args(arguments)
        .output()
        .unwrap()
}

/// The states that failed.
fn failed(output: &Output) -> Vec<u64> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let summary: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    let failures = summary["failures"].as_array().unwrap();
    let states = failures
        .iter()
        .map(|failure| failure["state"].as_u64().unwrap());
    states.collect()
}

fn is_found_out_again_and_again(suite: &str) {
    let directory = tempfile::tempdir().unwrap();
    let output = cuts(directory.path(), &["--only", suite]);
    let states = failed(&output);
    assert!(!states.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    let state = states[0].to_string();
    let repeat = format!("--only {suite} --state {state} --seed 1");
    assert!(said.contains(&repeat), "{said}");
    let again = cuts(directory.path(), &["--only", suite, "--state", &state]);
    assert_eq!(failed(&again), [states[0]]);
}

#[test]
fn an_upgrader_that_forgets_its_command_file_is_found_out_when_it_is_killed() {
    is_found_out_again_and_again("full/directory/kill");
}

#[test]
fn an_upgrader_that_forgets_its_command_file_is_found_out_by_a_power_cut() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: there is no disk whose power could fail, so it is not tested");
        return;
    }
    is_found_out_again_and_again("full/disk/power-lazy");
}

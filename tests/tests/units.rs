//! The units of `dist` are such as systemd takes.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All units, with programs that exist on this machine.
fn units(place: &Path) -> Vec<PathBuf> {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist");
    let programs = system_image_tests::programs();
    let mut units = Vec::new();
    for entry in fs::read_dir(dist).unwrap() {
        let from = entry.unwrap().path();
        let unit = matches!(
            from.extension().and_then(|kind| kind.to_str()),
            Some("service" | "socket" | "timer")
        );
        if !unit {
            continue;
        }
        let text = fs::read_to_string(&from).unwrap();
        let to = place.join(from.file_name().unwrap());
        fs::write(
            &to,
            text.replace("=/usr/bin", &format!("={}", programs.display())),
        )
        .unwrap();
        units.push(to);
    }
    units
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let units = units(place.path());
    assert!(units.len() >= 2, "{units:?}");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&units)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = told
        .lines()
        .filter(|line| line.contains("system-image"))
        .collect();
    assert!(output.status.success() && ours.is_empty(), "{told}");
}

#[test]
fn a_service_may_write_nowhere_but_to_the_servers_directory() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/system-image-import.service");
    let text = fs::read_to_string(dist).unwrap();
    for line in [
        "ProtectSystem=strict",
        "ReadWritePaths=/srv/system-image",
        "NoNewPrivileges=yes",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

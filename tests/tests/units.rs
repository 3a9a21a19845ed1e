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
            Some("service" | "socket" | "timer" | "path")
        );
        if !unit {
            continue;
        }
        let text = fs::read_to_string(&from).unwrap();
        let to = place.join(from.file_name().unwrap());
        let here = format!("={}", programs.display());
        let text = text
            .replace("=/usr/bin", &here)
            .replace("=/usr/sbin", &here);
        fs::write(&to, text).unwrap();
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

/// What the bus and polkit read: the actions that the service asks for, and nothing that only looks
/// like XML.
#[test]
fn the_bus_and_polkit_know_the_service() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist");
    let read = |name: &str| fs::read_to_string(dist.join(name)).unwrap();
    let activation = read("dbus-1/com.canonical.SystemImage.service");
    for line in [
        "Name=com.canonical.SystemImage",
        "Exec=/usr/sbin/system-image-dbus",
        "User=root",
        "SystemdService=system-image-dbus.service",
    ] {
        assert!(activation.lines().any(|found| found == line), "{line}");
    }
    let policy = read("polkit-1/com.canonical.SystemImage.policy");
    for action in ["download", "configure", "apply", "reset"] {
        let action = format!("<action id=\"com.canonical.SystemImage.{action}\">");
        assert!(policy.contains(&action), "{action}");
    }
    for name in [
        "dbus-1/com.canonical.SystemImage.conf",
        "dbus-1/system-image-downloader.conf",
        "polkit-1/com.canonical.SystemImage.policy",
    ] {
        let parse = "import sys, xml.dom.minidom as m; m.parse(sys.argv[1])";
        let mut python = Command::new("python3");
        let parsed = python.args(["-c", parse]).arg(dist.join(name)).status();
        assert!(parsed.unwrap().success(), "{name}");
    }
}

/// Both names of the download service are started on both buses; on the system's only root may call.
#[test]
fn the_buses_know_the_download_service() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist");
    let read = |name: String| fs::read_to_string(dist.join(name)).unwrap();
    let policy = read("dbus-1/system-image-downloader.conf".into());
    for family in ["canonical", "lomiri"] {
        let name = format!("com.{family}.applications.Downloader");
        for (place, own) in [
            ("dbus-1", "User=root"),
            ("dbus-1/session-services", "AssumedAppArmorLabel=unconfined"),
        ] {
            let activation = read(format!("{place}/{name}.service"));
            for line in [
                &format!("Name={name}"),
                "Exec=/usr/bin/system-image-downloader",
                "SystemdService=system-image-downloader.service",
                own,
            ] {
                assert!(activation.lines().any(|found| found == line), "{line}");
            }
        }
        let denied = format!("<deny send_destination=\"{name}\"/>");
        assert!(policy.contains(&denied), "{denied}");
    }
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

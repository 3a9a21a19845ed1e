//! Images for partitions and payloads for user data, which archives bring beside the system.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]
#![allow(
    clippy::unnecessary_debug_formatting,
    reason = "a path in quotes is a string of TOML"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::{Device, device, outcome};
use system_image_testkit::LoopDevice;
use system_image_testkit::tree::{Tree, snapshot};

/// A tree with these members beside the system.
fn with(members: &[(&str, &[u8])]) -> Tree {
    let mut tree = Tree::new().dir("etc").file("etc/build", "1\n");
    for (number, (path, content)) in members.iter().enumerate() {
        let name = format!("member{number}");
        tree = tree
            .file(&name, *content)
            .with(&name, |header| header.path = path.as_bytes().to_vec());
    }
    tree
}

/// A device with files that stand for its partitions.
fn with_partitions(way: &str) -> Device {
    let device = device();
    let path = |name: &str| device.path(name);
    for (name, size) in [("boot", 4096), ("recovery", 4096), ("logo", 100)] {
        fs::write(path(name), vec![0; size]).unwrap();
    }
    device.configure(&format!(
        "directory = {:?}\nway = {way:?}\n[partitions]\nboot = {:?}\nrecovery = {:?}\nlogo = {:?}\ngone = \"/nowhere\"",
        device.system(),
        path("boot"),
        path("recovery"),
        path("logo"),
    ));
    device
}

#[test]
fn images_are_written_to_the_partitions_of_their_names_and_the_recovery_last() {
    for way in ["auto", "direct"] {
        let device = with_partitions(way);
        device.full(&with(&[
            ("partitions/recovery.img", b"a recovery"),
            ("partitions/boot.img", b"a kernel"),
            ("partitions/unknown.img", b"of another device"),
            ("partitions/boot.txt", b"no image"),
        ]));
        let output = device.upgrade_well();
        let log = String::from_utf8_lossy(&output.stderr);
        let at = |words: &str| log.find(words).unwrap_or_else(|| panic!("{words}: {log}"));
        assert!(at("writing the partition boot") < at("writing the partition recovery"));
        at("left out `partitions/unknown.img`");
        at("left out `partitions/boot.txt`");
        assert!(
            fs::read(device.path("boot"))
                .unwrap()
                .starts_with(b"a kernel\0")
        );
        assert!(
            fs::read(device.path("recovery"))
                .unwrap()
                .starts_with(b"a recovery\0")
        );
        assert!(
            !device.path("data/.system-image").exists(),
            "nothing is left"
        );
        // The same again is not written again.
        device.full(&with(&[("partitions/boot.img", b"a kernel")]));
        let output = device.upgrade_well();
        assert!(String::from_utf8_lossy(&output.stderr).contains("`boot` is as it should be"));
        let steps = outcome(&device)["steps"].clone();
        let steps = steps.as_array().unwrap();
        let boot = steps
            .iter()
            .find(|step| step["step"] == "writing the partition boot");
        assert_eq!(boot.unwrap()["bytes"], 0);
    }
}

#[test]
fn an_image_that_does_not_fit_is_refused_before_anything_is_changed() {
    for way in ["auto", "direct"] {
        for (member, words) in [
            ("partitions/logo.img", "its partition only"),
            ("partitions/gone.img", "/nowhere"),
        ] {
            let device = with_partitions(way);
            fs::write(device.system().join("old"), "").unwrap();
            let before = snapshot(&device.system());
            device.full(&with(&[
                ("partitions/boot.img", b"a kernel"),
                (member, &[1; 101]),
            ]));
            let output = device.upgrade();
            let log = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{log}");
            assert!(log.contains(words), "{words}: {log}");
            assert_eq!(snapshot(&device.system()).len(), before.len());
            assert_eq!(fs::read(device.path("boot")).unwrap(), vec![0; 4096]);
            assert!(
                !device.path("data/.system-image").exists(),
                "nothing is left"
            );
        }
    }
}

#[test]
fn a_partition_in_use_is_not_written_to() {
    let Some(partition) = LoopDevice::attach(8 << 20) else {
        eprintln!("not root: there is no partition, so it is not tested");
        return;
    };
    let made = std::process::Command::new("mkfs.ext4")
        .args(["-q", &partition.path])
        .status();
    assert!(made.unwrap().success());
    let mountpoint = tempfile::tempdir().unwrap();
    partition.mount(mountpoint.path());
    let device = device();
    device.configure(&format!(
        "directory = {:?}\n[partitions]\nvendor = {:?}",
        device.system(),
        partition.path
    ));
    device.full(&with(&[("partitions/vendor.img", b"x")]));
    let output = device.upgrade();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("hint: it is in use"), "{log}");
}

#[test]
fn a_payload_is_merged_into_user_data_hidden_files_and_modes_included() {
    for way in ["auto", "direct"] {
        let device = with_partitions(way);
        fs::create_dir_all(device.path("data/apps/own")).unwrap();
        fs::write(device.path("data/apps/shipped"), "old").unwrap();
        device.full(&with(&[
            ("data/apps/shipped", b"new"),
            ("data/.hidden", b"h"),
            ("data/deep/er/x", b"x"),
        ]));
        device.upgrade_well();
        let read = |path: &str| fs::read_to_string(device.path(path)).unwrap();
        assert_eq!(read("data/apps/shipped"), "new");
        assert_eq!(
            (read("data/.hidden"), read("data/deep/er/x")),
            ("h".into(), "x".into())
        );
        assert!(device.path("data/apps/own").is_dir());
        let mode = fs::metadata(device.path("data/.hidden"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o644);
        assert!(
            !device.path("data/.system-image").exists(),
            "nothing is left"
        );
    }
}

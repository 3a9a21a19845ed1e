//! Factory reset, production reset, and what a flasher switches on a wiped device.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]
#![allow(
    clippy::unnecessary_debug_formatting,
    reason = "a path in quotes is a string of TOML"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::{Device, device, outcome};
use system_image_formats::keyring::KeyringType;
use system_image_testkit::tree::{Tree, snapshot};

const BLACKLIST: &str = "data/system-data/var/lib/system-image/blacklist.tar.xz";
const USB: &str = "data/android-data/property/persist.sys.usb.config";

fn one() -> Tree {
    Tree::new().dir("etc").file("etc/build", "1\n")
}

/// A device in use: a system, somebody's data, a blacklist.
fn in_use() -> Device {
    let device = device();
    device.full(&one());
    device.upgrade_well();
    for path in [
        "data/user-data/phablet/photo",
        "data/.writable_image",
        "data/.hidden/x",
        "data/system-data/var/lib/system-image/other",
        "data/cache/left",
        "data/android-data/cache/left",
        "data/android-data/x",
        "data/kept/by/settings",
    ] {
        fs::create_dir_all(device.path(path).parent().unwrap()).unwrap();
        fs::write(device.path(path), path).unwrap();
    }
    device.drop_keyring(KeyringType::Blacklist);
    for end in ["", ".asc"] {
        let from = device.path(&format!("cache/recovery/blacklist.tar.xz{end}"));
        fs::rename(from, device.path(&format!("{BLACKLIST}{end}"))).unwrap();
    }
    let settings = format!(
        "directory = {:?}\n[reset]\nkeep = [\"kept/by\"]",
        device.system()
    );
    device.configure(&settings);
    device
}

/// All files below user data.
fn left(device: &Device) -> Vec<String> {
    fn files(at: &std::path::Path, below: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
            let path = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                files(&entry.path(), &format!("{path}/"), found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    files(&device.path("data"), "", &mut found);
    found.sort();
    found
}

#[test]
fn a_factory_reset_leaves_the_system_what_must_last_and_nothing_else() {
    let device = in_use();
    let before = snapshot(&device.system());
    let dated = fs::metadata(device.path("data/.last_update"))
        .unwrap()
        .modified()
        .unwrap();
    device.command("format data\n");
    device.upgrade_well();
    assert_eq!(
        left(&device),
        [
            ".last_update",
            "android-data/cache/left",
            "android-data/property/persist.sys.usb.config",
            "cache/left",
            "kept/by/settings",
            "system-data/var/lib/system-image/blacklist.tar.xz",
            "system-data/var/lib/system-image/blacklist.tar.xz.asc",
        ]
    );
    assert_eq!(fs::read(device.path(USB)).unwrap(), b"mtp");
    let mode = |path: &str| {
        fs::metadata(device.path(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(
        (mode(USB), mode("data/android-data/property")),
        (0o600, 0o700)
    );
    assert_eq!(snapshot(&device.system()).len(), before.len());
    assert_eq!(device.dropped(), [] as [&str; 0]);
    assert_eq!(outcome(&device)["outcome"], "installed");
    assert!(
        fs::metadata(device.path("data/.last_update"))
            .unwrap()
            .modified()
            .unwrap()
            >= dated
    );
    // It may be repeated.
    device.command("format data\nunmount system\n");
    device.upgrade_well();
}

#[test]
fn a_production_reset_leaves_its_mark() {
    let device = in_use();
    device.command("format data\nenable factory_wipe\n");
    device.upgrade_well();
    assert_eq!(fs::read(device.path("data/.factory_wipe")).unwrap(), b"");
    assert!(!device.path("data/user-data").exists());
}

#[test]
fn what_cannot_be_deleted_at_first_does_not_end_a_reset_half_way() {
    let device = in_use();
    let stubborn = device.path("data/.hidden/x");
    let made = Command::new("chattr").args(["+i"]).arg(&stubborn).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("nothing can be made immutable here, so it is not tested");
        return;
    }
    device.command("format data\n");
    device.upgrade_well();
    assert!(!stubborn.exists());
}

#[test]
fn a_blacklisted_key_stays_blacklisted_after_a_reset() {
    let device = in_use();
    let (archive, signature) = support::blacklist_of_signing_key(&device);
    fs::write(device.path(BLACKLIST), archive).unwrap();
    fs::write(device.path(&format!("{BLACKLIST}.asc")), signature).unwrap();
    device.command("format data\n");
    device.upgrade_well();
    device.full(&one());
    let output = device.upgrade();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("blacklist"));
}

#[test]
fn a_flashers_file_wipes_installs_and_opens_the_device() {
    let device = in_use();
    device.drop_file("adbkey.pub", "a key\n");
    device.full(&one().file("etc/build", "2\n"));
    let text = fs::read_to_string(device.command_file()).unwrap();
    let text = text.replace(
        "unmount system\n",
        "enable developer_mode\nenable adb_keys /home/me/adbkey.pub\nenable adb_onlock\nunmount system",
    );
    device.command(&format!("format data\n{text}"));
    device.upgrade_well();
    assert_eq!(fs::read(device.system().join("etc/build")).unwrap(), b"2\n");
    assert_eq!(fs::read(device.path(USB)).unwrap(), b"mtp,adb");
    let keys = device.path("data/android-data/misc/adb/adb_keys");
    assert_eq!(fs::read(&keys).unwrap(), b"a key\n");
    if rustix::process::geteuid().is_root() {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(&keys).unwrap().uid(), 32011);
    }
    assert!(device.path("data/.adb_onlock").exists());
    assert!(!device.path("data/user-data").exists());
    assert_eq!(device.dropped(), [] as [&str; 0], "the key is consumed too");
    device.command(
        "disable developer_mode\ndisable adb_keys\ndisable adb_onlock\ndisable default_password\n",
    );
    device.upgrade_well();
    assert_eq!(fs::read(device.path(USB)).unwrap(), b"mtp");
    assert!(!keys.exists() && !device.path("data/.adb_onlock").exists());
}

#[test]
fn a_password_is_set_inside_the_new_system_and_shown_nowhere() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: nothing can be run inside the system, so it is not tested");
        return;
    }
    let device = device();
    let busybox = fs::read("/bin/busybox").unwrap();
    // Debian's busybox has no tool for this; one of the image's own is as good.
    let tool = "#!/bin/busybox sh\nIFS=: read -r user password\n\
                [ \"$password\" = s3cret ] || exit 1\necho \"$user:\\$6\\$x:1::::::\" > /etc/shadow\n";
    let system = one()
        .dir("bin")
        .file("bin/busybox", busybox)
        .with("bin/busybox", |header| header.mode = 0o755)
        .file("bin/chpasswd", tool)
        .with("bin/chpasswd", |header| header.mode = 0o755)
        .file("etc/passwd", "phablet:x:32011:32011::/:/bin/sh\n")
        .file("etc/shadow", "phablet:*:1::::::\n");
    device.full(&system);
    let text = fs::read_to_string(device.command_file()).unwrap();
    let opening = "enable default_password s3cret\nunmount system\n";
    device.command(&format!(
        "format data\n{}",
        text.replace("unmount system\n", opening)
    ));
    let output = device.upgrade_well();
    let shadow = fs::read_to_string(device.system().join("etc/shadow")).unwrap();
    assert!(shadow.starts_with("phablet:$"), "{shadow}");
    let told = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&told).contains("s3cret"));
    assert!(!outcome(&device).to_string().contains("s3cret"));
    // Without the tool in the system nothing is changed.
    device.full(&one());
    let text = fs::read_to_string(device.command_file()).unwrap();
    device.command(&format!(
        "format data\n{}",
        text.replace("unmount system\n", opening)
    ));
    fs::write(device.path("data/mine"), "").unwrap();
    assert_eq!(device.upgrade().status.code(), Some(1));
    assert!(device.path("data/mine").exists());
}

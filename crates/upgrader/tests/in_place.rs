//! A system that is changed where it is: beside the old one where there is room, else directly.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]
#![allow(
    clippy::unnecessary_debug_formatting,
    reason = "a path in quotes is a string of TOML"
)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use support::{Device, device, expected, outcome};
use system_image_testkit::LoopDevice;
use system_image_testkit::tree::{Snapshot, Tree, assert_equal, assert_same, snapshot};

fn one() -> Tree {
    Tree::new()
        .dir("etc")
        .file("etc/build", "1\n")
        .file("etc/same", vec![3; 5000])
        .symlink("lib", "usr/lib")
        .dir("gone")
        .file("gone/x", "x")
}

fn two() -> Tree {
    one()
        .without("gone")
        .file("etc/build", "2\n")
        .dir("lib")
        .file("lib/x", "x")
}

fn want(tree: &Tree) -> Snapshot {
    let fresh = tempfile::tempdir().unwrap();
    expected(tree, fresh.path());
    snapshot(fresh.path())
}

fn log(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_a_delta_leaves_alone_is_not_written_again() {
    let device = device();
    device.full(&one());
    device.upgrade_well();
    let inode = |path: &str| fs::metadata(device.system().join(path)).unwrap().ino();
    let before = inode("etc/same");
    device.deltas(&[&one(), &two()]);
    device.upgrade_well();
    assert_equal(&snapshot(&device.system()), &want(&two()), "updated");
    assert_eq!(inode("etc/same"), before);
    let steps = outcome(&device)["steps"].clone();
    let steps: Vec<_> = steps.as_array().unwrap().iter().collect();
    assert!(
        steps
            .iter()
            .any(|step| step["step"] == "putting the new system in place"),
        "{steps:?}"
    );
    assert!(
        steps.iter().all(|step| step["seconds"].is_f64()),
        "{steps:?}"
    );
}

#[test]
fn both_ways_lead_to_the_same_system() {
    for way in ["beside", "direct"] {
        let device = device();
        let place = format!("directory = {:?}\nway = {way:?}", device.system());
        device.configure(&place);
        device.full_and_deltas(&[&one(), &two(), &one()]);
        let output = device.upgrade_well();
        assert_eq!(
            log(&output).contains("formatting the system"),
            way == "direct"
        );
        assert_equal(&snapshot(&device.system()), &want(&one()), way);
        device.deltas(&[&one(), &two()]);
        device.upgrade_well();
        assert_equal(&snapshot(&device.system()), &want(&two()), way);
    }
}

/// A device with its system on a small partition; none without root.
fn on_partition(size: u64) -> Option<(Device, LoopDevice)> {
    let partition = LoopDevice::attach(size);
    if partition.is_none() {
        eprintln!("not root: there is no partition, so it is not tested");
    }
    let partition = partition?;
    let device = device();
    device.on_partition(&partition);
    Some((device, partition))
}

fn system_of(device: &Device, partition: &LoopDevice) -> Snapshot {
    partition.mount(&device.system());
    let mut seen = snapshot(&device.system());
    assert!(
        Command::new("umount")
            .arg(&partition.path)
            .status()
            .unwrap()
            .success()
    );
    seen.remove(&b"lost+found"[..]);
    seen
}

#[test]
fn without_room_beside_the_old_system_it_is_changed_directly() {
    let Some((device, partition)) = on_partition(24 << 20) else {
        return;
    };
    let noise = |seed: u8| -> Vec<u8> {
        let mut state = u64::from(seed) + 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        std::iter::repeat_with(next)
            .flatten()
            .take(9 << 20)
            .collect()
    };
    let large = |seed| one().file("large", noise(seed));
    device.full(&large(1));
    device.upgrade_well();
    device.full(&large(2));
    let output = device.upgrade_well();
    assert!(
        log(&output).contains("the system is changed directly"),
        "{}",
        log(&output)
    );
    assert_equal(&system_of(&device, &partition), &want(&large(2)), "full");
    device.deltas(&[&large(2), &large(3)]);
    let output = device.upgrade_well();
    assert!(
        log(&output).contains("the system is changed directly"),
        "{}",
        log(&output)
    );
    assert_equal(&system_of(&device, &partition), &want(&large(3)), "delta");
    // Who wants no risk gets a refusal, and the system as it was.
    let place = format!(
        "device = {:?}\nmountpoint = {:?}\nway = \"beside\"",
        partition.path,
        device.system()
    );
    device.configure(&place);
    device.deltas(&[&large(3), &large(4)]);
    let output = device.upgrade();
    assert_eq!(output.status.code(), Some(1), "{}", log(&output));
    assert!(
        log(&output).contains("no room for the new system"),
        "{}",
        log(&output)
    );
    assert_equal(
        &system_of(&device, &partition),
        &want(&large(3)),
        "as it was",
    );
    assert_eq!(
        fs::read_dir(device.system()).unwrap().count(),
        0,
        "nothing stays mounted"
    );
}

#[test]
fn a_disk_that_fills_up_while_the_new_system_is_prepared_leaves_the_old_one() {
    let Some((device, partition)) = on_partition(32 << 20) else {
        return;
    };
    device.full(&one());
    device.upgrade_well();
    let place = format!(
        "device = {:?}\nmountpoint = {:?}\nway = \"beside\"",
        partition.path,
        device.system()
    );
    device.configure(&place);
    // Small files need more room than their archive says.
    let many = (0..9000).fold(one(), |tree, n| tree.file(format!("f{n}"), "x"));
    device.deltas(&[&one(), &many]);
    let output = device.upgrade();
    assert_eq!(output.status.code(), Some(1), "{}", log(&output));
    assert_equal(&system_of(&device, &partition), &want(&one()), "as it was");
}

#[test]
fn a_full_installation_makes_a_file_system_where_there_is_none() {
    let Some((device, partition)) = on_partition(64 << 20) else {
        return;
    };
    device.full(&one());
    let output = device.upgrade_well();
    assert!(
        log(&output).contains("formatting the system"),
        "{}",
        log(&output)
    );
    device.full(&two());
    let output = device.upgrade_well();
    assert!(
        !log(&output).contains("formatting the system"),
        "{}",
        log(&output)
    );
    assert_equal(&system_of(&device, &partition), &want(&two()), "beside");
}

#[test]
fn file_systems_of_every_kind_that_can_be_made_here_work() {
    for filesystem in ["btrfs", "f2fs"] {
        let known = fs::read_to_string("/proc/filesystems").unwrap();
        let maker = Command::new(format!("mkfs.{filesystem}"))
            .arg("-V")
            .output();
        if maker.is_err() || !known.contains(filesystem) {
            eprintln!("no {filesystem} here, so it is not tested");
            continue;
        }
        let Some(partition) = LoopDevice::attach(256 << 20) else {
            return;
        };
        let device = device();
        device.configure(&format!(
            "device = {:?}\nmountpoint = {:?}\nfilesystem = {filesystem:?}",
            partition.path,
            device.system()
        ));
        device.full(&one());
        device.upgrade_well();
        device.deltas(&[&one(), &two()]);
        device.upgrade_well();
        assert_equal(&system_of(&device, &partition), &want(&two()), filesystem);
    }
}

#[test]
fn a_system_in_an_image_file_is_replaced_whole_and_keeps_its_other_name() {
    if LoopDevice::attach(1 << 20).is_none() {
        eprintln!("not root: there are no loop devices, so it is not tested");
        return;
    }
    let device = device();
    let (image, name) = (
        device.path("data/ubuntu.img"),
        device.path("data/system.img"),
    );
    device.configure(&format!(
        "image = {image:?}\nnames = [{name:?}]\nsize_mib = 48\nmountpoint = {:?}",
        device.system()
    ));
    let look = |tree: &Tree, words: &str| {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&name).arg(device.system());
        let mounted = mount.status().unwrap();
        assert!(mounted.success());
        let mut seen = snapshot(&device.system());
        seen.remove(&b"lost+found"[..]);
        assert_equal(&seen, &want(tree), words);
        assert!(
            Command::new("umount")
                .arg(device.system())
                .status()
                .unwrap()
                .success()
        );
        let meta = fs::metadata(&image).unwrap();
        assert_eq!(
            (meta.nlink(), meta.mode() & 0o7777, meta.len()),
            (2, 0o600, 48 << 20),
            "{words}"
        );
    };
    device.full(&one());
    device.upgrade_well();
    let first = fs::metadata(&image).unwrap().ino();
    device.full(&one());
    device.upgrade_well();
    assert_ne!(fs::metadata(&image).unwrap().ino(), first, "another file");
    device.deltas(&[&one(), &two()]);
    device.upgrade_well();
    look(&two(), "a delta inside");
    // A refused one leaves no file behind.
    device.full(&two());
    device.drop_file("ubuntu-full.tar.xz", "spoiled");
    assert_eq!(device.upgrade().status.code(), Some(1));
    let mut names: Vec<_> = fs::read_dir(device.path("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".last_update", "system.img", "ubuntu.img"]);
}

#[test]
fn a_swap_that_was_cut_is_finished_even_if_the_command_file_is_lost() {
    let device = device();
    device.full(&one());
    device.upgrade_well();
    // As a cut leaves it: a tree that is ready, part of the old one moved.
    let staging = device.system().join(".system-image");
    fs::create_dir_all(staging.join("old")).unwrap();
    fs::create_dir(staging.join("ready")).unwrap();
    expected(&two(), &staging.join("ready"));
    fs::rename(device.system().join("etc"), staging.join("old/etc")).unwrap();
    device.deltas(&[&two(), &one()]);
    let output = device.upgrade_well();
    assert!(
        log(&output).contains("put in place first"),
        "{}",
        log(&output)
    );
    assert_equal(
        &snapshot(&device.system()),
        &want(&one()),
        "finished, then updated",
    );
}

/// `channel.ini` of a version.
fn ini(device: &str, channel: &str, version: u32) -> String {
    format!(
        "[service]\nbase: x\nhttp_port: 80\nhttps_port: 443\nchannel: {channel}\ndevice: {device}\n\
         build_number: {version}\nversion_detail: version={version}\n"
    )
}

fn numbered(device: &str, channel: &str, version: u32) -> Tree {
    one().dir("etc/system-image").file(
        "etc/system-image/channel.ini",
        ini(device, channel, version),
    )
}

#[test]
fn an_older_image_needs_permission_and_one_for_another_device_is_never_taken() {
    for way in ["auto", "direct"] {
        let device = device();
        let configure = |more: &str| {
            device.configure(&format!(
                "directory = {:?}\nway = {way:?}{more}",
                device.system()
            ));
        };
        configure("");
        let refused = |tree: &Tree, words: &str| {
            let before = snapshot(&device.system());
            device.full(tree);
            let output = device.upgrade();
            assert_eq!(output.status.code(), Some(1), "{words}");
            assert!(log(&output).contains(words), "{}", log(&output));
            assert_equal(&snapshot(&device.system()), &before, words);
        };
        device.full(&numbered("tango", "daily", 7));
        device.upgrade_well();
        refused(
            &numbered("tango", "daily", 6),
            "the image has version 6, version 7 of `daily`",
        );
        refused(
            &numbered("disco", "daily", 8),
            "the image is for the device `disco`",
        );
        device.full(&numbered("tango", "stable", 2));
        device.upgrade_well();
        device.full(&numbered("tango", "stable", 1));
        let text = fs::read_to_string(device.command_file()).unwrap();
        device.command(&format!("format data\n{text}"));
        device.upgrade_well();
        assert_equal(
            &snapshot(&device.system()),
            &want(&numbered("tango", "stable", 1)),
            "wiped",
        );
    }
}

#[test]
fn progress_is_json_for_those_who_ask_and_the_log_is_a_file_too() {
    let device = device();
    let settings = fs::read_to_string(device.settings()).unwrap();
    let log = device.path("cache/upgrader.log");
    fs::write(device.settings(), format!("log = {log:?}\n{settings}")).unwrap();
    device.full(&one());
    let output = device
        .program()
        .args(["--progress", "json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", self::log(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines
        .iter()
        .rfind(|line| line["type"] == "progress")
        .unwrap();
    assert_eq!(last["now"], last["total"]);
    assert!(lines.iter().any(|line| line["type"] == "spinner"));
    assert!(
        fs::read_to_string(&log)
            .unwrap()
            .contains("unpacking ubuntu-full.tar.xz")
    );
    assert_same(&device.system(), &device.system(), "same");
}

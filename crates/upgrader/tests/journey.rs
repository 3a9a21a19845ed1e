//! From a command file to a system: what an update leads to, and what a refusal leaves alone.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::process::Command;

use support::{Device, blacklist_of_signing_key, device, expected, outcome};
use system_image_formats::keyring::{KeyringInfo, KeyringType};
use system_image_testkit::tree::{Tree, assert_equal, assert_same, snapshot};
use system_image_testkit::{Keys, LoopDevice, MADE, between, xz};
use system_image_trust::{Certificates, Keyring};

fn one() -> Tree {
    Tree::new()
        .dir("etc")
        .file("etc/build", "1\n")
        .dir("bin")
        .file("bin/sh", vec![1; 300_000])
        .with("bin/sh", |header| header.mode = 0o4755)
        .hard_link("bin/bash", "bin/sh")
        .symlink("lib", "usr/lib")
        .dir("gone")
        .file("gone/x", "x")
}

fn two() -> Tree {
    let tree = one()
        .without("gone")
        .file("etc/build", "2\n")
        .file("etc/with space", "");
    tree.xattr("bin/sh", "user.note", "1")
        .dir("lib")
        .file("lib/x", "x")
}

#[test]
fn a_full_image_and_then_a_delta_are_installed() {
    let device = device();
    fs::write(device.system().join("old"), "from before").unwrap();
    device.full(&one());
    device.upgrade_well();
    device.deltas(&[&one(), &two()]);
    let output = device.upgrade_well();
    let fresh = tempfile::tempdir().unwrap();
    expected(&two(), fresh.path());
    assert_same(&device.system(), fresh.path(), "updated");

    let progress = String::from_utf8(output.stdout).unwrap();
    let mut lines = progress.lines();
    let total: u32 = lines
        .next()
        .unwrap()
        .strip_prefix("progress total: ")
        .unwrap()
        .parse()
        .unwrap();
    let numbers: Vec<u32> = lines
        .map(|line| line.strip_prefix("progress: ").unwrap().parse().unwrap())
        .collect();
    assert!(
        numbers.is_sorted() && numbers.last() == Some(&total),
        "{progress}"
    );

    assert_eq!(device.dropped(), [] as [&str; 0]);
    assert!(device.path("data/.last_update").exists());
    let result = outcome(&device);
    assert_eq!(
        (&result["outcome"], &result["full"]),
        (&"installed".into(), &false.into())
    );
}

#[test]
fn only_what_was_named_is_removed_from_the_drop_box() {
    let device = device();
    device.full(&one());
    device.drop_keyring(KeyringType::Blacklist);
    device.drop_file("log", "");
    device.upgrade_well();
    assert_eq!(
        device.dropped(),
        ["blacklist.tar.xz", "blacklist.tar.xz.asc", "log"]
    );
}

#[test]
fn a_system_on_a_block_device_is_formatted_mounted_and_put_away() {
    // Without root there are no block devices; the directory form is tested by all others.
    let Some(loop_device) = LoopDevice::attach(64 << 20) else {
        return a_full_image_and_then_a_delta_are_installed();
    };
    let device = device();
    device.on_partition(&loop_device);
    device.full(&one());
    device.upgrade_well();
    device.deltas(&[&one(), &two()]);
    device.upgrade_well();
    assert_eq!(
        fs::read_dir(device.system()).unwrap().count(),
        0,
        "nothing is left mounted"
    );
    let checked = Command::new("e2fsck")
        .args(["-fn", &loop_device.path])
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stdout)
    );
    loop_device.mount(&device.system());
    let fresh = tempfile::tempdir().unwrap();
    expected(&two(), fresh.path());
    assert_same(&device.system(), fresh.path(), "on ext4");
    // Mounted in another place it is in use, and not to be touched.
    let elsewhere = tempfile::tempdir().unwrap();
    loop_device.mount(elsewhere.path());
    device.full(&one());
    let refused = device.upgrade();
    assert_eq!(refused.status.code(), Some(1));
    assert_same(&device.system(), fresh.path(), "in use");
}

#[test]
fn a_program_that_outlived_its_upgrader_is_waited_for() {
    let Some(loop_device) = LoopDevice::attach(64 << 20) else {
        eprintln!("not root: there is no block device to be busy, so it is not tested");
        return;
    };
    let device = device();
    device.on_partition(&loop_device);
    device.full(&one());
    // As `mkfs.ext4` has it open.
    let orphan = fs::File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed())
        .open(&loop_device.path)
        .unwrap();
    let mut upgrader = device.start_logging();
    let mut log = BufReader::new(upgrader.stderr.take().unwrap()).lines();
    let mut lines = log.by_ref().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("waiting for another program")));
    assert!(upgrader.try_wait().unwrap().is_none(), "it waits");
    drop(orphan);
    log.for_each(drop);
    assert!(upgrader.wait().unwrap().success());
    loop_device.mount(&device.system());
    let fresh = tempfile::tempdir().unwrap();
    expected(&one(), fresh.path());
    assert_same(&device.system(), fresh.path(), "after the wait");
}

#[test]
fn an_image_that_cannot_fit_is_refused_before_the_system_is_formatted() {
    let Some(loop_device) = LoopDevice::attach(16 << 20) else {
        eprintln!("not root: there is no small device, so it is not tested");
        return;
    };
    let device = device();
    device.on_partition(&loop_device);
    device.full(&one());
    device.upgrade_well();
    let too_large = one().file("large", vec![0; 20 << 20]);
    let refused = |device: &Device| {
        let output = device.upgrade();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(
            errors.contains("MB of files, the system's file system only"),
            "{errors}"
        );
        assert!(errors.contains("hint: the image is too large"), "{errors}");
    };
    device.full(&too_large);
    refused(&device);
    device.deltas(&[&one(), &too_large]);
    refused(&device);
    loop_device.mount(&device.system());
    let fresh = tempfile::tempdir().unwrap();
    expected(&one(), fresh.path());
    assert_same(&device.system(), fresh.path(), "as it was");
    // The same where something else has mounted it.
    let in_directory = support::device();
    in_directory.in_directory(&device.system());
    in_directory.full(&too_large);
    refused(&in_directory);
    assert_same(&device.system(), fresh.path(), "as it was");
}

#[test]
fn a_full_disk_is_one_clear_error_and_a_smaller_image_helps() {
    // Only a file system of its own can be full; without root there is none.
    let Some(loop_device) = LoopDevice::attach(16 << 20) else {
        eprintln!("not root: a full disk cannot be had, so it is not tested");
        return;
    };
    let device = device();
    device.on_partition(&loop_device);
    // The file would fit if the file system kept nothing for itself.
    device.full(&one().file("large", vec![0; 15 << 20]));
    for _ in 0..2 {
        let output = device.upgrade();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{errors}");
        assert!(errors.contains("cannot place `large`"), "{errors}");
        assert!(
            errors.contains("hint: the system's file system is full"),
            "{errors}"
        );
        assert_eq!(
            fs::read_dir(device.system()).unwrap().count(),
            0,
            "nothing stays mounted"
        );
    }
    device.full(&one());
    device.upgrade_well();
}

/// Leaves a good update to [`two`] on a device with [`one`], lets `spoil` change it, and asserts
/// that it is refused with these words and that nothing happens to the system.
fn refused(words: &str, spoil: impl FnOnce(&Device)) {
    let device = device();
    device.full(&one());
    device.upgrade_well();
    device.deltas(&[&one(), &two()]);
    let before = snapshot(&device.system());
    spoil(&device);
    let command = fs::read(device.command_file()).unwrap();
    let output = device.upgrade();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}: {errors}");
    assert!(errors.contains(words), "{words}: {errors}");
    assert_equal(&snapshot(&device.system()), &before, words);
    // Not under its own name, which would send the recovery here again.
    let aside = device.path("cache/recovery/ubuntu_command.refused");
    assert_eq!(fs::read(aside).unwrap(), command);
    assert!(!device.command_file().exists());
    if !words.contains("upgrader.toml") {
        assert_eq!(outcome(&device)["outcome"], "refused");
        assert!(!outcome(&device)["reason"].as_array().unwrap().is_empty());
    }
}

fn edit_command(device: &Device, from: &str, to: &str) {
    let text = fs::read_to_string(device.command_file()).unwrap();
    assert!(text.contains(from));
    device.command(&text.replacen(from, to, 1));
}

#[test]
fn signatures_that_are_not_good_are_refused() {
    let name = "ubuntu-0.tar.xz";
    let archive = || xz(&between(&one(), &two()));
    refused("no good signature", |device| {
        let mut tampered = archive();
        let middle = tampered.len() / 2;
        tampered[middle] ^= 1;
        device.drop_file(name, tampered);
    });
    refused("no good signature", |device| {
        device.drop_signed(name, &archive(), &device.keys.stranger);
    });
    // Only direct signatures count.
    refused("no good signature", |device| {
        let master = device.keys.of(KeyringType::ImageMaster);
        device.drop_signed(name, &archive(), master);
    });
    refused("ubuntu-0.tar.xz.asc", |device| {
        fs::remove_file(device.path("cache/recovery/ubuntu-0.tar.xz.asc")).unwrap();
    });
    refused("no good signature", |device| {
        device.drop_file("ubuntu-0.tar.xz.asc", "");
    });
}

#[test]
fn keyrings_that_are_not_good_are_refused() {
    refused("image-signing.tar.xz", |device| {
        let keyring = Keys::generate().keyring(KeyringType::ImageSigning).pack();
        device.drop_signed("image-signing.tar.xz", &keyring, &device.keys.stranger);
    });
    refused("model mismatch", |device| {
        let mut info = KeyringInfo::new(KeyringType::ImageSigning);
        info.model = Some("disco".parse().unwrap());
        let signing = device.keys.of(KeyringType::ImageSigning);
        let keyring = Keyring {
            info,
            certificates: signing.certificate().clone(),
        };
        let master = device.keys.of(KeyringType::ImageMaster);
        device.drop_signed("image-signing.tar.xz", &keyring.pack(), master);
    });
    refused("image-signing keyring is not loaded", |device| {
        edit_command(
            device,
            "load_keyring image-signing.tar.xz image-signing.tar.xz.asc\n",
            "",
        );
    });
}

#[test]
fn a_blacklist_counts_wherever_it_is() {
    refused("blacklist", |device| {
        let (archive, signature) = blacklist_of_signing_key(device);
        device.drop_file("blacklist.tar.xz", archive);
        device.drop_file("blacklist.tar.xz.asc", signature);
    });
    refused("blacklist", |device| {
        let (archive, signature) = blacklist_of_signing_key(device);
        let directory = device.path("data/system-data/var/lib/system-image");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("blacklist.tar.xz"), archive).unwrap();
        fs::write(directory.join("blacklist.tar.xz.asc"), signature).unwrap();
        // An older and empty one in the drop box, where anybody may put it, changes nothing.
        let info = KeyringInfo::new(KeyringType::Blacklist);
        let empty = Keyring {
            info,
            certificates: Certificates::default(),
        }
        .pack();
        let master = device.keys.of(KeyringType::ImageMaster);
        device.drop_file("blacklist.tar.xz", &empty);
        let old = master.sign(&empty[..], MADE + 1).unwrap();
        device.drop_file("blacklist.tar.xz.asc", old);
    });
    refused(
        "the blacklist `blacklist.tar.xz` has no good signature",
        |device| {
            device.drop_signed(
                "blacklist.tar.xz",
                &blacklist_of_signing_key(device).0,
                &device.keys.stranger,
            );
        },
    );
}

#[test]
fn archives_that_would_do_harm_are_refused_although_they_are_signed() {
    let spoiled = |archive: &[u8]| {
        let archive = archive.to_vec();
        move |device: &Device| drop(device.drop_update("ubuntu-0.tar.xz", &archive))
    };
    let escaping = Tree::default()
        .file("x", "")
        .with("x", |h| h.path = b"system/../x".into());
    refused("`..` part", spoiled(&escaping.tar()));
    let absolute = Tree::default()
        .file("x", "")
        .with("x", |h| h.path = b"/etc/x".into());
    refused("absolute", spoiled(&absolute.tar()));
    let whole = between(&one(), &two());
    refused("ends too early", spoiled(&whole[..whole.len() / 2]));
    refused("premature eof", |device| {
        let mut compressed = xz(&whole);
        compressed.truncate(compressed.len() - 20);
        let signer = device.keys.of(KeyringType::ImageSigning);
        device.drop_signed("ubuntu-0.tar.xz", &compressed, signer);
    });
    refused("cannot read the archive", |device| {
        let signer = device.keys.of(KeyringType::ImageSigning);
        device.drop_signed("ubuntu-0.tar.xz", &whole, signer);
    });
}

#[test]
fn a_member_for_nowhere_is_left_out() {
    let device = device();
    let tree = one()
        .file("x", "")
        .with("x", |h| h.path = b"recovery/ubuntu_command".into());
    device.full(&tree);
    device.upgrade_well();
    assert_eq!(device.dropped(), [] as [&str; 0]);
    let fresh = tempfile::tempdir().unwrap();
    expected(&one(), fresh.path());
    assert_same(&device.system(), fresh.path(), "without it");
}

#[test]
fn command_files_that_cannot_be_carried_out_are_refused() {
    refused("is not mounted", |device| {
        edit_command(device, "mount system\n", "");
    });
    refused("needs `format data` before it", |device| {
        edit_command(
            device,
            "unmount system\n",
            "enable adb_onlock\nunmount system\n",
        );
    });
    refused("ubuntu-9.tar.xz", |device| {
        let line = "update ubuntu-9.tar.xz ubuntu-9.tar.xz.asc\nunmount";
        edit_command(device, "unmount", line);
    });
    refused("must be named", |device| {
        edit_command(device, "ubuntu-0.tar.xz.asc", "image-signing.tar.xz.asc");
    });
    refused("file name", |device| {
        edit_command(device, "ubuntu-0.tar.xz", "../ubuntu-0.tar.xz");
    });
    refused("not a regular file", |device| {
        let file = device.path("cache/recovery/ubuntu-0.tar.xz");
        let aside = device.path("data/ubuntu-0.tar.xz");
        fs::rename(&file, &aside).unwrap();
        symlink(aside, file).unwrap();
    });
    refused("no command", |device| device.command("\n# nothing\n"));
}

#[test]
fn settings_that_are_not_understood_are_an_error_that_names_them() {
    let spoil = |text: &'static str| move |device: &Device| device.configure(text);
    refused(
        "upgrader.toml",
        spoil("directory = \"/nowhere\"\nunknown = 1"),
    );
    refused("upgrader.toml", |device| {
        fs::remove_file(device.settings()).unwrap();
    });
    refused(
        "`/nowhere` is no directory",
        spoil("directory = \"/nowhere\""),
    );
    let device = "device = \"/dev/null\"\nmountpoint = \"/\"";
    refused("`/dev/null` is no block device", spoil(device));
}

#[test]
fn a_missing_command_file_is_an_error_that_changes_nothing() {
    let device = device();
    let output = device.upgrade();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no command file"));
}

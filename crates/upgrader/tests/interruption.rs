//! Killed at any moment, the next run leads to the same system.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]
#![allow(
    clippy::unnecessary_debug_formatting,
    reason = "a path in quotes is a string of TOML"
)]

mod support;

use std::fs;
use std::thread::sleep;
use std::time::Instant;

use camino::Utf8PathBuf;

use support::{Device, device, expected, outcome};
use system_image_testkit::tree::{Snapshot, Tree, assert_equal, snapshot};
use system_image_tree::Root;
use system_image_tree::attributes::Attributes;
use system_image_upgrader::journal::{Journal, Way};

/// Content that does not compress, so that there is something to wait for.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(len).collect()
}

/// Many files and directories; odd and even versions turn directories into links and back.
fn version(number: u64) -> Tree {
    let mut tree = Tree::new()
        .dir("etc")
        .file("etc/build", format!("{number}\n"));
    for part in 0..12 {
        let turned = (part + number).is_multiple_of(3);
        let name = format!("d{part:02}");
        if turned {
            tree = tree.symlink(&name, format!("d{:02}", (part + 1) % 12));
            continue;
        }
        tree = tree.dir(&name);
        for file in 0..12 {
            if (file * part + number).is_multiple_of(5) {
                continue;
            }
            // Some are the same in each version, some in every other one.
            let age = if file % 3 == 0 {
                0
            } else {
                number % (file + 1)
            };
            let path = format!("{name}/f{file}");
            tree = tree.file(&path, noise(part * 100 + file + age * 7, 9000));
        }
        tree = tree
            .file(format!("{name}/a"), "1")
            .hard_link(format!("{name}/b"), format!("{name}/a"));
    }
    tree
}

fn want(tree: &Tree) -> Snapshot {
    let fresh = tempfile::tempdir().unwrap();
    expected(tree, fresh.path());
    snapshot(fresh.path())
}

/// Runs what `leave` leaves, killing it again and again after a growing time until it is done;
/// then compares. Each round begins at another time. Returns the number of kills that came
/// before the end of a run.
fn killed_until_done(prepare: impl Fn(&Device), leave: impl Fn(&Device), want: &Snapshot) -> u32 {
    const ROUNDS: u32 = 4;
    const KILLS: u32 = 12;
    let undisturbed = device();
    prepare(&undisturbed);
    leave(&undisturbed);
    let start = Instant::now();
    undisturbed.upgrade_well();
    let whole = start.elapsed();
    assert_equal(&snapshot(&undisturbed.system()), want, "undisturbed");

    let mut kills = 0;
    for round in 0..ROUNDS {
        let device = device();
        prepare(&device);
        leave(&device);
        for kill in 0.. {
            let mut child = device.start();
            sleep(whole * (kill * ROUNDS + round) / (KILLS * ROUNDS));
            child.kill().unwrap();
            let left = || {
                device
                    .dropped()
                    .iter()
                    .any(|name| name.starts_with("ubuntu_command"))
            };
            if child.wait().unwrap().success() || !left() {
                break;
            }
            kills += 1;
        }
        assert_eq!(device.dropped(), [] as [&str; 0], "round {round}");
        assert_equal(&snapshot(&device.system()), want, &format!("round {round}"));
        assert_eq!(outcome(&device)["outcome"], "installed");
    }
    kills
}

#[test]
fn a_full_installation_killed_anywhere_is_completed() {
    let prepare = |device: &Device| {
        fs::write(device.system().join("d00"), "in the way").unwrap();
    };
    let leave = |device: &Device| device.full(&version(2));
    let kills = killed_until_done(prepare, leave, &want(&version(2)));
    assert!(kills > 8, "{kills} kills hit a running upgrader");
}

#[test]
fn a_journal_whose_command_file_is_gone_is_removed() {
    let device = device();
    device.drop_file("ubuntu_command.journal", "of long ago");
    assert_eq!(device.upgrade().status.code(), Some(1));
    assert_eq!(device.dropped(), [] as [&str; 0]);
}

#[test]
fn deltas_killed_anywhere_are_completed() {
    let prepare = |device: &Device| {
        device.full(&version(1));
        device.upgrade_well();
    };
    let versions = [1, 2, 3, 4].map(version);
    let leave = |device: &Device| device.deltas(&versions.each_ref());
    let kills = killed_until_done(prepare, leave, &want(&versions[3]));
    assert!(kills > 8, "{kills} kills hit a running upgrader");
}

#[test]
fn a_patch_killed_anywhere_is_completed() {
    let versions = [1, 2, 3].map(version);
    for way in ["beside", "direct"] {
        let prepare = |device: &Device| {
            let system = device.system();
            device.configure(&format!("directory = {system:?}\nway = {way:?}"));
            device.full(&versions[0]);
            device.upgrade_well();
        };
        let leave = |device: &Device| device.patch_and_deltas(&versions.each_ref());
        let kills = killed_until_done(prepare, leave, &want(&versions[2]));
        assert!(kills > 8, "{way}: {kills} kills hit a running upgrader");
    }
}

fn journal(device: &Device) -> Journal {
    Journal::new(Utf8PathBuf::try_from(device.command_file()).unwrap())
}

/// A device in the middle of an update whose files are gone.
fn stuck() -> Device {
    let device = device();
    device.full(&version(1));
    device.upgrade_well();
    device.deltas(&[&version(1), &version(2)]);
    journal(&device).begin(Way::Direct, None).unwrap();
    fs::remove_file(device.path("cache/recovery/ubuntu-0.tar.xz")).unwrap();
    device
}

#[test]
fn an_update_that_cannot_be_continued_says_so_until_a_full_installation_takes_its_place() {
    let device = stuck();
    for _ in 0..2 {
        let output = device.upgrade();
        assert_eq!(output.status.code(), Some(3));
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be continued"));
        assert_eq!(outcome(&device)["outcome"], "interrupted");
    }
    // A delta does not fit a mixed system.
    device.deltas(&[&version(1), &version(3)]);
    fs::remove_file(device.path("cache/recovery/ubuntu-0.tar.xz")).unwrap();
    assert_eq!(device.upgrade().status.code(), Some(3));
    device.full(&version(3));
    device.upgrade_well();
    assert_equal(&snapshot(&device.system()), &want(&version(3)), "repaired");
    assert!(
        !device
            .path("cache/recovery/ubuntu_command.applying")
            .exists()
    );
}

#[test]
fn a_refused_full_installation_does_not_end_the_interrupted_update() {
    let device = device();
    device.full(&version(1));
    device.upgrade_well();
    device.deltas(&[&version(1), &version(2)]);
    journal(&device).begin(Way::Direct, None).unwrap();
    device.command("format system\nmount system\nupdate none none.asc\n");
    device.upgrade_well();
    assert_equal(&snapshot(&device.system()), &want(&version(2)), "continued");
    assert_eq!(device.dropped(), ["ubuntu_command.refused"]);
}

#[test]
fn what_is_done_is_not_done_again() {
    let device = device();
    device.full(&version(1));
    device.upgrade_well();
    device.deltas(&[&version(1), &version(2), &version(3)]);
    let journal = journal(&device);
    journal.begin(Way::Direct, None).unwrap();
    // The first update is noted; its file does not matter any more.
    journal.note_done(1).unwrap();
    device.drop_file("ubuntu-0.tar.xz", "no longer looked at");
    let output = device.upgrade_well();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !log.contains("ubuntu-0") && log.contains("ubuntu-1"),
        "{log}"
    );
    assert_eq!(device.dropped(), [] as [&str; 0]);
}

#[test]
fn a_second_upgrader_stays_out_and_touches_nothing() {
    let device = device();
    device.full(&version(1));
    let lock = fs::File::open(device.path("cache/recovery")).unwrap();
    lock.lock().unwrap();
    let output = device.upgrade();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another upgrader"));
    assert!(device.command_file().exists());
    lock.unlock().unwrap();
    device.upgrade_well();
}

#[test]
fn what_another_upgrader_did_not_finish_is_begun_again_or_given_up_for_something_newer() {
    let device = device();
    device.full(&version(1));
    device.upgrade_well();
    // As the original leaves it after a failure.
    device.deltas(&[&version(1), &version(2)]);
    let applying = device.path("cache/recovery/ubuntu_command.applying");
    fs::rename(device.command_file(), &applying).unwrap();
    device.upgrade_well();
    assert_equal(
        &snapshot(&device.system()),
        &want(&version(2)),
        "begun again",
    );
    fs::write(&applying, "mount system\nupdate gone gone.asc\n").unwrap();
    device.deltas(&[&version(2), &version(3)]);
    device.upgrade_well();
    assert_equal(&snapshot(&device.system()), &want(&version(3)), "newer");
    assert_eq!(device.dropped(), ["ubuntu_command.failed"]);
}

#[test]
fn an_update_that_gets_no_further_is_given_up() {
    let device = device();
    device.full(&version(1));
    device.upgrade_well();
    device.deltas(&[&version(1), &version(2)]);
    let top = Root::open(&device.system()).unwrap();
    let before = Attributes::of(&top).unwrap();
    fs::create_dir_all(device.system().join(".system-image/new")).unwrap();
    before.give(&top).unwrap();
    fs::write(device.path("data/.system-image.top"), before.to_text()).unwrap();
    journal(&device).begin(Way::Prepared, None).unwrap();
    for _ in 0..10 {
        journal(&device).note_attempt().unwrap();
    }
    let output = device.upgrade();
    assert_eq!(output.status.code(), Some(4));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("the system is as it was before"),
        "{errors}"
    );
    assert_eq!(outcome(&device)["outcome"], "failed");
    assert_equal(&snapshot(&device.system()), &want(&version(1)), "as it was");
    assert!(
        !device
            .dropped()
            .iter()
            .any(|name| name == "ubuntu_command.applying")
    );
    // Nothing stands in the way of the next one.
    device.deltas(&[&version(1), &version(2)]);
    device.upgrade_well();
    assert_equal(
        &snapshot(&device.system()),
        &want(&version(2)),
        "the next one",
    );
}

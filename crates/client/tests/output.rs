//! What the client prints, byte for byte, and with which exit status (client spec, 2.1 to 2.6).
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use support::{client, refuse, run, succeed};
use system_image_formats::index::{Image, ImageKind};
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_testkit::{Device, Keys, Published, SmallDisk};

const USAGE: &str = "Usage: system-image-cli [OPTIONS]\n";

/// Makes every configuration file as old as the specification's example.
fn last_changed(device: &Device, seconds: u64) {
    for entry in fs::read_dir(device.config()).unwrap() {
        let file = File::options()
            .append(true)
            .open(entry.unwrap().path())
            .unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
            .unwrap();
    }
}

#[test]
fn information_is_printed_as_the_original_prints_it() {
    let device = Device::new(&Keys::generate());
    let details = "channel_target: stable\n\
                   version_detail: ubuntu=20250103,device=9,tag=OTA-5,junk,custom=\n";
    device.installed("devel", 5, details);
    let mut command = client(&device);
    last_changed(&device, 1_736_848_800);
    let output = command.arg("--info").output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "current build number: 5\n\
         device name: lamp\n\
         channel: devel\n\
         alias: stable\n\
         last update: 2025-01-14 10:00:00\n\
         version ubuntu: 20250103\n\
         version tag: OTA-5\n\
         version device: 9\n\
         version custom: \n"
    );
    assert_eq!(output.stderr, b"");

    device.installed("devel", 5, "");
    assert_eq!(
        succeed(&device, &["-b", "7", "-c", "a/b", "-d", "tango", "-i"])
            .lines()
            .filter(|line| !line.starts_with("last update: "))
            .collect::<Vec<_>>(),
        [
            "current build number: 7",
            "device name: tango",
            "channel: a/b"
        ]
    );
}

#[test]
fn switching_is_build_0_of_a_channel_and_gives_way_to_explicit_options() {
    let device = Device::new(&Keys::generate()).at_version(5);
    for (options, build, channel) in [
        (&["--switch", "other"][..], 0, "other"),
        (&["--switch", "other", "-b", "3"], 3, "other"),
        (&["--switch", "other", "-c", "third"], 0, "third"),
        (&["-c", "third"], 5, "third"),
    ] {
        let info = succeed(&device, &[options, &["--info"]].concat());
        let want =
            format!("current build number: {build}\ndevice name: lamp\nchannel: {channel}\n");
        assert!(info.starts_with(&want), "{options:?}: {info}");
    }
}

#[test]
fn channels_are_listed_with_what_they_follow_hidden_ones_too() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).alias("devel").channels(|channels| {
        let mut hidden = channels.0[&"stable".parse().unwrap()].clone();
        hidden.hidden = true;
        channels.0.insert("secret".parse().unwrap(), hidden);
    });
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    // The channel of the device need not be one of them.
    assert_eq!(
        succeed(&device, &["--list-channels", "-c", "none"]),
        "Available channels:\n    devel (alias for: stable)\n    secret\n    stable\n"
    );
}

#[test]
fn the_index_is_read_in_the_temporary_directory_and_leaves_nothing_there() {
    let keys = Keys::generate();
    let text = "x".repeat(3 << 20);
    let long = |image: &mut Image| image.description = Some(text.clone());
    let tree = Published::new(&keys).full(1).image(long).full(2);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let tmp = device.path("tmp");
    let dry = || succeed(&device, &["-n", "-p", "0"]);
    assert_eq!(dry(), "Upgrade path is 2\nTarget phase: 0%\n");
    assert_eq!(tmp.read_dir_utf8().unwrap().count(), 0);

    let hint = "hint: make room there, or set `tempdir` of `[system]` to another directory\n";
    if let Some(_full) = SmallDisk::mount(&tmp, "1m") {
        let err = refuse(&device, &["-n", "-p", "0"]);
        let want = format!("cannot write a temporary file in `{tmp}`");
        assert!(err.contains(&want) && err.ends_with(hint), "{err}");
    }
    assert_eq!(dry(), "Upgrade path is 2\nTarget phase: 0%\n");
}

#[test]
fn a_dry_run_prints_the_path_and_the_phase_and_fetches_no_payload() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(3).delta(3, 4).delta(4, 5);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web).at_version(2);
    for (options, want) in [
        (
            &["-n", "-p", "47"][..],
            "Upgrade path is 3:4:5\nTarget phase: 47%\n",
        ),
        (
            &["-n", "-p", "-5"],
            "Upgrade path is 3:4:5\nTarget phase: 0%\n",
        ),
        (
            &["-n", "-p", "101"],
            "Upgrade path is 3:4:5\nTarget phase: 100%\n",
        ),
        (
            &["-n", "-p", "0", "-b", "3"],
            "Upgrade path is 4:5\nTarget phase: 0%\n",
        ),
        (
            &["-n", "-p", "0", "-m", "4"],
            "Upgrade path is 3:4\nTarget phase: 0%\n",
        ),
        (
            &["-n", "-p", "0", "-f", "full"],
            "Upgrade path is 3\nTarget phase: 0%\n",
        ),
        (
            &["-n", "-p", "0", "-b", "4", "-f", "delta"],
            "Upgrade path is 5\nTarget phase: 0%\n",
        ),
        (&["-n", "-p", "0", "-f", "delta"], "Already up-to-date\n"),
        (&["-n", "-p", "0", "-m", "2"], "Already up-to-date\n"),
        (&["-n", "-p", "0", "-b", "5"], "Already up-to-date\n"),
        (&["-n", "-p", "0", "-b", "500"], "Already up-to-date\n"),
    ] {
        assert_eq!(succeed(&device, options), want, "{options:?}");
    }
    assert!(!web.paths().iter().any(|path| path.starts_with("/pool/")));
    assert!(device.dropped().is_empty());
}

#[test]
fn a_phased_image_is_for_devices_up_to_its_percentage() {
    let keys = Keys::generate();
    let tree = Published::new(&keys)
        .full(1)
        .delta(1, 2)
        .image(|image| image.phased = Percentage::clamped(20));
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web).at_version(1);
    let dry = |percentage: &str| succeed(&device, &["-n", "-p", percentage]);
    assert_eq!(dry("20"), "Upgrade path is 2\nTarget phase: 20%\n");
    assert_eq!(dry("21"), "Already up-to-date\n");
    let _withdrawn = tree.image(|image| image.phased = Percentage::clamped(0));
    assert_eq!(dry("0"), "Already up-to-date\n");
}

#[test]
fn a_machine_has_its_own_place_in_rollouts() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let id = ["/var/lib/dbus/machine-id", "/etc/machine-id"]
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok());
    let Some(id) = id else {
        let err = refuse(&device, &["-n"]);
        assert!(err.contains("caused by: No machine-id file found"), "{err}");
        return;
    };
    let place = system_image_planner::device_percentage("None", ImageVersion::new(1), id.trim());
    let want = format!("Upgrade path is 1\nTarget phase: {place}%\n");
    assert_eq!(succeed(&device, &["--dry-run"]), want);
}

#[test]
fn an_alias_that_was_pointed_elsewhere_starts_from_nothing_unless_the_user_says_otherwise() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1).delta(1, 2).alias("devel");
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    device.installed("devel", 1, "channel_target: old/stable\n");
    let dry = |options: &[&str]| succeed(&device, &[&["-n", "-p", "0"], options].concat());
    assert_eq!(
        dry(&[]),
        "Upgrade path is 1:2 (old/stable -> stable)\nTarget phase: 0%\n"
    );
    assert_eq!(dry(&["-b", "1"]), "Upgrade path is 2\nTarget phase: 0%\n");
    assert_eq!(
        dry(&["--switch", "devel"]),
        "Upgrade path is 1:2\nTarget phase: 0%\n"
    );
    device.installed("devel", 1, "channel_target: stable\n");
    assert_eq!(dry(&[]), "Upgrade path is 2\nTarget phase: 0%\n");
}

#[test]
fn a_full_image_may_ask_for_a_lowest_version() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(9).image(|image| {
        let minversion = ImageVersion::new(5);
        image.kind = ImageKind::Full { minversion };
    });
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let dry = |build: &str| succeed(&device, &["-n", "-p", "0", "-b", build]);
    assert_eq!(dry("4"), "Already up-to-date\n");
    assert_eq!(dry("5"), "Upgrade path is 9\nTarget phase: 0%\n");
}

#[test]
fn wrong_usage_is_told_after_the_synopsis_with_status_2() {
    let device = Device::new(&Keys::generate());
    for (options, want) in [
        (&["-f", "fast"][..], "Bad filter type: fast"),
        (&["-b", "x"], "-b/--build requires an integer: x"),
        (&["--progress", "bar"], "Unknown progress meter: bar"),
        (
            &["-n", "--progress", "dots", "--progress", ""],
            "Unknown progress meter: ",
        ),
        (
            &["-m", "x"],
            "invalid value 'x' for '--maximage <MAXIMAGE>'",
        ),
        (
            &["-p", "abc"],
            "invalid value 'abc' for '--percentage <PERCENTAGE>'",
        ),
        (
            &["-c", "../x"],
            "invalid value '../x' for '--channel <CHANNEL>'",
        ),
        (&["--nonsense"], "unexpected argument '--nonsense' found"),
        (&["extra"], "unexpected argument 'extra' found"),
        // The filter is looked at before the build, the build before the meter.
        (
            &["--progress", "bar", "-b", "x", "-f", "fast"],
            "Bad filter type: fast",
        ),
        (
            &["--progress", "bar", "-b", "x"],
            "-b/--build requires an integer: x",
        ),
    ] {
        let ran = run(&device, options);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{options:?}");
        let line = format!("{USAGE}system-image-cli: error: {want}");
        assert!(ran.err.starts_with(&line), "{options:?}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 2, "{options:?}: {}", ran.err);
    }
}

#[test]
fn a_missing_configuration_directory_is_wrong_usage() {
    let device = Device::new(&Keys::generate());
    for place in [device.path("none"), device.archive_master()] {
        let output = Command::new(env!("CARGO_BIN_EXE_system-image-cli"))
            .args(["-f", "fast", "-C", place.as_str()])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            format!(
                "{USAGE}system-image-cli: error: \nConfiguration directory not found: {place}\n"
            )
        );
    }
}

#[test]
fn meters_are_checked_only_where_there_is_something_to_show() {
    let device = Device::new(&Keys::generate());
    succeed(&device, &["--info", "--progress", "bar"]);
}

#[test]
fn options_may_be_abbreviated_and_help_and_version_succeed() {
    let device = Device::new(&Keys::generate());
    assert_eq!(succeed(&device, &["--inf"]), succeed(&device, &["-i"]));
    assert!(succeed(&device, &["--vers"]).starts_with("system-image-cli "));
    assert!(succeed(&device, &["-h"]).contains("--list-channels"));
    assert_eq!(run(&device, &["--pr", "x"]).code, Some(2));
    assert_eq!(
        run(&device, &["--d", "x"]).code,
        Some(2),
        "device or dry-run?"
    );
}

#[test]
fn an_unknown_channel_or_device_is_no_update_and_an_error_of_the_new_outputs() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1).channels(|channels| {
        let mut hidden = channels.0[&"stable".parse().unwrap()].clone();
        hidden.hidden = true;
        channels.0.insert("secret".parse().unwrap(), hidden);
        channels
            .0
            .insert("empty".parse().unwrap(), Default::default());
    });
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let asked = [
        (
            ["-c", "stabel"],
            "the server has no channel `stabel`",
            "it has empty, stable; choose one with --channel",
        ),
        (
            ["-d", "tango"],
            "channel `stable` has no device `tango`",
            "it has lamp; choose one with --device",
        ),
        (
            ["-c", "empty"],
            "channel `empty` has no device `lamp`",
            "it has none yet; ask its publisher",
        ),
    ];
    for (more, why, hint) in asked {
        // For callers of the original it is as it was, and told on the side.
        for (options, out) in [(&["-n"][..], "Already up-to-date\n"), (&[], "")] {
            let ran = run(&device, &[options, &["-p", "0"], &more].concat());
            assert_eq!((ran.code, &*ran.out), (Some(0), out));
            assert_eq!(ran.err, format!("warning: {why}\nhint: {hint}\n"));
        }
        for option in ["--plan", "--explain"] {
            let err = refuse(&device, &[&[option], &more[..]].concat());
            let first = "Exception occurred during dry-run; see log file for details\n";
            assert_eq!(err, format!("{first}caused by: {why}\nhint: {hint}\n"));
        }
    }
    let log = fs::read_to_string(device.log()).unwrap();
    assert!(log.contains(") no matching channel: stabel\n"), "{log}");
    assert!(log.contains(") no matching device: tango\n"), "{log}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let device = Device::new(&Keys::generate());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = client(&device)
        .arg("--info")
        .stdout(Stdio::from(writer))
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn an_update_that_is_none_succeeds_in_silence() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web).at_version(1);
    let ran = run(&device, &["-p", "0"]);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (Some(0), "", "")
    );
    let log = fs::read_to_string(device.log()).unwrap();
    assert!(log.contains("Already up-to-date"), "{log}");
    assert_eq!(device.command_file(), None);
}

//! Configurations that cannot be used, and disks that are full.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use support::{Ran, refuse, run, succeed};
use system_image_testkit::{Device, Keys, Published};

#[test]
fn a_bad_value_is_told_with_its_key_and_the_files_that_count() {
    let device = Device::new(&Keys::generate());
    for (text, want) in [
        (
            "[service]\nhttp_port: x",
            "`x` does not fit `http_port` of `[service]`: a port is",
        ),
        (
            "[service]\nbuild_number: many",
            "`many` does not fit `build_number` of `[service]`",
        ),
        (
            "[service]\nchannel: ../x",
            "`../x` does not fit `channel` of `[service]`",
        ),
        (
            "[service]\ndevice: a/b",
            "`a/b` does not fit `device` of `[service]`",
        ),
        (
            "[system]\ntimeout: 10",
            "`10` does not fit `timeout` of `[system]`: an interval is",
        ),
        (
            "[system]\nloglevel: loud",
            "`loud` does not fit `loglevel` of `[system]`",
        ),
        (
            "[hooks]\napply: Noop",
            "`Noop` does not fit `apply` of `[hooks]`: a hook is",
        ),
        (
            "[downloads]\nattempts: 0",
            "`0` does not fit `attempts` of `[downloads]`",
        ),
        (
            "[downloads]\nstall_timeout: 0s",
            "`0s` does not fit `stall_timeout`",
        ),
        ("[service]\nbase: 50%", "malformed"),
    ] {
        device.configure("60_bad.ini", text);
        let err = refuse(&device, &["--info"]);
        assert!(
            err.contains(&format!("caused by: {want}")) || err.contains(want),
            "{err}"
        );
        assert!(
            err.contains("hint: of its files 00_client.ini, 01_channel.ini, ")
                && err.contains("60_bad.ini the last one that sets a key counts"),
            "{err}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let device = Device::new(&Keys::generate());
    for text in [
        "no section",
        "[service]\nx: 1\nx: 2\n",
        "[service\n",
        "[service]\n[service]\n",
    ] {
        device.configure("60_bad.ini", text);
        let ran = run(&device, &["--info"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{text}");
        assert!(ran.err.starts_with("error: cannot use `"), "{}", ran.err);
        assert!(ran.err.contains("60_bad.ini`\ncaused by: "), "{}", ran.err);
    }
    fs::write(
        device.config().join("60_bad.ini"),
        b"[service]\nbase: \xff\n",
    )
    .unwrap();
    assert_eq!(run(&device, &["--info"]).code, Some(1));
    fs::remove_file(device.config().join("60_bad.ini")).unwrap();
    fs::create_dir(device.config().join("60_bad.ini")).unwrap();
    let ran = run(&device, &["--info"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.starts_with("error: cannot read `"), "{}", ran.err);
}

#[test]
fn other_files_of_the_directory_do_not_matter() {
    let device = Device::new(&Keys::generate()).at_version(3);
    for name in ["abc.ini", "99.ini", "x_1.ini", "50_a.cfg"] {
        device.configure(name, "nonsense");
    }
    let place = device.config().into_std_path_buf();
    fs::write(
        place.join(std::ffi::OsStr::from_bytes(b"\xff_a.txt")),
        "nonsense",
    )
    .unwrap();
    assert!(succeed(&device, &["--info"]).starts_with("current build number: 3\n"));
}

#[test]
fn both_ports_cannot_be_disabled() {
    let device = Device::new(&Keys::generate());
    device.configure("60_bad.ini", "[service]\nhttp_port: disabled\n");
    let err = run(&device, &["-n"]).err;
    assert!(
        err.contains("caused by: Cannot disable both http and https ports\n"),
        "{err}"
    );
}

#[test]
fn a_device_without_a_name_is_told_how_to_get_one() {
    let device = Device::new(&Keys::generate());
    device.configure("60_bad.ini", "[service]\ndevice:\n");
    assert!(succeed(&device, &["-i"]).contains("device name: ?\n"));
    let err = run(&device, &["-n"]).err;
    assert!(
        err.contains("set `device` in `[service]` or give --device"),
        "{err}"
    );
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let device = Device::new(&Keys::generate());
    device.configure("60_bad.ini", "[system]\nlogfile: /proc/none/client.log\n");
    succeed(&device, &["--info"]);
}

/// Runs an update of a device whose cache is a file system of its own with so much room.
fn with_room(device: &Device, size: &str, free: bool) -> Ran {
    let cache = device.path("cache");
    fs::create_dir_all(&cache).unwrap();
    let prepare = if free {
        ""
    } else {
        "head -c 100M /dev/zero > \"$1/fill\" 2>/dev/null; "
    };
    let script = format!(
        "mount -t tmpfs -o size=\"$2\" none \"$1\" && {prepare}\"$3\" -C \"$4\" -p 0; \
         code=$?; ls \"$1/recovery\" 2>/dev/null; exit $code"
    );
    let device_config = device.config();
    Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", &script, "sh"])
        .args([cache.as_str(), size])
        .arg(env!("CARGO_BIN_EXE_system-image-cli"))
        .arg(device_config)
        .output()
        .unwrap()
        .into()
}

#[test]
fn too_little_room_is_told_before_the_first_byte() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let ran = with_room(&device, "4200k", true);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.err.contains("caused by: the update needs 4.6 MB in `"),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("`, 4.3 MB are free\nhint: free "),
        "{}",
        ran.err
    );
    assert!(
        ran.err.ends_with(" there; nothing was downloaded\n"),
        "{}",
        ran.err
    );
    assert_eq!(ran.out, "", "the drop box is empty");
    assert!(!web.paths().iter().any(|path| path.starts_with("/pool/")));

    let ran = with_room(&device, "5000k", true);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("ubuntu_command\n"), "{}", ran.out);
}

#[test]
fn a_disk_that_is_full_is_told() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let ran = with_room(&device, "1m", false);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(
        ran.err.contains("`, 0 B are free\nhint: free 4.6 MB there"),
        "{}",
        ran.err
    );
}

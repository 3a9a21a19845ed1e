//! Updates that go well: what is fetched, what is left for the upgrader (client spec, 9.7 to 9.9
//! and 14).
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{client, prepared, refuse, run, succeed};
use system_image_formats::keyring::KeyringType;
use system_image_testkit::http::Asked;
use system_image_testkit::{Device, Fault, Keys, Published, Web};

const FULL_1: &str = "/pool/ubuntu-1.full.tar.xz";

fn names(device: &Device) -> Vec<String> {
    device.dropped().into_keys().collect()
}

/// How often each payload or signature of one was asked for.
fn payloads(web: &Web) -> Vec<String> {
    let mut paths = web.paths();
    paths.retain(|path| path.starts_with("/pool/"));
    paths.sort();
    paths
}

#[test]
fn a_full_image_is_left_for_the_upgrader_as_the_original_leaves_it() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let ran = run(&device, &["-p", "0"]);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (Some(0), "", "")
    );
    assert_eq!(
        device.command_file().unwrap(),
        "load_keyring image-master.tar.xz image-master.tar.xz.asc\n\
         load_keyring image-signing.tar.xz image-signing.tar.xz.asc\n\
         format system\n\
         mount system\n\
         update ubuntu-1.full.tar.xz ubuntu-1.full.tar.xz.asc\n\
         update version-1.tar.xz version-1.tar.xz.asc\n\
         unmount system\n"
    );
    assert_eq!(
        names(&device),
        [
            "image-master.tar.xz",
            "image-master.tar.xz.asc",
            "image-signing.tar.xz",
            "image-signing.tar.xz.asc",
            "ubuntu-1.full.tar.xz",
            "ubuntu-1.full.tar.xz.asc",
            "ubuntu_command",
            "version-1.tar.xz",
            "version-1.tar.xz.asc"
        ]
    );
    assert_eq!(device.dropped()["ubuntu-1.full.tar.xz"], tree.bytes(FULL_1));
    assert!(prepared(&device).is_some());
    let mode = |path: &str| {
        fs::metadata(device.path(path))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("cache/recovery/ubuntu_command") & 0o7777, 0o600);
    assert_eq!(mode("cache/recovery") & 0o7777, 0o2700);
    assert_eq!(mode("log/client.log") & 0o7777, 0o600);
    let agent = web.asked()[0].header("User-Agent").unwrap().to_owned();
    let want = "Ubuntu System Image Upgrade Client: device=lamp;channel=stable;build=0";
    assert_eq!(agent, want);
}

#[test]
fn files_are_applied_in_their_order_and_not_beyond_an_image_that_must_be_booted() {
    let keys = Keys::generate();
    let tree = Published::new(&keys)
        .device_keyring()
        .delta(2, 3)
        .image(|image| {
            image.bootme = true;
            image.files[0].order = 7;
        })
        .delta(3, 4)
        .delta(4, 5);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web).at_version(2);
    assert!(succeed(&device, &["-n", "-p", "0"]).starts_with("Upgrade path is 3:4:5\n"));
    succeed(&device, &["-p", "0"]);
    assert_eq!(
        device.command_file().unwrap(),
        "load_keyring image-master.tar.xz image-master.tar.xz.asc\n\
         load_keyring image-signing.tar.xz image-signing.tar.xz.asc\n\
         load_keyring device-signing.tar.xz device-signing.tar.xz.asc\n\
         mount system\n\
         update version-3.tar.xz version-3.tar.xz.asc\n\
         update ubuntu-3.delta-2.tar.xz ubuntu-3.delta-2.tar.xz.asc\n\
         unmount system\n"
    );
    assert!(prepared(&device).is_some());
    assert_eq!(payloads(&web).len(), 4, "{:?}", payloads(&web));
}

#[test]
fn a_device_keyring_is_forgotten_with_its_entry() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).device_keyring().full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    succeed(&device, &["-p", "0"]);
    let kept = device.kept(KeyringType::DeviceSigning);
    assert!(kept.exists() && names(&device).contains(&"device-signing.tar.xz".to_owned()));

    let tree = tree
        .channels(|channels| {
            let channel = channels.0.values_mut().next().unwrap();
            channel.devices.values_mut().next().unwrap().keyring = None;
        })
        .signed_by("/stable/lamp/index.json", &keys.image_signing);
    // Its key counts no more.
    refuse(&device, &["-p", "0", "-f", "full"]);
    let _tree = tree
        .signed_by(FULL_1, &keys.image_signing)
        .signed_by("/pool/version-1.tar.xz", &keys.image_signing);
    succeed(&device, &["-p", "0"]);
    assert!(!kept.exists() && !names(&device).contains(&"device-signing.tar.xz".to_owned()));
    assert!(!device.command_file().unwrap().contains("device-signing"));
    assert!(prepared(&device).is_some());
}

#[test]
fn deltas_follow_one_another_and_what_is_left_of_earlier_updates_goes() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1).delta(1, 2).delta(2, 3);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web).at_version(0);
    succeed(&device, &["-p", "0", "-m", "1"]);
    fs::write(device.drop_box().join("last_log"), "of the recovery").unwrap();
    fs::write(device.drop_box().join("old.tar.xz.part"), "half").unwrap();
    let device = device.at_version(1);
    succeed(&device, &["-p", "0"]);
    let updates = prepared(&device).unwrap();
    assert_eq!(
        updates,
        [
            "ubuntu-2.delta-1.tar.xz",
            "version-2.tar.xz",
            "ubuntu-3.delta-2.tar.xz",
            "version-3.tar.xz"
        ]
    );
    assert!(!device.command_file().unwrap().contains("format system"));
    let names = names(&device);
    assert!(names.contains(&"last_log".to_owned()), "{names:?}");
    assert!(
        !names
            .iter()
            .any(|name| name.starts_with("old") || name.contains("full"))
    );
}

#[test]
fn nothing_is_fetched_twice() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1).delta(1, 2);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    succeed(&device, &["-p", "0", "-g"]);
    let first = payloads(&web);
    assert_eq!(first.len(), 8, "{first:?}");
    let keyrings = |web: &Web| {
        let paths = web.paths();
        paths
            .iter()
            .filter(|path| path.starts_with("/gpg/image"))
            .count()
    };
    assert_eq!(keyrings(&web), 4);
    let before = device.dropped();
    succeed(&device, &["-p", "0"]);
    assert_eq!(payloads(&web), first);
    assert_eq!(keyrings(&web), 4, "kept keyrings are used");
    assert_eq!(device.dropped(), before);

    // Each file is looked at by itself.
    let place = device.drop_box().join("ubuntu-1.full.tar.xz");
    fs::remove_file(&place).unwrap();
    fs::remove_file(device.drop_box().join("version-2.tar.xz.asc")).unwrap();
    succeed(&device, &["-p", "0"]);
    let more: Vec<_> = web
        .paths()
        .into_iter()
        .filter(|path| path.contains("/pool/"))
        .collect();
    let more = &more[first.len()..];
    assert_eq!(
        more,
        [
            "/pool/ubuntu-1.full.tar.xz.asc",
            "/pool/version-2.tar.xz.asc",
            "/pool/ubuntu-1.full.tar.xz"
        ]
    );
    assert_eq!(device.dropped(), before);
}

#[test]
fn a_damaged_file_is_fetched_again() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    succeed(&device, &["-p", "0"]);
    let good = device.dropped();
    for name in [
        "ubuntu-1.full.tar.xz",
        "version-1.tar.xz.asc",
        "image-signing.tar.xz",
    ] {
        let mut bytes = good[name].clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(device.drop_box().join(name), bytes).unwrap();
        succeed(&device, &["-p", "0"]);
        assert_eq!(device.dropped(), good, "{name}");
    }
}

#[test]
fn a_download_that_was_cut_off_is_resumed_by_the_next_run() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    web.fails(FULL_1, Fault::Cut(150_000));
    let err = refuse(&device, &["-p", "0"]);
    assert!(err.contains("The connection was closed"), "{err}");
    web.recovers();
    succeed(&device, &["-p", "0"]);
    let ranges: Vec<_> = web
        .asked()
        .iter()
        .filter(|asked| asked.path == FULL_1)
        .map(Asked::range)
        .collect();
    assert_eq!(ranges.first(), Some(&None));
    assert!(ranges.last().unwrap().unwrap() >= 300_000, "{ranges:?}");
    assert!(prepared(&device).is_some());
}

/// Starts an update, and returns when the server has been asked for the payload and has sent what
/// it is going to send of it.
fn stuck(device: &Device, web: &Web) -> Child {
    web.fails(FULL_1, Fault::Stall(300_000));
    let child = client(device)
        .args(["-p", "0", "--progress", "dots"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while fs::metadata(device.drop_box().join("ubuntu-1.full.tar.xz.part"))
        .map_or(0, |part| part.len())
        < 200_000
    {
        std::thread::yield_now();
    }
    child
}

#[test]
fn a_download_that_was_killed_is_resumed_by_the_next_run() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let mut child = stuck(&device, &web);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(device.command_file(), None);
    web.recovers();
    succeed(&device, &["-p", "0"]);
    let asked = web.asked();
    let last = asked.iter().rfind(|asked| asked.path == FULL_1).unwrap();
    assert!(last.range().unwrap() >= 200_000, "{last:?}");
    assert!(prepared(&device).is_some());
}

#[test]
fn an_interrupted_update_succeeds_says_so_and_is_resumed() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let child = stuck(&device, &web);
    let id = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{err}");
    let want = "interrupted: what has been received is kept, the next run goes on\n";
    assert!(err.ends_with(want), "{err}");
    assert_eq!(device.command_file(), None);
    web.recovers();
    succeed(&device, &["-p", "0"]);
    let asked = web.asked();
    let last = asked.iter().rfind(|asked| asked.path == FULL_1).unwrap();
    assert!(last.range().is_some(), "{last:?}");
}

#[test]
fn the_hook_runs_unless_it_is_not_to() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    device.configure("50_hooks.ini", "[hooks]\napply: somewhere.Else\n");
    succeed(&device, &["-p", "0", "--no-apply"]);
    assert!(prepared(&device).is_some());
    let ran = run(&device, &["-p", "0"]);
    assert_eq!(ran.code, Some(1));
    let want = "caused by: there is no apply hook `somewhere.Else`\n";
    assert!(ran.err.contains(want), "{}", ran.err);
}

#[test]
fn a_switch_replaces_what_was_prepared_for_the_old_channel() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1).delta(1, 2);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web).at_version(1);
    succeed(&device, &["-p", "0"]);
    assert!(device.command_file().unwrap().contains("delta-1"));

    // Another channel, with a file of the same name and other content.
    let other = Published::new(&keys).full(1).full(2);
    let bytes = other.bytes("/pool/version-1.tar.xz");
    let other = other
        .put("/pool/version-2.tar.xz", &bytes)
        .signed_by("/pool/version-2.tar.xz", &keys.image_signing)
        .index(|index| {
            let first = index.images[0].files[1].clone();
            let file = &mut index.images[1].files[1];
            (file.checksum, file.size) = (first.checksum, first.size);
        });
    let elsewhere = other.serve();
    let device = device.served_by(&elsewhere);
    succeed(&device, &["-p", "0", "--switch", "stable"]);
    assert!(device.command_file().unwrap().contains("format system\n"));
    let updates = ["ubuntu-2.full.tar.xz", "version-2.tar.xz"];
    assert_eq!(prepared(&device).unwrap(), updates);
    assert_eq!(device.dropped()["version-2.tar.xz"], bytes);
}

#[test]
fn progress_is_told_as_programs_read_it() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let out = succeed(&device, &["-p", "0", "--progress", "json"]);
    // Keyrings, channels and index, each with its signature, and then the payloads.
    let line = |all: usize| format!(r#"{{"type": "progress", "now": {all}, "total": {all}}}"#);
    let told = |path: &str| {
        let both = [tree.bytes(path), tree.bytes(&format!("{path}.asc"))].concat();
        line(both.len())
    };
    let metadata = [
        "gpg/image-master.tar.xz",
        "gpg/image-signing.tar.xz",
        "channels.json",
        "stable/lamp/index.json",
    ];
    assert_eq!(
        out.lines().take(4).collect::<Vec<_>>(),
        metadata.map(told).each_ref().map(String::as_str)
    );
    let total: usize = ["ubuntu-1.full.tar.xz", "version-1.tar.xz"]
        .map(|name| device.dropped()[name].len())
        .into_iter()
        .sum();
    assert_eq!(out.lines().last(), Some(line(total).as_str()));

    let device = Device::new(&keys).served_by(&web);
    let dots = run(&device, &["-p", "0", "--progress", "dots"]).err;
    assert!(
        dots.ends_with(".\n") && dots.lines().all(|line| line.len() <= 78),
        "{dots}"
    );

    let device = Device::new(&keys).served_by(&web);
    succeed(&device, &["-p", "0", "-vv", "--progress", "logfile"]);
    let log = fs::read_to_string(device.log()).unwrap();
    assert!(
        log.contains(&format!("received: {total} of {total} bytes\n")),
        "{log}"
    );

    web.fails("/channels.json", Fault::Status("500 Internal Server Error"));
    let out = run(&device, &["-p", "0", "--progress", "json"]).out;
    let last = out.lines().last().unwrap();
    assert!(last.starts_with(r#"{"type": "error", "msg": ""#), "{last}");
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert!(last["msg"].as_str().unwrap().contains("500"), "{last}");
}

#[test]
fn connections_are_kept_and_nothing_else_is_asked_for() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    succeed(&device, &["-n", "-p", "0"]);
    assert_eq!(
        web.paths(),
        [
            "/gpg/image-master.tar.xz",
            "/gpg/image-master.tar.xz.asc",
            "/gpg/blacklist.tar.xz",
            "/gpg/image-signing.tar.xz",
            "/gpg/image-signing.tar.xz.asc",
            "/channels.json",
            "/channels.json.asc",
            "/stable/lamp/index.json",
            "/stable/lamp/index.json.asc"
        ]
    );
}

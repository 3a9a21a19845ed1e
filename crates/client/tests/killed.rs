//! Updates that are killed at any call that changes a file: what the command file names is always
//! there and good, and the next run converges.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;

use support::{client, prepared, succeed};
use system_image_formats::keyring::KeyringType;
use system_image_testkit::{Device, Keys, Published, keyring};

/// Calls that change what the next process finds. The tracer counts each name by itself.
const CALLS: [&str; 9] = [
    "openat",
    "write",
    "fsync",
    "rename",
    "unlink",
    "ftruncate",
    "mkdir",
    "chmod",
    "flock",
];

/// So many kills each test makes at least: with the 40 of the service more than 200 over check,
/// download and preparation.
const LEAST: u32 = 100;

/// Runs an update and kills it at its n-th call of that name; whether it came so far.
fn killed_at(device: &Device, call: &str, n: u32) -> bool {
    let plain = client(device);
    let status = Command::new("strace")
        .args(["--follow-forks", "--quiet=all", "--output=/dev/null"])
        .arg(format!("--trace={call}"))
        .arg(format!("--inject={call}:signal=KILL:when={n}"))
        .arg(plain.get_program())
        .args(plain.get_args())
        .args(["-p", "0"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    match (status.code(), status.signal()) {
        (Some(0), _) => false,
        (_, Some(9)) | (Some(137), _) => true,
        other => panic!("{other:?} at {call} {n}"),
    }
}

/// What a device has prepared: nothing, or an update of which every file is there and verified, or
/// this panics.
fn first_file(device: &Device) -> Option<String> {
    prepared(device).map(|updates| updates[0].clone())
}

/// Kills at every call. `begin` makes the device anew each time.
fn kill_everywhere(begin: impl Fn() -> Device + Sync, old: Option<&str>, new: &str) {
    let kills: u32 = thread::scope(|scope| {
        let workers = CALLS.map(|call| {
            let begin = &begin;
            scope.spawn(move || {
                let mut kills = 0;
                loop {
                    let device = begin();
                    // Files are opened for reading most of the time.
                    let n = if call == "openat" {
                        8 * kills + 1
                    } else {
                        kills + 1
                    };
                    if !killed_at(&device, call, n) {
                        break;
                    }
                    kills += 1;
                    let found = first_file(&device);
                    let fits = [None, old, Some(new)].contains(&found.as_deref());
                    assert!(fits, "{call} {n}: {found:?}");
                    succeed(&device, &["-p", "0"]);
                    assert_eq!(first_file(&device).as_deref(), Some(new), "{call} {n}");
                    let left: Vec<_> = device.dropped().into_keys().collect();
                    let whole = |name: &String| !name.contains(".part") && !name.contains(".new");
                    assert!(left.iter().all(whole), "{call} {n}: {left:?}");
                }
                kills
            })
        });
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    println!("{kills} kills");
    assert!(kills >= LEAST, "only {kills} calls were killed");
}

#[test]
fn a_first_update_is_killed_anywhere() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let begin = || Device::new(&keys).served_by(&web);
    kill_everywhere(begin, None, "ubuntu-1.full.tar.xz");
}

#[test]
fn an_update_that_replaces_another_one_and_its_keyrings_is_killed_anywhere() {
    let keys = Keys::generate();
    let before = Published::new(&keys).full(1);
    // The next one is signed by another key, and the version file has another content under the
    // same name.
    let next = &keys.next_image_signing;
    let after = Published::new(&keys).full(2).image(|image| {
        image.files[1].path = "/pool/version-1.tar.xz".parse().unwrap();
        image.files[1].signature = "/pool/version-1.tar.xz.asc".parse().unwrap();
    });
    let bytes = after.bytes("/pool/version-2.tar.xz");
    let after = after.put("/pool/version-1.tar.xz", &bytes).keyring(
        &keyring(KeyringType::ImageSigning, &[next]),
        &keys.image_master,
    );
    let after = [
        "/channels.json",
        "/stable/lamp/index.json",
        "/pool/ubuntu-2.full.tar.xz",
        "/pool/version-1.tar.xz",
    ]
    .into_iter()
    .fold(after, |after, path| after.signed_by(path, next));
    let (old, new) = (before.serve(), after.serve());
    let begin = || {
        let device = Device::new(&keys).served_by(&old);
        succeed(&device, &["-p", "0"]);
        device.served_by(&new)
    };
    let (old, new) = ("ubuntu-1.full.tar.xz", "ubuntu-2.full.tar.xz");
    kill_everywhere(begin, Some(old), new);
}

//! Of a file and its signature one is old and one is new, as a cache or a mirror in the middle of a
//! change shows them, or a crash leaves them: the mix is never taken, and the next update converges.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::{fs, thread};

use camino::Utf8PathBuf;
use support::faults::earlier;
use support::{prepared, refuse, run, succeed};
use system_image_formats::keyring::KeyringType;
use system_image_testkit::{Device, Fault, Keys, Published, keyring};

const OPTIONS: [&str; 2] = ["-p", "0"];
const BLACKLIST: &str = "/gpg/blacklist.tar.xz";

/// What has a signature, with the keyring that is kept of it.
const SIGNED: [(&str, Option<KeyringType>); 8] = [
    ("/gpg/image-master.tar.xz", Some(KeyringType::ImageMaster)),
    (BLACKLIST, Some(KeyringType::Blacklist)),
    ("/gpg/image-signing.tar.xz", Some(KeyringType::ImageSigning)),
    ("/channels.json", None),
    (
        "/stable/lamp/device-signing.tar.xz",
        Some(KeyringType::DeviceSigning),
    ),
    ("/stable/lamp/index.json", None),
    ("/pool/ubuntu-2.delta-1.tar.xz", None),
    ("/pool/version-2.tar.xz", None),
];

fn pair(path: &str) -> [String; 2] {
    [path.to_owned(), format!("{path}.asc")]
}

/// All keys are others than before, and the one that signed most is stolen.
fn rotated<'k>(keys: &'k Keys, next_device: &'k Keys) -> Published<'k> {
    let (master, signing) = (&keys.next_image_master, &keys.next_image_signing);
    let device = &next_device.device_signing;
    let tree = Published::new(keys).device_keyring().full(1).delta(1, 2);
    let tree = [
        (KeyringType::ImageMaster, master, &keys.archive_master),
        (KeyringType::ImageSigning, signing, master),
        (KeyringType::Blacklist, &keys.image_signing, master),
        (KeyringType::DeviceSigning, device, signing),
    ]
    .into_iter()
    .fold(tree, |tree, (kind, key, signer)| {
        tree.keyring(&keyring(kind, &[key]), signer)
    })
    .signed_by("/channels.json", signing);
    (SIGNED[5..].iter()).fold(tree, |tree, (path, _)| tree.signed_by(path, device))
}

/// The keyrings that a device keeps are whole pairs of one tree or the other.
fn keeps_whole_pairs(device: &Device, trees: [&Published<'_>; 2]) {
    for (path, kind) in SIGNED {
        let Some(kind) = kind else { continue };
        let kept = pair(device.kept(kind).as_str()).map(|place| fs::read(place).unwrap());
        let whole = trees.map(|tree| pair(path).map(|path| tree.bytes(&path)));
        assert!(whole.contains(&kept), "{kind}");
    }
}

#[test]
fn a_rotation_that_shows_one_old_file_is_refused_until_all_are_new() {
    let (keys, others) = (Keys::generate(), Keys::generate());
    let before = earlier(&keys).blacklist(&[&others.stranger]);
    let after = rotated(&keys, &others);
    thread::scope(|scope| {
        for path in SIGNED.map(|(path, _)| pair(path)).concat() {
            let (keys, before, after) = (&keys, &before, &after);
            scope.spawn(move || {
                let web = before.serve();
                let device = Device::new(keys).served_by(&web);
                succeed(&device, &["-p", "0", "-m", "1"]);
                let web = after.serve_after(before);
                let device = device.at_version(1).served_by(&web);
                web.fails(&path, Fault::Old);
                let err = refuse(&device, &OPTIONS);
                let told = ["has no good signature", "HASH ERROR: "];
                assert!(told.iter().any(|told| err.contains(told)), "{path}: {err}");
                keeps_whole_pairs(&device, [before, after]);
                assert_eq!(prepared(&device).unwrap()[0], "ubuntu-1.full.tar.xz");

                web.recovers();
                succeed(&device, &OPTIONS);
                keeps_whole_pairs(&device, [after, after]);
                assert_eq!(prepared(&device).unwrap()[0], "ubuntu-2.delta-1.tar.xz");
            });
        }
    });
}

#[test]
fn a_blacklist_of_which_one_file_is_old_leaves_the_last_one_in_place() {
    let (keys, others) = (Keys::generate(), Keys::generate());
    let before = earlier(&keys).blacklist(&[&others.stranger]);
    let tree = Published::new(&keys).device_keyring().full(1).delta(1, 2);
    let after = tree.blacklist(&[&others.image_signing]);
    for path in pair(BLACKLIST) {
        let web = before.serve();
        let device = Device::new(&keys).served_by(&web);
        succeed(&device, &["-p", "0", "-m", "1"]);
        let place = device.kept(KeyringType::Blacklist);
        let web = after.serve_after(&before);
        let device = device.at_version(1).served_by(&web);
        web.fails(&path, Fault::Old);
        succeed(&device, &OPTIONS);
        assert_eq!(fs::read(&place).unwrap(), before.bytes(BLACKLIST), "{path}");
        keeps_whole_pairs(&device, [&before, &after]);

        web.recovers();
        succeed(&device, &OPTIONS);
        assert_eq!(fs::read(&place).unwrap(), after.bytes(BLACKLIST), "{path}");
    }
}

#[test]
fn on_the_device_one_old_file_is_found_out_and_replaced() {
    let (keys, others) = (Keys::generate(), Keys::generate());
    let before = earlier(&keys).blacklist(&[&others.stranger]);
    let tree = Published::new(&keys).device_keyring().full(1).delta(1, 2);
    let after = tree.blacklist(&[&others.image_signing]);
    let web = after.serve();
    let device = Device::new(&keys).served_by(&web).at_version(1);
    succeed(&device, &OPTIONS);
    for (path, kind) in SIGNED {
        let name = path.rsplit('/').next().unwrap();
        let dropped = device.drop_box().join(name);
        let is_handed_over = dropped.exists();
        let places: Vec<Utf8PathBuf> = kind.map(|kind| device.kept(kind)).into_iter().collect();
        for place in places.iter().chain(is_handed_over.then_some(&dropped)) {
            for (place, path) in pair(place.as_str()).into_iter().zip(pair(path)) {
                fs::write(&place, before.bytes(&path)).unwrap();
                if is_handed_over && place.starts_with(dropped.as_str()) {
                    let applied = run(&device, &["--apply"]);
                    assert_eq!(applied.code, Some(1), "{place}: {}", applied.err);
                }
                succeed(&device, &OPTIONS);
                assert_eq!(fs::read(&place).unwrap(), after.bytes(&path), "{place}");
                keeps_whole_pairs(&device, [&after, &after]);
                assert_eq!(prepared(&device).unwrap()[0], "ubuntu-2.delta-1.tar.xz");
            }
        }
    }
}

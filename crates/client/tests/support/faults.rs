//! Every request of an update fails in every way, one after another, and then no more. Whichever
//! face of the client is asked says what is wrong and leaves what was prepared before; the next
//! update converges.

use std::process::Command;
use std::{fs, thread};

use camino::Utf8Path;
use system_image_formats::keyring::KeyringType;
use system_image_formats::time::GeneratedAt;
use system_image_testkit::{CHANNEL, Device, Fault, Keys, MADE, Published};

use super::{give_up_soon, prepared, succeed};

/// What an update of these tests fetches, in this order: pairs of a file and its signature.
const DOCUMENTS: [&str; 14] = [
    "/gpg/image-master.tar.xz",
    "/gpg/image-master.tar.xz.asc",
    "/gpg/image-signing.tar.xz",
    "/gpg/image-signing.tar.xz.asc",
    "/channels.json",
    "/channels.json.asc",
    "/stable/lamp/device-signing.tar.xz",
    "/stable/lamp/device-signing.tar.xz.asc",
    "/stable/lamp/index.json",
    "/stable/lamp/index.json.asc",
    "/pool/ubuntu-2.delta-1.tar.xz",
    "/pool/ubuntu-2.delta-1.tar.xz.asc",
    "/pool/version-2.tar.xz",
    "/pool/version-2.tar.xz.asc",
];

/// What goes wrong, and the ways in which it may be told.
const FAULTS: [(Fault, &[&str]); 9] = [
    (
        Fault::Status("404 Not Found"),
        &["returned error: 404: ", "the server has no `"],
    ),
    (
        Fault::Status("500 Internal Server Error"),
        &["returned error: 500: "],
    ),
    (Fault::Garbage, &["The server's answer makes no sense: "]),
    (Fault::Hang, &["Operation too slow or timed out: "]),
    (Fault::Stall(20), &["Operation too slow or timed out: "]),
    (Fault::Cut(20), &["The connection was closed before"]),
    (
        Fault::Endless,
        &["Maximum file size of ", " bytes instead of "],
    ),
    (
        Fault::LogInPage,
        &[
            "has no good signature",
            "the signature cannot be used",
            " bytes instead of ",
        ],
    ),
    (Fault::Old, &["has no good signature", "HASH ERROR: "]),
];

/// A face of the client: the command line, or the service on the bus.
pub(crate) trait Face {
    /// An update that must fail; what is said about it.
    fn fails(&self, device: &Device) -> String;
    /// An update that must be prepared in the end.
    fn updates(&self, device: &Device);
}

/// Lets each document fail in each way while the others are good. `face` is given each device with
/// what is to be done with its face.
pub(crate) fn each_document_fails(face: impl Fn(&Device, &dyn Fn(&dyn Face)) + Sync) {
    let keys = Keys::generate();
    let tree = published(&keys);
    let before = earlier(&keys);
    thread::scope(|scope| {
        for path in DOCUMENTS {
            let (keys, tree, before, face) = (&keys, &tree, &before, &face);
            scope.spawn(move || {
                let web = tree.serve_after(before);
                let device = Device::new(keys).served_by(&web);
                face(&device, &|face| {
                    for (fault, wants) in FAULTS {
                        begin(&device);
                        web.fails(path, fault);
                        let said = face.fails(&device);
                        let told = wants.iter().any(|want| said.contains(want));
                        assert!(
                            told && said.contains(stem(path)),
                            "{path} {fault:?}: {said}"
                        );
                        let first = prepared(&device).unwrap().swap_remove(0);
                        assert_eq!(first, "ubuntu-1.full.tar.xz", "{path} {fault:?}");

                        web.recovers();
                        give_up_later(&device);
                        face.updates(&device);
                        let first = prepared(&device).unwrap().swap_remove(0);
                        assert_eq!(first, "ubuntu-2.delta-1.tar.xz", "{path} {fault:?}");
                    }
                });
            });
        }
    });
}

fn published(keys: &Keys) -> Published<'_> {
    Published::new(keys).device_keyring().full(1).delta(1, 2)
}

/// The same with other bytes in every document, each of them signed well.
pub(crate) fn earlier(keys: &Keys) -> Published<'_> {
    let tree = published(keys)
        .alias("devel")
        .index(|index| index.global.generated_at = GeneratedAt::from_unix(MADE - 1));
    let kinds = [
        KeyringType::ImageMaster,
        KeyringType::ImageSigning,
        KeyringType::DeviceSigning,
    ];
    let tree = kinds.into_iter().fold(tree, |tree, kind| {
        let mut keyring = keys.keyring(kind);
        keyring.info.expiry = Some(i64::from(u32::MAX));
        tree.keyring(&keyring, keys.of(kind.signer()))
    });
    // The first of each pair.
    let files = DOCUMENTS.iter().step_by(2);
    let payloads = files.filter(|path| path.starts_with("/pool/"));
    payloads.fold(tree, |tree, path| {
        tree.damage(path).signed_by(path, &keys.device_signing)
    })
}

/// A device that has version 1 installed and prepared, and knows nothing else. What is the same each
/// time is made once.
fn begin(device: &Device) {
    let begun = device.path("begun");
    let _ = fs::remove_dir_all(device.path("keyrings"));
    if begun.exists() {
        for directory in ["cache", "data"] {
            fs::remove_dir_all(device.path(directory)).unwrap();
            copy(&begun.join(directory), &device.path(directory));
        }
    } else {
        device.installed(CHANNEL, 0, "");
        succeed(device, &["-p", "0", "-m", "1"]);
        fs::remove_dir_all(device.path("keyrings")).unwrap();
        fs::create_dir(&begun).unwrap();
        for directory in ["cache", "data"] {
            copy(&device.path(directory), &begun.join(directory));
        }
    }
    give_up_soon(device);
    device.installed(CHANNEL, 1, "");
}

fn copy(from: &Utf8Path, to: &Utf8Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success(), "{from}");
}

fn give_up_later(device: &Device) {
    device.configure("06_downloads.ini", "");
}

/// A document's name without what a keyring or a signature adds to it.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap();
    name.split('.').next().unwrap()
}

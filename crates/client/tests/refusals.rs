//! What must not be believed: damaged files, wrong keys, wrong keyrings (client spec, section 8).
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::{fs, thread};

use support::{prepared, refuse, succeed};
use system_image_formats::keyring::KeyringType;
use system_image_testkit::{Device, Fault, Keys, MADE, Published, keyring};
use system_image_trust::Keyring;

const OPTIONS: [&str; 2] = ["-p", "0"];
const CHANNELS: &str = "/channels.json";
const INDEX: &str = "/stable/lamp/index.json";
const PAYLOAD: &str = "/pool/ubuntu-2.delta-1.tar.xz";
const SIGNING: &str = "/gpg/image-signing.tar.xz";
const MASTER: &str = "/gpg/image-master.tar.xz";
const BLACKLIST: &str = "/gpg/blacklist.tar.xz";

/// A device that has an update prepared, and a server that has another one: what is refused must
/// leave the first one alone.
fn tree(keys: &Keys) -> Published<'_> {
    Published::new(keys).full(1).delta(1, 2)
}

fn prepared_device(keys: &Keys, tree: &Published<'_>) -> Device {
    let web = tree.serve();
    let device = Device::new(keys).served_by(&web);
    succeed(&device, &["-p", "0", "-m", "1"]);
    assert_eq!(prepared(&device).unwrap().len(), 2);
    device.at_version(1)
}

/// Spoils a tree after a device has prepared an update; the client refuses, and `want` stands in
/// what it says.
fn refused(want: &str, spoil: impl for<'k> FnOnce(&'k Keys, Published<'k>) -> Published<'k>) {
    let keys = Keys::generate();
    let tree = tree(&keys);
    let device = prepared_device(&keys, &tree);
    let tree = spoil(&keys, tree);
    let web = tree.serve();
    let device = device.served_by(&web);
    let err = refuse(&device, &OPTIONS);
    assert!(err.contains(want), "{err}");
    assert_eq!(prepared(&device).unwrap().len(), 2, "still the first one");
}

#[test]
fn a_damaged_payload_is_refused() {
    refused("caused by: HASH ERROR: ", |_, tree| tree.damage(PAYLOAD));
}

#[test]
fn a_payload_that_is_not_what_was_signed_is_refused() {
    // The index is right about it, its signature is of something else.
    refused(
        "ubuntu-2.delta-1.tar.xz` has no good signature\ncaused by: the content does not match",
        |_, tree| {
            let other = tree.bytes("/pool/version-1.tar.xz.asc");
            tree.put(&format!("{PAYLOAD}.asc"), &other)
        },
    );
}

#[test]
fn a_payload_of_the_wrong_size_is_refused() {
    refused("bytes instead of", |_, tree| {
        let bytes = [tree.bytes(PAYLOAD), b"x".to_vec()].concat();
        tree.put(PAYLOAD, &bytes)
    });
    refused("bytes instead of", |_, tree| {
        tree.image(|image| image.files[0].size += 1)
    });
}

#[test]
fn a_payload_too_large_for_any_disk_is_refused_before_its_first_byte() {
    for size in [1 << 50, u64::MAX] {
        refused("\nhint: free ", |_, tree| {
            tree.image(|image| {
                image.files[0].size = size;
                image.files[1].size = size;
            })
        });
    }
}

#[test]
fn a_payload_by_an_unknown_key_is_refused_before_its_first_byte() {
    let keys = Keys::generate();
    let tree = tree(&keys).signed_by(PAYLOAD, &keys.stranger);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web).at_version(1);
    let err = refuse(&device, &OPTIONS);
    assert!(err.contains("which is not a trusted key here"), "{err}");
    assert!(!web.paths().contains(&PAYLOAD.to_owned()));
}

#[test]
fn documents_by_an_unknown_key_are_refused() {
    for (path, what) in [
        (CHANNELS, "`channels.json` has no good signature"),
        (INDEX, "`stable/lamp/index.json` has no good signature"),
    ] {
        refused(what, |keys, tree| tree.signed_by(path, &keys.stranger));
        refused(what, |keys, tree| tree.signed_by(path, &keys.image_master));
        refused(what, |_, tree| tree.damage(path));
        // It is not even parsed.
        refused(what, |keys, tree| {
            tree.put(path, b"[").signed_by(path, &keys.stranger)
        });
        refused(what, |_, tree| {
            tree.put(&format!("{path}.asc"), b"not a signature")
        });
    }
}

#[test]
fn a_device_key_signs_no_channels() {
    refused("`channels.json` has no good signature", |keys, tree| {
        tree.device_keyring()
            .signed_by(CHANNELS, &keys.device_signing)
    });
}

#[test]
fn keys_on_the_blacklist_are_refused() {
    for path in [CHANNELS, INDEX, PAYLOAD] {
        refused("which is on the blacklist", |keys, tree| {
            // Both keys are in the keyring, the old one is stolen.
            let both = keyring(
                KeyringType::ImageSigning,
                &[&keys.image_signing, &keys.next_image_signing],
            );
            let next = &keys.next_image_signing;
            let tree = tree
                .keyring(&both, &keys.image_master)
                .blacklist(&[&keys.image_signing]);
            [CHANNELS, INDEX, PAYLOAD, "/pool/version-2.tar.xz"]
                .into_iter()
                .filter(|other| *other != path)
                .fold(tree, |tree, other| tree.signed_by(other, next))
        });
    }
    refused("which is on the blacklist", |keys, tree| {
        tree.device_keyring().blacklist(&[&keys.device_signing])
    });
}

#[test]
fn a_keyring_signed_by_a_blacklisted_master_is_refused_and_a_new_one_is_taken() {
    let keys = Keys::generate();
    let tree = tree(&keys);
    let device = prepared_device(&keys, &tree);
    // The master key was stolen: the new one blacklists it.
    let next = &keys.next_image_master;
    let tree = tree
        .keyring(
            &keyring(KeyringType::ImageMaster, &[next]),
            &keys.archive_master,
        )
        .keyring(
            &keyring(KeyringType::Blacklist, &[&keys.image_master]),
            next,
        );
    let web = tree.serve();
    let device = device.served_by(&web);
    let err = refuse(&device, &OPTIONS);
    assert!(
        err.contains("the image-signing keyring has no good signature"),
        "{err}"
    );
    let _tree = tree.signed_by(SIGNING, next);
    succeed(&device, &OPTIONS);
    assert_eq!(prepared(&device).unwrap()[0], "ubuntu-2.delta-1.tar.xz");
}

fn with(kind: KeyringType, keys: &Keys, change: impl FnOnce(&mut Keyring)) -> Keyring {
    let mut keyring = keys.keyring(kind);
    change(&mut keyring);
    keyring
}

type Change = fn(&mut Keyring);

#[test]
fn keyrings_of_another_type_or_model_or_time_are_refused() {
    use KeyringType::{ArchiveMaster, DeviceSigning, ImageMaster, ImageSigning};
    for (kind, path) in [
        (ImageMaster, MASTER),
        (ImageSigning, SIGNING),
        (DeviceSigning, "/stable/lamp/device-signing.tar.xz"),
    ] {
        let cases: [(&str, Change); 3] = [
            ("keyring type mismatch; wanted: ", |k| {
                k.info.kind = ArchiveMaster;
            }),
            ("keyring model mismatch; wanted: lamp, got: tango", |k| {
                k.info.model = Some("tango".parse().unwrap());
            }),
            (
                "expired keyring timestamp\nhint: it expired at 2025-06-",
                |k| {
                    k.info.expiry = Some(MADE + 1000);
                },
            ),
        ];
        for (want, change) in cases {
            let keys = Keys::generate();
            let keyring = with(kind, &keys, change);
            let tree =
                tree(&keys)
                    .device_keyring()
                    .keyring_at(path, &keyring, keys.of(kind.signer()));
            let web = tree.serve();
            let device = Device::new(&keys).served_by(&web);
            let err = refuse(&device, &OPTIONS);
            assert!(err.contains(want), "{kind}: {err}");
        }
    }
}

#[test]
fn keyrings_by_the_wrong_signer_are_refused() {
    for (path, want) in [
        (MASTER, "the image-master keyring has no good signature"),
        (SIGNING, "the image-signing keyring has no good signature"),
        (
            "/stable/lamp/device-signing.tar.xz",
            "the device-signing keyring has no good signature",
        ),
    ] {
        let keys = Keys::generate();
        for signer in [&keys.stranger, &keys.device_signing] {
            let tree = tree(&keys).device_keyring().signed_by(path, signer);
            let web = tree.serve();
            let err = refuse(&Device::new(&keys).served_by(&web), &OPTIONS);
            assert!(err.contains(want), "{err}");
        }
    }
}

#[test]
fn without_a_trust_root_nothing_is_asked_for() {
    let keys = Keys::generate();
    let tree = tree(&keys);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    fs::remove_file(device.archive_master()).unwrap();
    let err = refuse(&device, &OPTIONS);
    assert!(
        err.contains("caused by: cannot read the trust root `"),
        "{err}"
    );
    assert!(
        err.contains("\nhint: put the publisher's archive-master keyring there"),
        "{err}"
    );
    fs::write(device.archive_master(), "not an archive").unwrap();
    let output = support::run(&device, &OPTIONS);
    assert!(
        output.err.contains("is not usable as trust root\n"),
        "{}",
        output.err
    );
    assert_eq!(output.code, Some(1));
    assert_eq!(web.asked().len(), 0);
}

#[test]
fn a_kept_keyring_that_has_expired_or_is_damaged_is_fetched_again() {
    let keys = Keys::generate();
    let tree = tree(&keys);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    succeed(&device, &["-n", "-p", "0"]);
    for kind in [KeyringType::ImageMaster, KeyringType::ImageSigning] {
        let old = with(kind, &keys, |keyring| {
            keyring.info.expiry = Some(MADE + 1000);
        });
        let archive = old.pack();
        let signature = system_image_testkit::sign(keys.of(kind.signer()), &archive);
        let place = device.kept(kind);
        let good = fs::read(&place).unwrap();
        fs::write(&place, archive).unwrap();
        fs::write(format!("{place}.asc"), signature).unwrap();
        succeed(&device, &["-n", "-p", "0"]);
        assert_eq!(fs::read(&place).unwrap(), good, "{kind}");

        fs::write(&place, "half").unwrap();
        succeed(&device, &["-n", "-p", "0"]);
        assert_eq!(fs::read(&place).unwrap(), good, "{kind}");
    }
}

#[test]
fn a_rotated_signing_key_is_picked_up_wherever_it_shows_first() {
    for news in [
        &[CHANNELS, INDEX, PAYLOAD][..],
        &[CHANNELS],
        &[INDEX],
        &[PAYLOAD],
    ] {
        let keys = Keys::generate();
        let tree = tree(&keys);
        let device = prepared_device(&keys, &tree);
        let both = keyring(
            KeyringType::ImageSigning,
            &[&keys.image_signing, &keys.next_image_signing],
        );
        let tree = tree.keyring(&both, &keys.image_master);
        let tree = news.iter().fold(tree, |tree, path| {
            tree.signed_by(path, &keys.next_image_signing)
        });
        let web = tree.serve();
        let device = device.served_by(&web);
        succeed(&device, &OPTIONS);
        assert_eq!(
            prepared(&device).unwrap()[0],
            "ubuntu-2.delta-1.tar.xz",
            "{news:?}"
        );
        let fetched = web.paths().iter().filter(|path| *path == SIGNING).count();
        assert_eq!(fetched, 1, "{news:?}");
    }
}

#[test]
fn a_rotated_master_key_is_picked_up() {
    let keys = Keys::generate();
    let tree = tree(&keys);
    let device = prepared_device(&keys, &tree);
    let next = &keys.next_image_master;
    let signing = keyring(KeyringType::ImageSigning, &[&keys.next_image_signing]);
    let tree = tree
        .keyring(
            &keyring(KeyringType::ImageMaster, &[next]),
            &keys.archive_master,
        )
        .keyring(&signing, next);
    let tree = [CHANNELS, INDEX, PAYLOAD, "/pool/version-2.tar.xz"]
        .into_iter()
        .fold(tree, |tree, path| {
            tree.signed_by(path, &keys.next_image_signing)
        });
    let web = tree.serve();
    let device = device.served_by(&web);
    succeed(&device, &OPTIONS);
    assert_eq!(prepared(&device).unwrap()[0], "ubuntu-2.delta-1.tar.xz");
}

#[test]
fn signed_documents_that_make_no_sense_are_refused() {
    for (path, text) in [
        (CHANNELS, "[]"),
        (CHANNELS, "{\"stable\": {}}"),
        (
            CHANNELS,
            "{\"stable\": {\"devices\": {\"lamp\": {\"index\": \"/../etc/passwd\"}}}}",
        ),
        (INDEX, "{}"),
        (
            INDEX,
            "{\"global\": {\"generated_at\": \"yesterday\"}, \"images\": []}",
        ),
        (
            INDEX,
            "{\"images\": [{\"type\": \"full\", \"version\": 99999999999999999999}]}",
        ),
    ] {
        let name = path.trim_start_matches('/');
        refused(
            &format!("`{name}` cannot be used\ncaused by: "),
            |keys, tree| {
                tree.put(path, text.as_bytes())
                    .signed_by(path, &keys.image_signing)
            },
        );
    }
}

#[test]
fn an_index_cannot_name_files_that_are_not_payloads() {
    for name in [
        "ubuntu_command",
        "image-signing.tar.xz",
        "image-master.tar.xz.asc",
        "x.tar.xz.part",
        "version-2.tar.xz.asc",
    ] {
        refused(&format!("cannot be called `{name}`"), |_, tree| {
            tree.image(|image| image.files[1].path = format!("/pool/{name}").parse().unwrap())
                .image(|image| {
                    if name.starts_with("version") {
                        let mut file = image.files[0].clone();
                        file.path = "/pool/version-2.tar.xz".parse().unwrap();
                        image.files.insert(0, file);
                    }
                })
        });
    }
}

/// A server without a blacklist, or one that lists a key which signs nothing any more, and then
/// fails to serve it; whether the update goes on.
fn blacklist_fails(had_one: bool, fault: Fault) -> Result<(), String> {
    let keys = Keys::generate();
    let mut tree = tree(&keys);
    if had_one {
        tree = tree.blacklist(&[&keys.stranger]);
    }
    let device = prepared_device(&keys, &tree);
    let tree = tree.blacklist(&[&keys.stranger]);
    let web = tree.serve();
    web.fails(BLACKLIST, fault);
    let device = device.served_by(&web);
    if fault == Fault::Hang {
        support::give_up_soon(&device);
    }
    let ran = support::run(&device, &OPTIONS);
    match ran.code {
        Some(0) => {
            assert_eq!(prepared(&device).unwrap()[0], "ubuntu-2.delta-1.tar.xz");
            Ok(())
        }
        _ => Err(ran.err),
    }
}

#[test]
fn a_server_that_says_it_has_no_blacklist_has_none() {
    for had_one in [false, true] {
        assert_eq!(
            blacklist_fails(had_one, Fault::Status("404 Not Found")),
            Ok(())
        );
        assert_eq!(blacklist_fails(had_one, Fault::Status("410 Gone")), Ok(()));
    }
}

#[test]
fn when_the_blacklist_does_not_come_the_last_one_counts_and_without_one_nothing_is_updated() {
    let faults = [
        Fault::Status("500 Internal Server Error"),
        Fault::Status("403 Forbidden"),
        Fault::Garbage,
        Fault::LogInPage,
        Fault::Hang,
        Fault::Endless,
        Fault::Cut(10),
        Fault::Longer,
    ];
    thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || {
                assert_eq!(blacklist_fails(true, fault), Ok(()), "{fault:?}");
                let err = blacklist_fails(false, fault).unwrap_err();
                let told = err.contains("blacklist") && err.contains("\nhint: ");
                assert!(told, "{fault:?}: {err}");
            });
        }
    });
}

#[test]
fn the_last_blacklist_still_refuses_its_keys() {
    let keys = Keys::generate();
    let tree = tree(&keys).blacklist(&[&keys.stranger]);
    let device = prepared_device(&keys, &tree);
    let both = keyring(
        KeyringType::ImageSigning,
        &[&keys.image_signing, &keys.stranger],
    );
    let tree = tree
        .keyring(&both, &keys.image_master)
        .signed_by(INDEX, &keys.stranger);
    let web = tree.serve();
    web.fails(BLACKLIST, Fault::Status("500 Internal Server Error"));
    let device = device.served_by(&web);
    let err = refuse(&device, &OPTIONS);
    assert!(err.contains("which is on the blacklist"), "{err}");
}

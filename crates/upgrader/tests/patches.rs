//! Updates by patches: they make the same archives as deltas out of what is installed, or nothing.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]
#![allow(
    clippy::unnecessary_debug_formatting,
    reason = "a path in quotes is a string of TOML"
)]

mod support;

use std::fs;

use support::{Device, device, expected, outcome};
use system_image_testkit::tree::{Tree, assert_equal, snapshot};
use system_image_testkit::{patch, xz};

fn text(word: &str) -> Vec<u8> {
    let lines = (0..4000).map(|i| format!("{word} {}\n", i * i));
    lines.collect::<String>().into_bytes()
}

fn one() -> Tree {
    Tree::new()
        .dir("etc")
        .file("etc/build", "1\n")
        .file("etc/text", text("line"))
        .dir("gone")
        .file("gone/text", text("other"))
}

/// The content of a file that is gone by then is at another place, and of a changed one most is kept.
fn two() -> Tree {
    let mut changed = text("line");
    changed.splice(100..100, *b"something new\n");
    one()
        .without("gone")
        .file("etc/build", "2\n")
        .file("etc/text", changed)
        .dir("new")
        .file("new/text", text("other"))
}

fn installed(way: &str) -> Device {
    let device = device();
    let system = device.system();
    device.configure(&format!("directory = {system:?}\nway = {way:?}"));
    device.full(&one());
    device.upgrade_well();
    device
}

fn assert_installed(device: &Device, tree: &Tree, context: &str) {
    let fresh = tempfile::tempdir().unwrap();
    expected(tree, fresh.path());
    assert_equal(
        &snapshot(&device.system()),
        &snapshot(fresh.path()),
        context,
    );
}

#[test]
fn a_patch_makes_the_same_system_as_a_delta_whichever_way() {
    let packed = xz(&system_image_testkit::between(&one(), &two()));
    assert!(patch(&one(), &two()).len() * 4 < packed.len());
    for way in ["auto", "beside", "direct"] {
        let device = installed(way);
        device.patch_and_deltas(&[&one(), &two()]);
        device.upgrade_well();
        assert_installed(&device, &two(), way);
        assert_eq!(device.dropped(), [] as [&str; 0]);
        assert!(!device.path("data/.system-image").exists(), "{way}");
        // What comes behind a patch starts from what it leads to.
        let device = installed(way);
        device.patch_and_deltas(&[&one(), &two(), &one(), &two()]);
        device.upgrade_well();
        assert_installed(&device, &two(), way);
    }
}

#[test]
fn a_system_that_was_changed_is_left_as_it_is() {
    for way in ["beside", "direct"] {
        let device = installed(way);
        fs::write(device.system().join("gone/text"), "by the user").unwrap();
        let before = snapshot(&device.system());
        device.patch_and_deltas(&[&one(), &two()]);
        let output = device.upgrade();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("`gone/text` is not as it was installed"),
            "{said}"
        );
        assert!(said.contains("comes without patches"), "{said}");
        assert_equal(&snapshot(&device.system()), &before, way);
        assert_eq!(outcome(&device)["outcome"], "refused");
        assert!(!device.path("data/.system-image").exists(), "{way}");
        // A delta leads on.
        device.deltas(&[&one(), &two()]);
        device.upgrade_well();
    }
}

#[test]
fn a_patch_takes_no_more_memory_than_the_settings_allow() {
    let device = installed("auto");
    let settings = fs::read_to_string(device.settings()).unwrap();
    let settings = format!("{settings}[limits]\npatch_memory_mib = 1\n");
    fs::write(device.settings(), settings).unwrap();
    device.patch_and_deltas(&[&one(), &two()]);
    let output = device.upgrade();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("memory, and 1048576 are allowed"), "{said}");
    assert!(said.contains("patch_memory_mib"), "{said}");
    assert_installed(&device, &one(), "refused");
}

#[test]
fn a_patch_that_is_cut_or_for_nothing_installed_is_refused() {
    let whole = patch(&one(), &two());
    for content in [&whole[..whole.len() - 1], &whole[..40], &whole[..8]] {
        let device = installed("auto");
        let lines = device.drop_keyrings() + "mount system\n";
        let update = device.drop_packed_update("ubuntu-1.patch", content);
        device.command(&(lines + &update));
        assert_eq!(device.upgrade().status.code(), Some(1));
        assert_installed(&device, &one(), "cut");
    }
    let device = device();
    device.patch_and_deltas(&[&one(), &two()]);
    assert_eq!(device.upgrade().status.code(), Some(1));
    assert_eq!(outcome(&device)["outcome"], "refused");
}

/// A target with content that packs badly, so that the archive has several blocks.
fn long() -> Tree {
    let mut state = 1_u32;
    let bytes = std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    two().file("new/long", bytes.take(1_500_000).collect::<Vec<_>>())
}

#[test]
fn an_archive_that_was_cut_off_is_gone_on_with() {
    let whole = system_image_testkit::between(&one(), &long());
    let block = 512 << 10;
    assert!(whole.len() > 2 * block + 1000);
    let mut damaged = whole.clone();
    damaged[block + 5] ^= 1;
    for way in ["beside", "direct"] {
        for (left, used) in [
            (&whole[..2 * block + 1000], 2 * block),
            (&damaged[..], block),
            (&whole[..], whole.len()),
            (&[&whole[..], b"more"].concat()[..], whole.len()),
            (&[7; 100][..], 0),
        ] {
            let device = installed(way);
            device.patch_and_deltas(&[&one(), &long()]);
            let archives = device.path("data/.system-image/archives");
            fs::create_dir_all(&archives).unwrap();
            fs::write(archives.join("0"), left).unwrap();
            // Of something else; nobody asks for it any more.
            fs::write(archives.join("7"), "other").unwrap();
            let output = device.upgrade_well();
            let said = String::from_utf8_lossy(&output.stderr);
            let told = format!("an earlier run had made {used} bytes");
            assert_eq!(said.contains(&told), used > 0, "{said}");
            assert_installed(&device, &long(), way);
            assert!(!device.path("data/.system-image").exists(), "{way}");
        }
    }
}

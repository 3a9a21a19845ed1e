//! Patches between images of file systems: what is in them is seen.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod samples;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use system_image_delta::patch::{Limits, Patch};
use system_image_delta_build::patch::{Effort, Options, make};

use samples::{noise, text};

const OPTIONS: Options<'_> = Options {
    memory: 90 << 20,
    threads: 2,
    effort: Effort::Default,
    packings: None,
};

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A tree of files, of the first or of the second version.
fn tree(is_second: bool) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let version = if is_second { "6.1.0-56" } else { "6.1.0-50" };
    let put = |path: &str, bytes: &[u8]| {
        let full = root.path().join(path);
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(full, bytes).unwrap();
    };
    // A program with changed addresses, a hole, and something new in the middle.
    let mut module = noise(7, 300_000);
    module[40_000..80_000].fill(0);
    if is_second {
        for at in (0..module.len()).step_by(901) {
            module[at] = module[at].wrapping_add(3);
        }
        module.splice(150_000..150_000, noise(8, 300));
        put("a-new-file", &noise(12, 3000));
    }
    put(&format!("lib/{version}/a.ko"), &module);
    put("lib/same", &noise(9, 250_000));
    let log = root.path().join("changelog");
    put("changelog", &text(0..if is_second { 9100 } else { 9000 }));
    run(Command::new("gzip").arg("-9n").arg(&log));
    for i in 0..300 {
        put(&format!("etc/settings-{i}"), &text(i * 20..i * 20 + 7));
    }
    let moved = if is_second { "share/new" } else { "share/old" };
    put(moved, &noise(10, 60_000));
    root
}

fn ext4(root: &Path, options: &[&str]) -> File {
    let image = tempfile::NamedTempFile::new().unwrap();
    run(Command::new("mkfs.ext4")
        .args([
            "-q",
            "-F",
            "-U",
            "5de5a1c2-0000-4000-8000-0000000000aa",
            "-d",
        ])
        .arg(root)
        .args(["-E", "hash_seed=5de5a1c2-0000-4000-8000-0000000000bb"])
        .args(options)
        .arg(image.path())
        .arg("12M"));
    image.into_file()
}

fn squashfs(root: &Path, options: &[&str]) -> File {
    let image = tempfile::NamedTempFile::new().unwrap();
    run(Command::new("mksquashfs")
        .arg(root)
        .arg(image.path())
        .args([
            "-noappend",
            "-quiet",
            "-no-progress",
            "-all-root",
            "-comp",
            "zstd",
        ])
        .args(options));
    File::open(image.path()).unwrap()
}

/// The length of the patch, which is proved to make the target.
fn patched(base: &File, target: &File) -> usize {
    let mut patch = Vec::new();
    make(base, target, OPTIONS, &mut patch).unwrap();
    let mut out = tempfile::tempfile().unwrap();
    let opened = Patch::open(&patch[..]).unwrap();
    opened.apply(base, &mut out, Limits::default()).unwrap();
    let read = |file: &File| {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).unwrap();
        bytes
    };
    assert!(read(&out) == read(target));
    patch.len()
}

/// Where the two logs differ, in their packed form: blocks within blocks are not looked into.
const END_OF_LOG: usize = 17_700;

/// What is new, packed: noise, lines of a log, and changes to a program.
const NEW: usize = 3000 + 300 + 1000 + 2000;

#[test]
fn files_in_an_ext4_image_are_seen() {
    let [old, new] = [false, true].map(tree);
    for (options, more) in [
        (&["-b", "4096"][..], 0),
        // Without extents there is a block of pointers in the middle of each file.
        (&["-b", "1024", "-O", "^extent,^64bit"], END_OF_LOG),
    ] {
        let len = patched(&ext4(old.path(), options), &ext4(new.path(), options));
        // Each of the 300 inodes has other times and another place.
        assert!(len < NEW + more + 9000, "{options:?}: {len} bytes");
    }
}

#[test]
fn an_image_can_come_from_one_of_another_kind() {
    let [old, new] = [false, true].map(tree);
    let tar = tempfile::NamedTempFile::new().unwrap();
    run(Command::new("tar")
        .args(["--format=pax", "-cf"])
        .arg(tar.path())
        .arg("-C")
        .arg(old.path())
        .arg("."));
    let len = patched(tar.as_file(), &ext4(new.path(), &["-b", "4096"]));
    assert!(len < NEW + 25_000, "{len} bytes");
}

#[test]
fn blocks_of_a_squashfs_image_are_seen_in_their_plain_form() {
    let [old, new] = [false, true].map(tree);
    for options in [&[][..], &["-b", "32K", "-Xcompression-level", "5"]] {
        let len = patched(
            &squashfs(old.path(), options),
            &squashfs(new.path(), options),
        );
        assert!(len < NEW + END_OF_LOG, "{options:?}: {len} bytes");
    }
}

/// An archive with this image behind a file.
fn archive(image: &File, file: &[u8]) -> File {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a"), file).unwrap();
    let mut copy = File::create(root.path().join("system.img")).unwrap();
    std::io::copy(&mut &*image, &mut copy).unwrap();
    let tar = tempfile::NamedTempFile::new().unwrap();
    run(Command::new("tar")
        .arg("-cf")
        .arg(tar.path())
        .arg("-C")
        .arg(root.path())
        .args(["a", "system.img"]));
    tar.into_file()
}

#[test]
fn images_within_archives_are_seen_wherever_they_stand() {
    let [old, new] = [false, true].map(tree);
    for images in [
        [&old, &new].map(|root| ext4(root.path(), &["-b", "4096"])),
        [&old, &new].map(|root| squashfs(root.path(), &[])),
    ] {
        use std::io::Seek;
        let [old, new] = &images;
        let alone = patched(old, new);
        for mut image in [old, new] {
            image.rewind().unwrap();
        }
        // Its blocks are at other places there.
        let [old, new] = [
            archive(old, &noise(20, 100)),
            archive(new, &noise(20, 70_000)),
        ];
        let within = patched(&old, &new) - 70_000;
        assert!(within < alone + 2000, "{alone} {within}");
    }
}

#[test]
fn a_damaged_image_is_patched_as_any_other_file() {
    let [old, new] = [false, true].map(tree);
    let images = [
        [old.path(), new.path()].map(|root| ext4(root, &["-b", "1024"])),
        [old.path(), new.path()].map(|root| squashfs(root, &["-noI", "-noF"])),
    ];
    for [old, new] in images {
        let len = usize::try_from(new.metadata().unwrap().len()).unwrap();
        let mut bytes = vec![0; len];
        std::os::unix::fs::FileExt::read_exact_at(&new, &mut bytes, 0).unwrap();
        for seed in 0..3_u64 {
            let mut damaged = bytes.clone();
            let places = noise(seed + 1, 4 * 400);
            for place in places.chunks_exact(4) {
                let at = u32::from_le_bytes(place.try_into().unwrap()) as usize;
                // Half of it where tables are, at the beginning or at the end.
                let at = match at % 4 {
                    0 => at % 60_000,
                    1 => len - 1 - at % 30_000,
                    _ => at % len,
                };
                damaged[at] = place[1];
            }
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&damaged).unwrap();
            patched(&old, &file);
            patched(&file, &new);
        }
    }
}

#[test]
fn damaged_blocks_of_the_base_are_not_copied_from() {
    let [old, new] = [false, true].map(tree);
    let [old, new] = [old.path(), new.path()].map(|root| squashfs(root, &["-noI"]));
    let len = usize::try_from(old.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0; len];
    std::os::unix::fs::FileExt::read_exact_at(&old, &mut bytes, 0).unwrap();
    // Frames of Zstandard, without those of tables at the end.
    let frame = [0x28, 0xb5, 0x2f, 0xfd];
    let frames = bytes[..len / 2].windows(4).enumerate();
    let places: Vec<usize> = frames
        .filter(|(_, bytes)| *bytes == frame)
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    patched(&file, &new);
}

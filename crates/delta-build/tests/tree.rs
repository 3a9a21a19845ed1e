//! Patches whose base is a tree: what they make of its files, and what they refuse.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod samples;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use system_image_delta::patch::tree::{Installed, MAGIC, OtherFile, TreePatch};
use system_image_delta::patch::{ApplyError, HeaderError, Limits};
use system_image_delta::{LeaveOut, MemberPath, Privileges, Root, SPARSE_IMAGE, apply};
use system_image_delta_build::patch::{Effort, Options, make_for_tree};
use system_image_testkit::between;
use system_image_testkit::tree::Tree;

use samples::{noise, text};

const OPTIONS: Options<'_> = Options {
    memory: 24 << 20,
    threads: 2,
    effort: Effort::Default,
    packings: None,
};

fn file(bytes: &[u8]) -> fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A tree on the disk that an archive leads to.
fn on_disk(archive: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(directory.path()).unwrap();
    let limits = system_image_delta::Limits::default();
    apply(archive, limits, &root, Privileges::User, &mut LeaveOut).unwrap();
    directory
}

fn images() -> (Tree, Tree) {
    let (old, random) = (text(0..8_000), noise(7, 90_000));
    let mut new = old.clone();
    new[50_000..50_010].copy_from_slice(b"something!");
    let base = Tree::new()
        .dir("usr")
        .file("usr/empty", "")
        .file("usr/same", random.clone())
        .file("usr/text", old)
        .hard_link("usr/zz", "usr/text")
        .file("usr/unused", noise(8, 400_000));
    let target = base
        .clone()
        .without("usr/zz")
        .file("usr/text", new)
        .file("usr/moved", random);
    (base, target)
}

fn patch(base: &Tree, delta: &[u8], is_left_out: &dyn Fn(&MemberPath) -> bool) -> Vec<u8> {
    let (base, delta) = (file(&base.tar()), file(delta));
    let mut out = Vec::new();
    make_for_tree(&base, is_left_out, &delta, OPTIONS, &mut out).unwrap();
    out
}

fn applied(tree: &Path, patch: &[u8]) -> Result<Vec<u8>, ApplyError> {
    let mut out = Vec::new();
    let root = Root::open(tree).unwrap();
    let limits = Limits {
        memory: OPTIONS.memory,
        ..Limits::default()
    };
    let patch = TreePatch::open(patch).unwrap();
    patch.apply(&root, &mut out, limits)?;
    Ok(out)
}

#[test]
fn a_delta_is_made_of_the_files_of_the_tree() {
    let (base, target) = images();
    let delta = between(&base, &target);
    let patch = patch(&base, &delta, &|_| false);
    assert!(patch.len() < 5_000, "{}", patch.len());
    // Neither what is not used nor what has no content is asked for.
    assert_eq!(TreePatch::open(&patch[..]).unwrap().files().count(), 2);
    let tree = on_disk(&base.tar());
    fs::remove_file(tree.path().join("usr/unused")).unwrap();
    assert_eq!(applied(tree.path(), &patch).unwrap(), delta);
}

#[test]
fn a_file_that_is_left_out_is_not_asked_for() {
    let (base, target) = images();
    let delta = between(&base, &target);
    let is_text = |path: &MemberPath| path.as_bytes() == b"system/usr/text";
    let without = patch(&base, &delta, &is_text);
    let tree = on_disk(&base.tar());
    fs::remove_file(tree.path().join("usr/text")).unwrap();
    // Its other name may be used all the same.
    assert_eq!(applied(tree.path(), &without).unwrap(), delta);
}

#[test]
fn a_tree_that_was_changed_is_refused_and_the_file_named() {
    let (base, target) = images();
    let patch = patch(&base, &between(&base, &target), &|_| false);
    let changes: [fn(&Path); 4] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, "shorter").unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("same", path).unwrap();
        },
        |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[100] ^= 1;
            fs::write(path, bytes).unwrap();
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        let tree = on_disk(&base.tar());
        change(&tree.path().join("usr/text"));
        match applied(tree.path(), &patch).unwrap_err() {
            ApplyError::Base(error) if number < 3 => {
                let other = error.get_ref().unwrap();
                assert!(other.is::<OtherFile>(), "{number}: {other}");
            }
            ApplyError::OtherBase { .. } if number == 3 => {}
            error => panic!("{number}: {error}"),
        }
    }
}

/// A tree and a partition, which has room behind its image.
struct Device {
    tree: Root,
    boot: Option<std::path::PathBuf>,
}

impl Installed for Device {
    fn file(&self, path: &MemberPath) -> io::Result<Option<fs::File>> {
        self.tree.file(path)
    }

    fn partition(&self, name: &str) -> io::Result<Option<fs::File>> {
        assert_eq!(name, "boot");
        self.boot.as_ref().map(fs::File::open).transpose()
    }
}

/// An Android boot image: a packed kernel and a packed RAM disk, each on pages of its own.
fn boot_image(kernel: &[u8], ramdisk: &[u8]) -> Vec<u8> {
    let packed = |bytes: &[u8]| {
        let mut gzip = Command::new("gzip");
        let gzip = gzip.args(["-9nc"]).stdin(Stdio::piped());
        let mut child = gzip.stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.stdout
    };
    let mut image = b"ANDROID!".to_vec();
    let parts = [packed(kernel), packed(ramdisk)];
    for number in [parts[0].len(), 0, parts[1].len(), 0, 0, 0, 0, 2048] {
        image.extend(u32::try_from(number).unwrap().to_le_bytes());
    }
    for part in parts {
        image.resize(image.len().next_multiple_of(2048), 0);
        image.extend(part);
    }
    image.resize(image.len().next_multiple_of(2048) + 100_000, 0);
    image
}

#[test]
fn a_partition_is_a_base_like_a_file() {
    let kernel = [text(0..3_000), noise(3, 100_000)].concat();
    let mut changed = kernel.clone();
    changed.splice(1000..1000, *b"a few bytes more");
    let ramdisk = text(3_000..9_000);
    let old = boot_image(&kernel, &ramdisk);
    let new = boot_image(&changed, &ramdisk);
    let base = Tree::new().dir("etc").image("boot", &old[..]);
    let delta = between(&base, &base.clone().image("boot", &new[..]));
    let patch = patch(&base, &delta, &|_| false);
    // What is packed is looked into.
    assert!(patch.len() < 1_500, "{}", patch.len());
    let directory = tempfile::tempdir().unwrap();
    let boot = directory.path().join("boot");
    fs::write(&boot, [&old[..], &[7; 5000]].concat()).unwrap();
    let mut device = Device {
        tree: Root::open(directory.path()).unwrap(),
        boot: Some(boot.clone()),
    };
    let apply = |device: &Device| {
        let mut out = Vec::new();
        let opened = TreePatch::open(&patch[..]).unwrap();
        assert_eq!(
            opened
                .files()
                .paths()
                .map(|path| path.to_string())
                .collect::<Vec<_>>(),
            ["partitions/boot.img"]
        );
        opened.apply(device, &mut out, Limits::default())?;
        Ok::<_, ApplyError>(out)
    };
    assert!(apply(&device).unwrap() == delta);
    let is_other = |error| match error {
        ApplyError::Base(error) => error.get_ref().unwrap().is::<OtherFile>(),
        _ => false,
    };
    fs::write(&boot, &old[..old.len() - 1]).unwrap();
    assert!(is_other(apply(&device).unwrap_err()));
    device.boot = None;
    assert!(is_other(apply(&device).unwrap_err()));
    let mut other = old;
    other[3000] ^= 1;
    fs::write(&boot, other).unwrap();
    device.boot = Some(boot);
    let error = apply(&device).unwrap_err();
    assert!(matches!(error, ApplyError::OtherBase { .. }), "{error}");
}

#[test]
fn what_a_partition_does_not_hold_as_it_stands_is_no_base() {
    let sparse = [&SPARSE_IMAGE[..], &noise(5, 50_000)].concat();
    let base = Tree::new().dir("etc").image("boot", &sparse[..]);
    let delta = between(&base, &base.clone().file("etc/same", sparse));
    let patch = patch(&base, &delta, &|_| false);
    assert_eq!(TreePatch::open(&patch[..]).unwrap().files().count(), 0);
    assert!(patch.len() > 50_000);
}

#[test]
fn the_list_counts_as_memory() {
    let (base, target) = images();
    let patch = patch(&base, &between(&base, &target), &|_| false);
    let opened = TreePatch::open(&patch[..]).unwrap();
    let tree = on_disk(&base.tar());
    let root = Root::open(tree.path()).unwrap();
    let memory = opened.memory() - 1;
    assert!(memory < OPTIONS.memory);
    let limits = Limits {
        memory,
        ..Limits::default()
    };
    let refused = opened.apply(&root, &mut Vec::new(), limits).unwrap_err();
    assert!(matches!(refused, ApplyError::Memory { .. }), "{refused}");
}

#[test]
fn what_is_cut_or_damaged_is_refused() {
    let (base, target) = images();
    let patch = patch(&base, &between(&base, &target), &|_| false);
    for len in 0..patch.len().min(400) {
        let opened = TreePatch::open(&patch[..len]);
        assert!(opened.is_err() || len > 150, "{len}");
    }
    let mut other = patch.clone();
    other[1] ^= 1;
    let refused = TreePatch::open(&other[..]).unwrap_err();
    assert!(matches!(refused, HeaderError::Magic), "{refused}");
    for at in MAGIC.len()..patch.len().min(400) {
        let mut damaged = patch.clone();
        damaged[at] ^= 0x55;
        // Whatever it says, it does not panic.
        let _ = TreePatch::open(&damaged[..]);
    }
}

//! Linked, mirrored, merged and listed trees, compared entry by entry.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use system_image_delta::{LeaveOut, Limits, Privileges, apply};
use system_image_testkit::tree::{Tree, assert_same};
use system_image_tree::attributes::Attributes;
use system_image_tree::files::Access;
use system_image_tree::manifest::{self, ManifestError};

use system_image_tree::{Root, links, merge, mirror, remove};

/// A directory with what the tree has.
fn made(tree: &Tree) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = Root::open(directory.path()).unwrap();
    let is_root = fs::metadata(directory.path()).unwrap().uid() == 0;
    let privileges = if is_root {
        Privileges::Root
    } else {
        Privileges::User
    };
    apply(
        &tree.tar()[..],
        Limits::default(),
        &root,
        privileges,
        &mut LeaveOut,
    )
    .unwrap();
    directory
}

fn one() -> Tree {
    Tree::new()
        .dir("etc")
        .file("etc/build", "1\n")
        .xattr("etc/build", "user.note", "x")
        .dir("bin")
        .file("bin/sh", vec![1; 300_000])
        .with("bin/sh", |header| header.mode = 0o4755)
        .hard_link("bin/bash", "bin/sh")
        .hard_link("bin/dash", "bin/sh")
        .symlink("lib", "usr/lib")
        .fifo("pipe")
        .dir("gone")
        .file("gone/x", "x")
        .file("\u{e4} b\\", "")
}

fn two() -> Tree {
    one()
        .without("gone")
        .without("bin/dash")
        .file("etc/build", "2\n")
        .dir("lib")
        .file("lib/x", "x")
        .file("bin/dash", vec![1; 300_000])
        .symlink("gone", "etc")
}

fn root(directory: &tempfile::TempDir) -> Root {
    Root::open(directory.path()).unwrap()
}

#[test]
fn a_linked_tree_is_the_same_until_one_of_them_changes() {
    let old = made(&one());
    // What is prepared beside a tree leaves no trace in it.
    let before = Attributes::of(root(&old)).unwrap();
    fs::create_dir(old.path().join(".system-image")).unwrap();
    before.give(root(&old)).unwrap();
    let new = tempfile::tempdir_in(old.path().join(".system-image")).unwrap();
    links::link(&root(&old), &root(&new)).unwrap();
    let want = made(&one());
    assert_same(new.path(), want.path(), "linked");
    let inode = |path: &Path| fs::symlink_metadata(path).unwrap().ino();
    assert_eq!(
        inode(&old.path().join("lib")),
        inode(&new.path().join("lib"))
    );
    fs::remove_dir_all(new.path().join("gone")).unwrap();
    fs::write(new.path().join("part"), "new").unwrap();
    fs::rename(new.path().join("part"), new.path().join("bin/sh")).unwrap();
    drop(new);
    fs::remove_dir_all(old.path().join(".system-image")).unwrap();
    // Making the directory in it changed the time of the top.
    mirror(&root(&want), &root(&old)).unwrap();
    assert_same(old.path(), want.path(), "the first one");
}

#[test]
fn a_mirrored_tree_is_the_same_whatever_was_there() {
    let trees = [
        Tree::new(),
        one(),
        two(),
        Tree::new().dir("bin").dir("bin/sh").file("bin/sh/x", ""),
    ];
    for (n, from) in trees.iter().enumerate() {
        for (m, to) in trees.iter().enumerate() {
            let (from, to) = (made(from), made(to));
            fs::create_dir(to.path().join("lost+found")).unwrap();
            fs::write(to.path().join(".system-image.part"), "left by a crash").unwrap();
            mirror(&root(&from), &root(&to)).unwrap();
            fs::remove_dir(to.path().join("lost+found")).unwrap();
            let again = mirror(&root(&from), &root(&to)).unwrap();
            assert_eq!(again.copied, 0, "{n} over {m}");
            assert_same(to.path(), from.path(), &format!("{n} over {m}"));
        }
    }
}

#[test]
fn only_what_differs_is_copied_and_holes_stay() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sparse = File::create(from.path().join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 4 << 20).unwrap();
    fs::write(from.path().join("same"), "1234").unwrap();
    fs::write(to.path().join("same"), "1234").unwrap();
    fs::write(from.path().join("other"), "1234").unwrap();
    fs::write(to.path().join("other"), "1235").unwrap();
    let done = mirror(&root(&from), &root(&to)).unwrap();
    assert_eq!((done.copied, done.kept), ((8 << 20) + 4, 4));
    assert_same(to.path(), from.path(), "mirrored");
    let blocks = fs::metadata(to.path().join("sparse")).unwrap().blocks();
    assert!(
        blocks < 2048,
        "{blocks} blocks of 512 bytes for a file of holes"
    );
}

#[test]
fn names_that_share_a_file_wrongly_are_told_apart() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pairs = |root: &Path, pairs: [(&str, &str); 2]| {
        for (name, other) in pairs {
            fs::write(root.join(name), "same").unwrap();
            fs::hard_link(root.join(name), root.join(other)).unwrap();
        }
    };
    pairs(from.path(), [("a", "c"), ("b", "d")]);
    pairs(to.path(), [("a", "b"), ("c", "d")]);
    mirror(&root(&from), &root(&to)).unwrap();
    assert_same(to.path(), from.path(), "pairs");
}

#[test]
fn merging_replaces_files_keeps_directories_and_may_be_repeated() {
    let to = made(&one());
    let from = made(
        &Tree::new()
            .dir("etc")
            .with("etc", |header| header.mode = 0o700)
            .file("etc/.hidden", "h")
            .file("etc/build", "9\n")
            .file("gone", "a file now")
            .dir("pipe")
            .file("pipe/x", "")
            .file("twice", "t")
            .hard_link("also", "twice"),
    );
    // As an interrupted run leaves it.
    fs::hard_link(from.path().join("twice"), to.path().join("also")).unwrap();
    merge(&root(&from), &root(&to)).unwrap();
    assert_eq!(fs::read_dir(from.path()).unwrap().count(), 0);
    let read = |path: &str| fs::read_to_string(to.path().join(path)).unwrap();
    assert_eq!(
        (read("etc/.hidden"), read("etc/build"), read("gone")),
        ("h".into(), "9\n".into(), "a file now".into())
    );
    assert_eq!(
        (read("pipe/x"), read("also"), read("twice")),
        (String::new(), "t".into(), "t".into())
    );
    let mode = fs::metadata(to.path().join("etc"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(to.path().join("bin/sh").exists());
    merge(&root(&from), &root(&to)).unwrap();
}

fn listed(directory: &tempfile::TempDir) -> Vec<u8> {
    let mut manifest = Vec::new();
    manifest::write(&root(directory), &mut manifest).unwrap();
    manifest
}

#[test]
fn a_manifest_tells_every_difference() {
    let tree = made(&one());
    let before = Attributes::of(root(&tree)).unwrap();
    fs::create_dir_all(tree.path().join(".system-image/x")).unwrap();
    before.give(root(&tree)).unwrap();
    let manifest = listed(&tree);
    manifest::verify(&root(&tree), &mut &manifest[..]).unwrap();
    assert_eq!(listed(&made(&one())), manifest, "the same on each device");
    let differs = |change: &dyn Fn(&Path), path: &str| {
        let changed = made(&one());
        change(changed.path());
        match manifest::verify(&root(&changed), &mut &manifest[..]) {
            Err(ManifestError::Differs { path: got }) => assert_eq!(got, path),
            other => panic!("{path}: {other:?}"),
        }
    };
    differs(&|at| fs::write(at.join("gone/x"), "y").unwrap(), "/gone/x");
    differs(&|at| fs::write(at.join("gone/y"), "").unwrap(), "/gone");
    differs(&|at| fs::remove_file(at.join("etc/build")).unwrap(), "/etc");
    let same_time = |at: &Path, name: &str, change: &dyn Fn(&Path)| {
        let path = at.join(name);
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        change(&path);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    differs(
        &|at| same_time(at, "etc/build", &|path| fs::write(path, "2\n").unwrap()),
        "/etc/build",
    );
    differs(
        &|at| fs::set_permissions(at.join("bin/sh"), fs::Permissions::from_mode(0o755)).unwrap(),
        "/bin/bash",
    );
    differs(
        &|at| {
            fs::remove_file(at.join("lib")).unwrap();
            symlink("usr/lic", at.join("lib")).unwrap();
        },
        "/",
    );
    let cut = &manifest[..manifest.len() - 1];
    assert!(matches!(
        manifest::verify(&root(&tree), &mut &*cut),
        Err(ManifestError::Form)
    ));
    let mut longer = manifest.clone();
    writeln!(longer, "f more /more").unwrap();
    assert!(manifest::verify(&root(&tree), &mut &longer[..]).is_err());
    assert!(matches!(
        manifest::verify(&root(&tree), &mut &b"x\n"[..]),
        Err(ManifestError::Form)
    ));
}

#[test]
fn everything_goes_but_what_is_kept() {
    let tree = made(&one());
    fs::create_dir_all(tree.path().join("etc/deep/er")).unwrap();
    for path in ["etc/deep/er/kept", "etc/deep/er/gone", "etc/deeper"] {
        fs::write(tree.path().join(path), "").unwrap();
    }
    let kept =
        ["bin", "etc/deep/er/kept", "never/there", "lib/x"].map(|path| path.as_bytes().to_vec());
    remove::all_but(&root(&tree), &kept).unwrap();
    let list = |path: &str| {
        let entries = fs::read_dir(tree.path().join(path)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(list(""), ["bin", "etc"]);
    assert_eq!(
        (
            list("etc").len(),
            list("etc/deep/er").len(),
            list("bin").len()
        ),
        (1, 1, 3)
    );
}

#[test]
fn small_files_stay_below_the_root() {
    let (tree, outside) = (made(&one()), tempfile::tempdir().unwrap());
    symlink(outside.path(), tree.path().join("away")).unwrap();
    let access = Access {
        mode: 0o600,
        owner: None,
    };
    let at = root(&tree);
    assert!(
        at.write_file("away/x", b"1", access, 0o700).is_err(),
        "the link leads to nothing here"
    );
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    at.write_file("new/er/x", b"1", access, 0o700).unwrap();
    at.write_file("new/er/x", b"2", access, 0o700).unwrap();
    assert_eq!(at.read_file("new/er/x", 1).unwrap().unwrap(), b"2");
    assert_eq!(at.read_file("new/er", 1).unwrap(), None);
    assert_eq!(at.read_file("none/x", 1).unwrap(), None);
    assert!(at.read_file("bin/sh", 10).is_err());
    let mode = |path: &str| {
        fs::metadata(tree.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("new"), mode("new/er/x")), (0o700, 0o600));
    at.remove_file("new/er/x").unwrap();
    at.remove_file("new/er/x").unwrap();
    assert!(!tree.path().join("new/er/x").exists());
}

#[test]
fn a_file_that_is_unshared_may_be_written_to() {
    let old = made(&Tree::new().dir("etc").file("etc/shadow", "1"));
    fs::create_dir(old.path().join(".system-image")).unwrap();
    let new = Root::open(&old.path().join(".system-image")).unwrap();
    links::link(&root(&old), &new).unwrap();
    links::unshare(&new, "etc/shadow").unwrap();
    links::unshare(&new, "etc/none").unwrap();
    fs::write(old.path().join(".system-image/etc/shadow"), "2").unwrap();
    assert_eq!(fs::read(old.path().join("etc/shadow")).unwrap(), b"1");
}

#[test]
fn attributes_survive_as_text() {
    let tree = made(&one());
    for path in ["etc/build", "bin/sh", "etc"] {
        let attributes = Attributes::of(File::open(tree.path().join(path)).unwrap()).unwrap();
        assert_eq!(
            Attributes::parse(&attributes.to_text()),
            Some(attributes),
            "{path}"
        );
    }
    for text in [
        "",
        "1 2 3 4 5",
        "1 2 9 4 5\n",
        "1 2 7 4 5\nzz 00\n",
        "1 2 7 4 5\n0 00\n",
    ] {
        assert_eq!(Attributes::parse(text), None, "{text}");
    }
}

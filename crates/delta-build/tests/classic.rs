//! The classic delta, row by row: server spec, sections 11.3, 21 (1 to 10) and 23.
//!
//! Each case makes two real archives and their delta, applies base and delta to one directory
//! and the target to another, and compares the two directories.

#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::error::Error;
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use system_image_delta::{
    Applied, Header, Kind, Limits, Member, Mtime, Privileges, Reader, Root, Sink, apply,
};
use system_image_delta_build::{DeltaError, Options, Removal, Side, Summary, Times, delta};
use system_image_testkit::tree::{TIME, Tree, assert_same};

/// For archives that go to the system only.
struct SystemOnly;

impl Sink for SystemOnly {
    fn elsewhere(
        &mut self,
        _: &Member,
        _: &mut dyn Read,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err("not expected".into())
    }
}

fn privileges() -> Privileges {
    if rustix::process::geteuid().is_root() {
        Privileges::Root
    } else {
        Privileges::User
    }
}

fn put(archive: &[u8], directory: &Path) -> Applied {
    let root = Root::open(directory).unwrap();
    apply(
        archive,
        Limits::default(),
        &root,
        privileges(),
        &mut SystemOnly,
    )
    .unwrap()
}

fn stored(archive: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(archive).unwrap();
    file
}

fn make(base: &Tree, target: &Tree, options: Options) -> Result<(Vec<u8>, Summary), DeltaError> {
    let mut out = Vec::new();
    let summary = delta(
        &stored(&base.tar()),
        &stored(&target.tar()),
        options,
        &mut out,
    )?;
    assert_eq!(summary.bytes, out.len() as u64);
    Ok((out, summary))
}

/// The lines of `removed`, then the members.
fn listed(archive: &[u8]) -> (Vec<String>, Vec<String>) {
    let mut reader = Reader::new(archive, Limits::default());
    let first = reader.next_header().unwrap().unwrap();
    assert_eq!(first.path, b"removed");
    let mut removed = String::new();
    reader.read_to_string(&mut removed).unwrap();
    let mut members = Vec::new();
    while let Some(Header { path, kind, .. }) = reader.next_header().unwrap() {
        let path = String::from_utf8(path).unwrap();
        let path = path.trim_end_matches('/');
        members.push(match kind {
            Kind::HardLink { target } => {
                format!("{path}={}", String::from_utf8(target).unwrap())
            }
            _ => path.to_owned(),
        });
    }
    (removed.lines().map(str::to_owned).collect(), members)
}

/// Makes the delta, proves that it leads to the target (twice, too) and returns what is in it.
fn journey(base: &Tree, target: &Tree, context: &str) -> (Vec<String>, Vec<String>) {
    let (archive, _) = make(base, target, Options::default()).unwrap();
    let (updated, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(&base.tar(), updated.path());
    put(&archive, updated.path());
    put(&target.tar(), fresh.path());
    assert_same(updated.path(), fresh.path(), context);
    put(&archive, updated.path());
    assert_same(
        updated.path(),
        fresh.path(),
        &format!("{context}, applied twice"),
    );
    listed(&archive)
}

fn later(header: &mut Header) {
    header.mtime = Mtime {
        seconds: TIME + 60,
        nanos: 0,
    };
}

/// The paths of a table as they are in the archive.
fn on_wire(paths: &str) -> Vec<String> {
    let one = |path: &str| match path {
        "." => "system".to_owned(),
        _ => format!("system/{}", path.replace('=', "=system/")),
    };
    paths.split_whitespace().map(one).collect()
}

/// The tree that every row of the table starts from.
fn base() -> Tree {
    Tree::new()
        .dir("d")
        .file("d/f", "one")
        .hard_link("d/h", "d/f")
        .symlink("d/s", "f")
        .fifo("d/p")
        .device("d/c", 1, 3)
        .dir("e")
        .file("e/x", "x")
}

/// Name of the change, target, `removed`, members. Paths are below `system/`; `.` is that
/// directory itself, `b=a` a hard link.
fn changes() -> Vec<(&'static str, Tree, &'static str, &'static str)> {
    let mode = |header: &mut Header| header.mode = 0o4711;
    let owner = |header: &mut Header| header.uid = 7;
    vec![
        ("nothing", base(), "", ""),
        (
            "file: time only",
            base().with("d/f", later),
            "",
            "d d/f d/h=d/f",
        ),
        ("file: mode only", base().with("e/x", mode), "", "e e/x"),
        ("file: owner only", base().with("e/x", owner), "", "e e/x"),
        ("file: content alone", base().file("e/x", "y"), "", "e e/x"),
        (
            "file: xattr",
            base().xattr("e/x", "user.a", "1"),
            "",
            "e e/x",
        ),
        ("link: time only", base().with("d/s", later), "", "d d/s"),
        (
            "link: target alone",
            base().symlink("d/s", "p"),
            "",
            "d d/s",
        ),
        ("device: time only", base().with("d/c", later), "", "d d/c"),
        ("device: number", base().device("d/c", 1, 5), "", "d d/c"),
        ("pipe: mode", base().with("d/p", mode), "", "d d/p"),
        (
            "names: content",
            base().file("d/f", "two"),
            "",
            "d d/f d/h=d/f",
        ),
        (
            "names: a link becomes an equal file",
            base().file("d/h", "one"),
            "",
            "d d/f d/h",
        ),
        (
            "names: of another file",
            base().hard_link("d/h", "e/x"),
            "",
            "d d/f d/h e e/x=d/h",
        ),
        (
            "names: one more",
            base().hard_link("e/a", "d/f"),
            "",
            "d d/f d/h=d/f e e/a=d/f",
        ),
        ("names: one less", base().without("d/h"), "d/h", "d"),
        ("directory: mode", base().with("e", mode), "", "e"),
        ("directory: owner", base().with("e", owner), "", "e"),
        ("directory: time", base().with("e", later), "", "e"),
        (
            "directory: xattr",
            base().xattr("e", "user.a", "1"),
            "",
            "e",
        ),
        ("root: mode", base().with("", mode), "", "."),
        (
            "directory to link",
            base().without("e").symlink("e", "d"),
            "e",
            ". e",
        ),
        (
            "directory to file",
            base().without("d").file("d", ""),
            "d",
            ". d",
        ),
        (
            "file to directory",
            base().dir("e/x").file("e/x/y", ""),
            "e/x",
            "e e/x e/x/y",
        ),
        ("link to directory", base().dir("d/s"), "d/s", "d d/s"),
        ("file to link", base().symlink("e/x", "../d"), "", "e e/x"),
        ("new directory, empty", base().dir("n"), "", ". n"),
        (
            "new directory, full",
            base().dir("n").file("n/m", ""),
            "",
            ". n n/m",
        ),
        ("deleted directory", base().without("d"), "d", "."),
        ("deleted file", base().without("e/x"), "e/x", "e"),
    ]
}

#[test]
fn every_kind_of_change_arrives() {
    for (context, target, removed, members) in changes() {
        let (got_removed, got_members) = journey(&base(), &target, context);
        assert_eq!(got_removed, on_wire(removed), "{context}");
        assert_eq!(got_members, on_wire(members), "{context}");
        journey(&target, &base(), &format!("{context}, back"));
    }
}

#[test]
fn the_example_of_the_specification_is_made_by_the_better_rules() {
    let base = Tree::new()
        .file("a", "1")
        .hard_link("b", "a")
        .dir("d")
        .file("d/x", "x");
    let target = Tree::new()
        .file("a", "2")
        .hard_link("b", "a")
        .symlink("d", "a")
        .file("n", "n");
    let (removed, members) = journey(&base, &target, "section 23");
    // Replaced files need no removal, nor does what is below a removed directory.
    assert_eq!(removed, ["system/d"]);
    let want = [
        "system",
        "system/a",
        "system/b=system/a",
        "system/d",
        "system/n",
    ];
    assert_eq!(members, want);
}

#[test]
fn capabilities_and_their_loss_arrive() {
    // cap_net_raw+ep, revision 2.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let with = Tree::new()
        .file("ping", "elf")
        .xattr("ping", "security.capability", capability);
    let with = with.with("ping", |header| (header.uid, header.mode) = (5, 0o4755));
    let without = Tree::new().file("ping", "elf");
    journey(&without, &with, "capability gained");
    journey(&with, &without, "capability lost");
    if privileges() == Privileges::Root {
        let directory = tempfile::tempdir().unwrap();
        put(&with.tar(), directory.path());
        let mut value = [0; 64];
        let file = directory.path().join("ping");
        let len = rustix::fs::getxattr(&file, "security.capability", &mut value[..]).unwrap();
        assert_eq!(value[..len], capability);
    }
}

#[test]
fn names_of_any_bytes_arrive() {
    let base = Tree::new()
        .file("with space", "1")
        .file(b"latin\xff", "1")
        .file("x*", "1")
        .file("xy", "1")
        .file(r"back\slash", "1")
        .file("line\nend", "1");
    let target = Tree::new()
        .file("xy", "1")
        .file("line\nend", "2")
        .file(b"\xfe", "1");
    let (archive, summary) = make(&base, &target, Options::default()).unwrap();
    let misread: Vec<_> = summary.misread.iter().map(ToString::to_string).collect();
    assert_eq!(
        misread,
        [r"system/back\slash", "system/with space", "system/x*"]
    );
    let (updated, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(&base.tar(), updated.path());
    put(&archive, updated.path());
    put(&target.tar(), fresh.path());
    assert_same(updated.path(), fresh.path(), "odd names");
}

#[test]
fn a_name_that_no_list_can_hold_is_an_error_only_when_it_is_to_be_removed() {
    let base = Tree::new().dir("d").file("d/line\nend", "1");
    let refused = make(
        &base,
        &base.clone().without("d/line\nend"),
        Options::default(),
    )
    .unwrap_err();
    assert!(matches!(refused, DeltaError::Newline { .. }), "{refused:?}");
    journey(
        &base,
        &base.clone().without("d"),
        "its directory can be listed",
    );
}

#[test]
fn dots_in_front_of_names_change_nothing() {
    let dotted = |tree: &Tree| {
        let mut writer = system_image_delta_build::Writer::new(Vec::new());
        let tar = tree.tar();
        let mut reader = Reader::new(Cursor::new(&tar), Limits::default());
        while let Some(mut header) = reader.next_header().unwrap() {
            header.path.splice(0..0, *b"./");
            writer.member(&header, &mut reader).unwrap();
        }
        writer.finish().unwrap().0
    };
    let tree = Tree::new().dir("d").file("d/x", "x");
    let mut out = Vec::new();
    let (base, target) = (stored(&dotted(&tree)), stored(&tree.tar()));
    delta(&base, &target, Options::default(), &mut out).unwrap();
    assert_eq!(listed(&out), (vec![], vec![]));
}

#[test]
fn times_alone_can_be_ignored() {
    let base = Tree::new()
        .file("a", "1")
        .symlink("l", "a")
        .dir("d")
        .dir("e")
        .file("e/b", "1");
    let target = ["a", "l", "d", "e"]
        .into_iter()
        .fold(base.clone(), |tree, path| tree.with(path, later))
        .file("e/b", "2");
    let ignored = Options {
        times: Times::Ignored,
        ..Options::default()
    };
    for (options, members, counts) in [
        (ignored, &["system/e", "system/e/b"][..], (4, 0)),
        (
            Options::default(),
            &[
                "system",
                "system/a",
                "system/d",
                "system/e",
                "system/e/b",
                "system/l",
            ],
            (0, 4),
        ),
    ] {
        let (archive, summary) = make(&base, &target, options).unwrap();
        assert_eq!(listed(&archive).1, members);
        assert_eq!((summary.times_ignored, summary.times_carried), counts);
    }
}

#[test]
fn an_archive_laid_over_another_one_removes_no_shared_directories() {
    let base = Tree::new()
        .dir("lib")
        .dir("lib/fw")
        .file("lib/fw/a", "1")
        .file("lib/fw/b", "1");
    let target = Tree::new().file("n", "");
    let options = Options {
        removal: Removal::Names,
        ..Options::default()
    };
    let (archive, summary) = make(&base, &target, options).unwrap();
    assert_eq!(listed(&archive).0, ["system/lib/fw/a", "system/lib/fw/b"]);
    assert_eq!(summary.left, 2);
}

#[test]
fn flags_are_in_every_delta_and_files_outside_the_system_are_never_removed() {
    let outside = |tree: Tree, path: &str, content: &str| {
        let size = content.len() as u64;
        let tree = tree.member(path, Kind::File { size }, 0o644, content.into());
        tree.with(path, |header| header.path = path.into())
    };
    let base = outside(Tree::new(), "system_in_data", "");
    let base = outside(
        outside(base, "partitions/boot.img", "1"),
        "partitions/logo.img",
        "1",
    );
    let target = outside(Tree::new(), "system_in_data", "");
    let target = outside(target, "partitions/boot.img", "2");
    let (archive, summary) = make(&base, &target, Options::default()).unwrap();
    assert_eq!(
        listed(&archive),
        (
            vec![],
            vec!["partitions/boot.img".into(), "system_in_data".into()]
        )
    );
    assert_eq!(summary.left, 1);
}

#[test]
fn a_member_through_a_link_of_the_same_archive_has_no_delta() {
    let odd = Tree::new()
        .symlink("lib", "usr")
        .dir("usr")
        .file("lib/x", "");
    let refused = make(&Tree::new(), &odd, Options::default()).unwrap_err();
    assert!(
        matches!(
            refused,
            DeltaError::Through {
                side: Side::Target,
                ..
            }
        ),
        "{refused:?}"
    );
}

#[test]
fn the_same_images_give_the_same_bytes() {
    let base = Tree::new().file("a", "1").hard_link("b", "a").dir("d");
    let target = Tree::new()
        .file("a", "2")
        .dir("e")
        .file("e/x", "")
        .hard_link("c", "a");
    let once = make(&base, &target, Options::default()).unwrap();
    assert_eq!(once, make(&base, &target, Options::default()).unwrap());
}

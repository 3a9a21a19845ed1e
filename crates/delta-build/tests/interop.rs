//! What others write is read, and what is written here is read by others: GNU tar and the
//! busybox tar that recoveries have.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use system_image_delta::{Limits, Member, Privileges, Root, Sink, apply};
use system_image_delta_build::{
    Form, NormaliseError, Normalised, Options, classify, delta, normalise,
};
use system_image_testkit::tree::{Snapshot, Tree, What, assert_equal, assert_same, snapshot};

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

fn put(archive: &[u8], directory: &Path) {
    let root = rustix::process::geteuid().is_root();
    let privileges = if root {
        Privileges::Root
    } else {
        Privileges::User
    };
    let root = Root::open(directory).unwrap();
    apply(
        archive,
        Limits::default(),
        &root,
        privileges,
        &mut SystemOnly,
    )
    .unwrap();
}

/// Runs a program with `input`; its output, if it succeeds in silence.
fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`tar` and `busybox` are installed by `cargo xtask setup`");
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{command:?}: {errors}"
    );
    output.stdout
}

fn canonical(archive: &[u8], form: Form) -> (Vec<u8>, Normalised) {
    let mut out = Vec::new();
    let done = normalise(archive, form, Limits::default(), &mut out).unwrap();
    assert_eq!(done.bytes, out.len() as u64);
    (out, done)
}

/// Everything that an archive can hold, below `system/`.
fn sample() -> Tree {
    let long = format!("{0}/{0}", "long".repeat(30));
    Tree::new()
        .dir("d")
        .dir("long".repeat(30))
        .file(&long, "long name")
        .xattr(&long, "user.one", "1")
        .dir("z")
        .hard_link("z/hard", &long)
        .symlink("d/soft", &long)
        .file("d/f", vec![7; 100_000])
        .xattr("d/f", "user.two", *b"\0\xff\n=")
        .with("d/f", |header| header.mode = 0o4755)
        .file(b"latin\xff", "")
        .fifo("d/p")
}

/// What busybox tar restores of a tree: no attributes; a directory's time is set before the
/// directory is filled, a link's not at all.
fn simple(path: &Path) -> Snapshot {
    let mut tree = snapshot(path);
    for seen in tree.values_mut() {
        seen.xattrs.clear();
        if !rustix::process::geteuid().is_root() {
            // Without root it drops set-uid.
            seen.mode &= 0o777;
        }
        if matches!(seen.what, What::Directory | What::Symlink(_)) {
            seen.mtime = (0, 0);
        }
    }
    tree
}

#[test]
fn an_old_recovery_applies_our_delta() {
    // Upgrader spec, section 7: a shell loop over `removed`, then busybox tar over everything.
    const RECOVERY: &str = "busybox tar -xf base && busybox tar -xf delta removed && \
        while read file; do rm -Rf $file; done < removed && rm -f removed && \
        busybox tar -xpf delta && rm -f removed";
    let base = sample()
        .dir("gone")
        .file("gone/x", "")
        .symlink("turns", "d")
        .dir("also");
    let target = sample()
        .dir("turns")
        .file("turns/x", "1")
        .symlink("also", "d");
    let target = target
        .file("d/f", "new")
        .hard_link("d/g", "d/f")
        .fifo("q")
        .without("z");
    let stored = |archive: Vec<u8>| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&archive).unwrap();
        file
    };
    let mut archive = Vec::new();
    let files = (stored(base.tar()), stored(target.tar()));
    delta(&files.0, &files.1, Options::default(), &mut archive).unwrap();
    let cache = tempfile::tempdir().unwrap();
    fs::write(cache.path().join("base"), base.tar()).unwrap();
    fs::write(cache.path().join("delta"), &archive).unwrap();
    run(
        Command::new("sh")
            .arg("-c")
            .arg(RECOVERY)
            .current_dir(cache.path()),
        b"",
    );
    let fresh = tempfile::tempdir().unwrap();
    put(&target.tar(), fresh.path());
    assert_equal(
        &simple(&cache.path().join("system")),
        &simple(fresh.path()),
        "old recovery",
    );
}

#[test]
fn gnu_tar_extracts_what_we_write_with_attributes() {
    let archive = sample().tar();
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(&archive, ours.path());
    let options = [
        "-xp",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-C",
    ];
    run(
        Command::new("tar").args(options).arg(theirs.path()),
        &archive,
    );
    assert_same(&theirs.path().join("system"), ours.path(), "GNU tar");
}

#[test]
fn busybox_tar_extracts_what_we_write_without_attributes() {
    let archive = sample().tar();
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(&archive, ours.path());
    run(
        Command::new("busybox")
            .args(["tar", "-xp", "-C"])
            .arg(theirs.path()),
        &archive,
    );
    let theirs = simple(&theirs.path().join("system"));
    assert_equal(&theirs, &simple(ours.path()), "busybox tar");
    let listed = run(Command::new("busybox").args(["tar", "-t"]), &archive);
    assert_eq!(
        listed.split(|&b| b == b'\n').count() - 1,
        sample().paths().count()
    );
}

#[test]
fn a_root_file_system_packed_by_gnu_tar_in_any_format_arrives() {
    let source = tempfile::tempdir().unwrap();
    put(
        &sample().without(b"latin\xff").dir("etc").tar(),
        source.path(),
    );
    for format in ["gnu", "posix", "oldgnu"] {
        let mut tar = Command::new("tar");
        tar.args(["-c", "--numeric-owner", "--format", format, "-C"])
            .arg(source.path())
            .arg(".");
        if format == "posix" {
            tar.arg("--xattrs");
        }
        let archive = run(&mut tar, b"");
        assert_eq!(
            classify(&archive[..], Limits::default()).unwrap(),
            Form::Rootfs,
            "{format}"
        );
        let (archive, _) = canonical(&archive, Form::Rootfs);
        let got = tempfile::tempdir().unwrap();
        put(&archive, got.path());
        let mut want = snapshot(source.path());
        // Only pax archives hold attributes.
        want.values_mut()
            .filter(|_| format != "posix")
            .for_each(|seen| seen.xattrs.clear());
        // The directory that was made for the test has a fraction of a second in its time.
        let mut got = snapshot(got.path());
        for tree in [&mut want, &mut got] {
            tree.get_mut(&b""[..]).unwrap().mtime.1 = 0;
        }
        assert_eq!(got, want, "{format}");
        assert!(
            archive.windows(6).all(|window| window != b"ustar\0"),
            "{format}"
        );
        assert_eq!(canonical(&archive, Form::Payload).0, archive, "{format}");
    }
}

#[test]
fn sparse_files_arrive_whole_and_keep_their_holes() {
    const SIZE: u64 = 8 << 20;
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("system")).unwrap();
    // Enough runs for extension blocks, the last one before a hole at the end.
    let holes = File::create(source.path().join("system/holes")).unwrap();
    for run in 0..60 {
        holes
            .write_all_at(format!("run {run}").as_bytes(), run << 17)
            .unwrap();
    }
    holes.set_len(SIZE).unwrap();
    let empty = File::create(source.path().join("system/empty")).unwrap();
    empty.set_len(SIZE).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let mut tar = Command::new("tar");
        tar.args(["-cS", "--hole-detection=raw", "--numeric-owner"])
            .args(format)
            .arg("-C");
        let archive = run(tar.arg(source.path()).arg("system"), b"");
        assert!(archive.len() < 1 << 20, "the archive is sparse");
        let direct = tempfile::tempdir().unwrap();
        put(&archive, direct.path());
        let (archive, _) = canonical(&archive, Form::Payload);
        let whole = tempfile::tempdir().unwrap();
        put(&archive, whole.path());
        for name in ["holes", "empty"] {
            let want = fs::read(source.path().join("system").join(name)).unwrap();
            assert!(
                fs::read(direct.path().join(name)).unwrap() == want,
                "{format:?} {name}"
            );
            assert!(
                fs::read(whole.path().join(name)).unwrap() == want,
                "{format:?} {name}"
            );
            let blocks = fs::metadata(direct.path().join(name)).unwrap().blocks();
            assert!(
                blocks * 512 < SIZE / 4,
                "{format:?} {name} has holes on the disk"
            );
        }
        let listed = String::from_utf8(run(Command::new("tar").arg("-t"), &archive)).unwrap();
        assert_eq!(listed.lines().count(), 3);
    }
}

#[test]
fn times_of_pax_archives_are_exact_on_the_device_and_whole_in_the_canonical_form() {
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(source.path().join("system")).unwrap();
    fs::write(source.path().join("system/f"), "").unwrap();
    let touch = ["-d", "2001-02-03 04:05:06.123456789 UTC"];
    run(
        Command::new("touch")
            .args(touch)
            .arg(source.path().join("system/f")),
        b"",
    );
    let mut tar = Command::new("tar");
    let archive = run(
        tar.args(["-c", "--format=posix", "-C"])
            .arg(source.path())
            .arg("system"),
        b"",
    );
    let got = tempfile::tempdir().unwrap();
    put(&archive, got.path());
    assert_eq!(
        snapshot(got.path())[&b"f"[..]].mtime,
        (981_173_106, 123_456_789)
    );
    put(&canonical(&archive, Form::Payload).0, got.path());
    assert_eq!(snapshot(got.path())[&b"f"[..]].mtime, (981_173_106, 0));
}

#[test]
fn repeated_names_are_kept_and_the_last_one_wins() {
    let first = Tree::default().file("a", "1").hard_link("b", "a").tar();
    let second = Tree::default().file("a", "2").tar();
    // The first two members: three blocks.
    let both = [&first[..3 * 512], &second].concat();
    let (archive, done) = canonical(&both, Form::Payload);
    assert_eq!(done.repeated, 1);
    let got = tempfile::tempdir().unwrap();
    put(&archive, got.path());
    let got = snapshot(got.path());
    assert_eq!(got[&b"a"[..]].what, What::File(b"2".to_vec().into()));
    assert_eq!(got[&b"b"[..]].what, What::File(b"1".to_vec().into()));
}

#[test]
fn what_devices_would_disagree_about_is_refused() {
    let joined = |first: Tree, second: Tree| [&first.tar()[..512], &second.tar()].concat();
    let conflict = joined(Tree::default().symlink("a", "b"), Tree::default().dir("a"));
    let dangling = Tree::default().hard_link("b", "a").tar();
    let refused = |archive: &[u8]| {
        normalise(archive, Form::Payload, Limits::default(), std::io::sink()).unwrap_err()
    };
    assert!(matches!(
        refused(&conflict),
        NormaliseError::Conflict { .. }
    ));
    assert!(matches!(refused(&dangling), NormaliseError::Link { .. }));
}

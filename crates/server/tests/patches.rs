//! Patches between files, by the real program.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use system_image_testkit::between;
use system_image_testkit::tree::Tree;

fn program(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_system-image-server"))
        .current_dir(directory)
        .arg("patch")
        .args(arguments)
        .output()
        .unwrap()
}

fn works(directory: &Path, arguments: &[&str]) -> String {
    let output = program(directory, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(directory: &Path, arguments: &[&str]) -> String {
    let output = program(directory, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Two files of a megabyte that differ in a few places.
fn two_files() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let old: String = (0..40_000)
        .map(|i| format!("line {i} of the file\n"))
        .collect();
    let new = old.replace("line 777 ", "another line ") + "and one more\n";
    fs::write(directory.path().join("old"), old).unwrap();
    fs::write(directory.path().join("new"), new).unwrap();
    directory
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_patch_makes_the_new_file_of_the_old_one() {
    let files = two_files();
    let place = files.path();
    let said = works(place, &["make", "old", "new", "patch"]);
    assert!(said.starts_with("patch: "), "{said}");
    assert!(fs::metadata(place.join("patch")).unwrap().len() < 500);
    works(place, &["apply", "old", "patch", "copy"]);
    assert_eq!(
        fs::read(place.join("copy")).unwrap(),
        fs::read(place.join("new")).unwrap()
    );

    let info: Value = serde_json::from_str(&works(place, &["info", "patch", "--json"])).unwrap();
    assert_eq!(
        info["base"]["bytes"],
        fs::metadata(place.join("old")).unwrap().len()
    );
    assert_eq!(info["target"]["sha256"].as_str().unwrap().len(), 64);
    assert!(works(place, &["info", "patch"]).contains("memory"));
}

#[test]
fn a_patch_of_a_tree_makes_the_delta_of_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let old: String = (0..9000).map(|i| format!("line {i}\n")).collect();
    let new = old.replace("line 777\n", "another line\n");
    let base = Tree::new().dir("usr").file("usr/same", "it is");
    let target = base.clone().file("usr/changed", new);
    let base = base.file("usr/changed", old);
    fs::write(place.join("old.tar"), base.tar()).unwrap();
    fs::write(place.join("new.tar"), target.tar()).unwrap();
    works(place, &["make", "--tree", "old.tar", "new.tar", "patch"]);
    assert!(fs::metadata(place.join("patch")).unwrap().len() < 1500);
    let unpacked = Command::new("tar")
        .args(["--extract", "--file", "old.tar"])
        .current_dir(place)
        .status();
    assert!(unpacked.unwrap().success());
    works(place, &["apply", "system", "patch", "delta.tar"]);
    let delta = fs::read(place.join("delta.tar")).unwrap();
    assert!(delta == between(&base, &target));

    fs::write(place.join("text"), "no archive").unwrap();
    let said = fails(place, &["make", "--tree", "old.tar", "text", "other"]);
    assert!(said.contains("`text`"), "{said}");
    assert!(!place.join("other").exists());
}

#[test]
fn a_patch_of_an_image_reads_its_partition() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let old: String = (0..9000).map(|i| format!("line {i}\n")).collect();
    let new = old.replace("line 777\n", "another line\n");
    let tree = || Tree::new().dir("etc");
    let [base, target] = [&old, &new].map(|image| tree().image("boot", image.as_str()));
    fs::write(place.join("old.tar"), base.tar()).unwrap();
    fs::write(place.join("new.tar"), target.tar()).unwrap();
    works(place, &["make", "--tree", "old.tar", "new.tar", "patch"]);
    assert!(fs::metadata(place.join("patch")).unwrap().len() < 1000);
    fs::create_dir(place.join("system")).unwrap();
    let said = fails(place, &["apply", "system", "patch", "delta.tar"]);
    assert!(
        said.contains("the partition `boot` is not as it was"),
        "{said}"
    );
    assert!(said.contains("`--partitions` tells where"), "{said}");
    fs::create_dir(place.join("partitions")).unwrap();
    let partition = place.join("partitions/boot.img");
    fs::write(&partition, old + "what was there before it").unwrap();
    let apply = ["apply", "--partitions", "partitions", "system", "patch"];
    works(place, &[&apply[..], &["delta.tar"]].concat());
    assert!(fs::read(place.join("delta.tar")).unwrap() == between(&base, &target));
}

#[test]
fn patches_from_several_bases_are_made_at_once() {
    let files = two_files();
    let place = files.path();
    fs::write(place.join("older"), "line 777 ").unwrap();
    let also = ["--also", "older", "other"];
    let arguments = [&["make", "--fast", "old", "new", "patch"][..], &also].concat();
    assert_eq!(works(place, &arguments).lines().count(), 2);
    for (base, patch) in [("old", "patch"), ("older", "other")] {
        works(place, &["apply", base, patch, "copy"]);
        let made = fs::read(place.join("copy")).unwrap();
        assert_eq!(made, fs::read(place.join("new")).unwrap(), "{patch}");
    }
    let json = works(place, &[&arguments[..], &["--json"]].concat());
    let made: Value = serde_json::from_str(&json).unwrap();
    let other = fs::metadata(place.join("other")).unwrap().len();
    assert_eq!(made["also"][0]["bytes"], other);
}

#[test]
fn a_dry_run_writes_nothing() {
    let files = two_files();
    let said = works(files.path(), &["make", "old", "new", "patch", "--dry-run"]);
    assert!(said.starts_with("dry run: patch: "), "{said}");
    assert_eq!(names(files.path()), ["new", "old"]);
}

#[test]
fn what_cannot_be_applied_says_why_and_leaves_nothing() {
    let files = two_files();
    let place = files.path();
    works(place, &["make", "old", "new", "patch"]);
    let before = names(place);
    for (arguments, why) in [
        (&["apply", "new", "patch", "copy"][..], "not the base"),
        (&["apply", "old", "new", "copy"], "not a patch"),
        (&["apply", "old", "none", "copy"], "cannot read `none`"),
        (
            &["apply", "old", "patch", "copy", "--max-memory", "1KiB"],
            "memory",
        ),
        (&["make", "old", "none", "other"], "cannot read `none`"),
        (
            &["make", "old", "new", "nowhere/other"],
            "cannot write `nowhere/other`",
        ),
        (&["info", "old"], "not a patch"),
    ] {
        let said = fails(place, arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
        assert_eq!(names(place), before, "{arguments:?}");
    }
    let hinted = fails(place, &["apply", "new", "patch", "copy"]);
    assert!(hinted.contains("hint: `patch info`"), "{hinted}");
}

#[test]
fn what_was_cut_off_is_gone_on_with() {
    let files = two_files();
    let place = files.path();
    works(place, &["make", "old", "new", "patch"]);
    let new = fs::read(place.join("new")).unwrap();
    let left = place.join("copy.new");
    for (content, said) in [
        (&new[..], "from an earlier attempt"),
        (&new[..new.len() - 1], ""),
        (b"something else", ""),
    ] {
        fs::write(&left, content).unwrap();
        works(place, &["apply", "old", "patch", "copy", "--dry-run"]);
        assert!(fs::read(&left).unwrap() == content);
        let output = works(place, &["apply", "old", "patch", "copy"]);
        assert!(output.contains(said), "{output}");
        assert!(fs::read(place.join("copy")).unwrap() == new);
        assert!(!left.exists());
    }
    // Somebody's link is not written through.
    fs::write(place.join("other"), "other").unwrap();
    std::os::unix::fs::symlink("other", &left).unwrap();
    works(place, &["apply", "old", "patch", "copy"]);
    assert_eq!(fs::read(place.join("other")).unwrap(), b"other");
    assert!(place.join("copy").symlink_metadata().unwrap().is_file());
}

#[test]
fn what_was_made_before_a_full_disk_stays() {
    let files = two_files();
    let place = files.path();
    works(place, &["make", "old", "new", "patch"]);
    let limited = Command::new("sh")
        .current_dir(place)
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 1; exec \"$0\" patch apply old patch copy",
        ])
        .arg(env!("CARGO_BIN_EXE_system-image-server"))
        .output()
        .unwrap();
    assert_eq!(limited.status.code(), Some(1));
    assert!(place.join("copy.new").exists());
    assert!(!place.join("copy").exists());
    works(place, &["apply", "old", "patch", "copy"]);
    assert!(fs::read(place.join("copy")).unwrap() == fs::read(place.join("new")).unwrap());
}

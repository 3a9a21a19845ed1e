//! Patches between programs: real ones, out of a compiler.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::fmt::{Debug, Write as _};
use std::fs;
use std::path::Path;
use std::process::Command;

use system_image_delta::patch::{
    Limits, PIECES, POINTERS, POINTERS_OF_AARCH64, POINTERS_OF_BTF, Patch,
};
use system_image_delta_build::patch::{Effort, Options, make};
use system_image_testkit::{Linked, aarch64, kernel_tree};

/// A program of so many functions that call each other and have strings; `extra` ones come first and in
/// the middle, so that all others move.
fn source(functions: u32, extra: u32) -> String {
    let mut source = String::from("#include <stdio.h>\n#include <stdlib.h>\n");
    let mut function = |name: String, i: u32, calls: String| {
        write!(
            source,
            "__attribute__((noinline)) int {name}(int a) {{\n\
             if (a == {i}) {{ puts(\"{name} says {i}\"); abort(); }}\n\
             a = a * {} + {calls}; return a > {} ? a - {i} : a ^ {i}; }}\n",
            i.wrapping_mul(2_654_435_761) >> 8,
            i * 7,
        )
        .unwrap();
    };
    for i in 0..extra {
        function(format!("early{i}"), 90_000 + i, "0".into());
    }
    for i in 0..functions {
        let calls = match i {
            0 => "1".into(),
            _ => format!("f{}(a) + f{}(a)", i - 1, i.wrapping_mul(7919) % i),
        };
        function(format!("f{i}"), i, calls);
        if i == 200 {
            (0..extra).for_each(|k| function(format!("late{k}"), 80_000 + k, "f200(a)".into()));
        }
    }
    source.push_str("int (*table[])(int) = {");
    (0..functions).for_each(|i| write!(source, "f{i},").unwrap());
    source.push_str("};\nint main(int c, char **v) { return table[c](c); }\n");
    source
}

fn compiled(directory: &Path, extra: u32, options: &[&str]) -> Vec<u8> {
    built(directory, &source(400, extra), options)
}

fn built(directory: &Path, source: &str, options: &[&str]) -> Vec<u8> {
    let (from, to) = (directory.join("program.c"), directory.join("program"));
    fs::write(&from, source).unwrap();
    let cc = Command::new("cc")
        .args(["-O1", "-g0", "-o"])
        .args([&to, &from])
        .args(options)
        .output()
        .unwrap();
    assert!(
        cc.status.success(),
        "{}",
        String::from_utf8_lossy(&cc.stderr)
    );
    fs::read(to).unwrap()
}

fn patch(base: &[u8], target: &[u8], memory: u64) -> Vec<u8> {
    let file = |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file.reopen().unwrap()
    };
    let mut out = Vec::new();
    let options = Options {
        memory,
        threads: 2,
        effort: Effort::Default,
        packings: None,
    };
    make(&file(base), &file(target), options, &mut out).unwrap();
    out
}

fn apply(base: &[u8], patch: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let patch = Patch::open(patch).unwrap();
    patch
        .apply(&base.to_vec(), &mut out, Limits::default())
        .unwrap();
    out
}

#[test]
fn pointers_to_what_moved_cost_next_to_nothing() {
    let lab = tempfile::tempdir().unwrap();
    // In a small file that is not linked yet, they cost little either way.
    let ways = [
        (&["-pie", "-fPIE"][..], 50),
        (&["-no-pie", "-fno-pie"], 50),
        (&["-c", "-fPIE"], 110),
    ];
    for (options, percent) in ways {
        let [base, target] = [0, 9].map(|extra| compiled(lab.path(), extra, options));
        assert_pointers_pay([&base, &target], &[POINTERS], percent, options);
    }
}

#[test]
fn pointers_of_aarch64_cost_next_to_nothing() {
    for (how, percent) in [
        (Linked::Shared, 25),
        (Linked::Fixed, 25),
        (Linked::Kernel, 30),
        (Linked::Not, 60),
    ] {
        let [base, target] = [0, 9].map(|extra| aarch64(1500, extra, how));
        let features = [POINTERS, POINTERS_OF_AARCH64];
        assert_pointers_pay([&base, &target], &features, percent, how);
    }
}

/// A patch with pointers has so many parts in a hundred of one without, and requires those features.
fn assert_pointers_pay(
    [base, target]: [&[u8]; 2],
    features: &[&str],
    percent: usize,
    what: impl Debug,
) {
    let with = patch(base, target, 90 << 20);
    assert!(apply(base, &with) == target, "{what:?}");
    let required = Patch::open(&with[..]).unwrap().header().required.clone();
    assert_eq!(required, features, "{what:?}");
    // Where there is no memory for them, all that points elsewhere is told.
    let without = patch(base, target, 6 << 20);
    assert!(apply(base, &without) == target, "{what:?}");
    let (with, without) = (with.len(), without.len());
    assert!(
        with * 100 < without * percent,
        "{what:?}: {with} of {without}"
    );
}

#[test]
fn types_that_come_in_another_order_cost_next_to_nothing() {
    let [base, target] = [(0, 1), (20, 2)].map(|(extra, build)| kernel_tree(extra, build).tar());
    let with = patch(&base, &target, 64 << 20);
    let opened = || Patch::open(&with[..]).unwrap();
    let header = opened().header().clone();
    assert_eq!(header.required, [POINTERS, POINTERS_OF_BTF]);
    assert!(apply(&base, &with) == target);
    for left in (0..target.len()).step_by(1 << header.target_block) {
        let mut out = target[..left].to_vec();
        let applied = opened().apply(&base, &mut out, Limits::default()).unwrap();
        assert!(out == target, "from {left}");
        assert!(applied.work <= header.work, "from {left}");
    }
    // With little memory, what they tell of is told again.
    let without = patch(&base, &target, 24 << 20);
    assert!(apply(&base, &without) == target);
    let (with, without) = (with.len(), without.len());
    assert!(with * 100 < without * 22, "{with} of {without}");
}

/// An image of a file system whose groups of blocks are so small that a program stands in several.
fn image(program: &[u8]) -> Vec<u8> {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("program"), program).unwrap();
    let image = tempfile::NamedTempFile::new().unwrap();
    let mkfs = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "1024", "-g", "256"])
        .args(["-O", "^flex_bg,^resize_inode,^has_journal", "-d"])
        .args([tree.path(), image.path()])
        .arg("3M")
        .output()
        .unwrap();
    assert!(mkfs.status.success(), "{mkfs:?}");
    fs::read(image.path()).unwrap()
}

#[test]
fn pointers_lead_from_one_piece_of_a_program_to_another() {
    let lab = tempfile::tempdir().unwrap();
    let [base, target] = [0, 9].map(|extra| built(lab.path(), &source(1200, extra), &["-O0"]));
    let alone = patch(&base, &target, 40 << 20).len();
    let [base, target] = [base, target].map(|program| image(&program));
    let with = patch(&base, &target, 40 << 20);
    let opened = || Patch::open(&with[..]).unwrap();
    let required = opened().header().required.clone();
    assert!(required.contains(&PIECES.into()), "{required:?}");
    // Both images have an inode and tables of their own, and what a piece is made from is told once more.
    assert!(with.len() < alone + 2500, "{} of {alone}", with.len());
    let block = 1 << opened().header().target_block;
    for left in (0..=target.len()).step_by(block) {
        let mut out = target[..left].to_vec();
        let applied = opened().apply(&base, &mut out, Limits::default()).unwrap();
        assert!(out == target, "from {left}");
        assert!(applied.work <= opened().header().work, "from {left}");
    }
    // Without memory for pointers.
    let without = patch(&base, &target, 6 << 20);
    assert!(apply(&base, &without) == target);
    let (with, without) = (with.len(), without.len());
    assert!(with * 100 < without * 60, "{with} of {without}");
}

#[test]
fn a_program_that_did_not_change_has_no_pointers_told() {
    let lab = tempfile::tempdir().unwrap();
    let base = compiled(lab.path(), 0, &[]);
    let mut target = base.clone();
    let last = target.len() - 1;
    target[last] ^= 1;
    let patch = patch(&base, &target, 90 << 20);
    assert!(
        Patch::open(&patch[..])
            .unwrap()
            .header()
            .required
            .is_empty()
    );
    assert!(apply(&base, &patch) == target);
    assert!(patch.len() < 400, "{}", patch.len());
}

#[test]
fn damaged_programs_are_bytes_like_others() {
    let lab = tempfile::tempdir().unwrap();
    let [base, target] = [0, 2].map(|extra| compiled(lab.path(), extra, &["-c"]));
    // All of the header, and the sections' headers at the end, one after the other.
    let places = (4..64).chain((target.len() - 64 * 12..target.len()).step_by(5));
    for (i, at) in places.enumerate() {
        let (mut base, mut target) = (base.clone(), target.clone());
        let of = if i % 2 == 0 { &mut base } else { &mut target };
        let at = at.min(of.len() - 1);
        of[at] = of[at].wrapping_add(0x7f);
        let patch = patch(&base, &target, 90 << 20);
        assert!(apply(&base, &patch) == target, "{at}");
    }
}

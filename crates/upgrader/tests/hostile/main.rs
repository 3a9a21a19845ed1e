//! Archives that are signed as they should be, and hostile: each one goes through the real program, the
//! system being prepared beside the old one and being changed directly, on a kernel of today and on one
//! without `openat2`.
//!
//! Around the device there is a tree that nothing may touch. What is refused leaves the device as it was,
//! and after each of them the next good update works.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]
#![allow(clippy::too_many_lines, reason = "a corpus is a list")]
#![allow(
    clippy::unnecessary_debug_formatting,
    reason = "a path in quotes is a string of TOML"
)]

mod beside;
mod case;
mod headers;
mod lab;
mod links;
mod names;
mod raw;
mod sparse;
mod streams;

use case::{Case, End};
use lab::{Kernel, Lab};

/// The limits of the device: small, so that a bomb need not be large.
const BYTES: u64 = 21 << 20;
const MEMBERS: u64 = 100;

/// What reaches a tree, or stands in the way of what does.
fn laid_over_trees() -> Vec<Case> {
    let mut cases = corpus();
    cases.retain(|case| !matches!(case.end, End::Refused(_)));
    cases
}

fn corpus() -> Vec<Case> {
    [
        names::cases(),
        links::cases(),
        headers::cases(),
        sparse::cases(),
        streams::cases(),
        beside::cases(),
    ]
    .concat()
}

/// Runs the cases, and tells of all that went wrong.
fn run(cases: &[Case], way: &str, kernel: Kernel) {
    let lab = Lab::new(way, kernel);
    let failed: Vec<_> = cases
        .iter()
        .filter_map(|case| Some(format!("{}, {way}: {}", case.name, lab.run(case).err()?)))
        .collect();
    assert!(
        failed.is_empty(),
        "{} cases\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn beside_the_old_system_hostile_archives_stay_inside_or_are_refused() {
    run(&corpus(), "beside", Kernel::Usual);
}

#[test]
fn in_the_system_itself_hostile_archives_stay_inside_or_are_refused() {
    run(&corpus(), "direct", Kernel::Usual);
}

#[test]
fn without_openat2_nothing_leaves_the_new_system_either() {
    run(&links::cases(), "beside", Kernel::WithoutOpenat2);
}

#[test]
fn without_openat2_nothing_leaves_the_system_itself_either() {
    run(&laid_over_trees(), "direct", Kernel::WithoutOpenat2);
}

//! What every patch that the builder makes must be: the same on any number of threads, one that makes the
//! target, and takes no more memory than it says.

use std::fs::File;
use std::io::Write;

use system_image_delta::patch::{Limits, Patch};
use system_image_delta_build::patch::{Effort, Options, make};

use crate::heap;

/// Longest image, in bytes.
const LONGEST: usize = 1 << 20;

/// Has a patch made for 16 MiB and more, and applies it.
pub fn check(base: &[u8], target: &[u8], memory: u8, threads: u8) {
    if base.len().max(target.len()) > LONGEST {
        return;
    }
    let files = [file(base), file(target)];
    let made = |threads| {
        let mut patch = Vec::new();
        let options = Options {
            memory: (16 + u64::from(memory % 100)) << 20,
            threads,
            effort: if memory.is_multiple_of(2) {
                Effort::Default
            } else {
                Effort::Fast
            },
            packings: None,
        };
        make(&files[0], &files[1], options, &mut patch).expect("there is a patch");
        patch
    };
    let patch = made(1);
    let again = made(2 + usize::from(threads % 3));
    assert!(patch == again, "the patch depends on the number of threads");
    let opened = Patch::open(&patch[..]).expect("the header is sound");
    let declared = opened.header().memory + heap::SLACK;
    let limits = Limits {
        memory: u64::MAX,
        ..Limits::default()
    };
    let mut out = Vec::with_capacity(target.len());
    let base = base.to_vec();
    let (done, most) = heap::most_of(|| opened.apply(&base, &mut out, limits));
    done.expect("the patch leads to its target");
    assert!(out == target, "something else was made");
    if heap::IS_COUNTED {
        assert!(most <= declared, "{most} bytes were taken, {declared} told");
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("there is room");
    file.write_all(bytes).expect("there is room");
    file
}

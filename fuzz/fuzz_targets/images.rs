//! Patches between images that are damaged: archives, file systems, programs and what is packed in them.
//!
//! An input is the settings, the base and the target.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use system_image_fuzz::{patched, sections};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    sections::mutate(data, size, max_size, seed, 3, 0..0)
});

fuzz_target!(|bytes: &[u8]| {
    let sections = sections::of(bytes, 3);
    let setting = |i: usize| sections[0].get(i).copied().unwrap_or(0);
    patched::check(&sections[1], &sections[2], setting(0), setting(1));
});

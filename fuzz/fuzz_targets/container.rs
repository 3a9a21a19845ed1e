//! What stands in front of patches: any bytes are read or refused, what was read is written to be read
//! again as the same, and a short patch cannot ask for much memory.
//!
//! An input that begins with a zero is a list of files, not packed, and what follows it.

#![no_main]

use std::io::Read;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use liblzma::read::XzEncoder;
use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use system_image_delta::patch::tree::{self, TreePatch};
use system_image_delta::patch::{Header, Patch, varint};
use system_image_fuzz::{heap, sections};

/// What a list of files or a header may take while it is read, in bytes: a list of 16 MiB and its unpacker,
/// the files that it names, and all digests.
const MOST_READING: u64 = 96 << 20;

fuzz_target!(|bytes: &[u8]| {
    let tree;
    let bytes = match bytes.split_first() {
        Some((0, listed)) => {
            tree = packed(listed);
            &tree[..]
        }
        _ => bytes,
    };
    let is_tree = bytes.starts_with(&tree::MAGIC);
    let ((), most) = heap::most_of(|| {
        if is_tree {
            of_tree(bytes);
        } else {
            of_bytes(bytes);
        }
    });
    assert!(most < MOST_READING, "{most} bytes were taken");
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match data[..size].split_first() {
        Some((0, _)) if !seed.is_multiple_of(16) => {
            1 + sections::mutate(&mut data[1..], size - 1, max_size - 1, seed >> 4, 2, 0..1)
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});

/// Packs a list of files, and puts what follows it behind.
fn packed(listed: &[u8]) -> Vec<u8> {
    let [list, front] = <[_; 2]>::try_from(sections::of(listed, 2)).expect("there are two");
    let mut options = LzmaOptions::new_preset(0).expect("the library knows it");
    options.dict_size(1 << 20);
    let mut filters = Filters::new();
    filters.lzma2(&options);
    let stream = Stream::new_stream_encoder(&filters, Check::Crc32);
    let mut encoder = XzEncoder::new_stream(&list[..], stream.expect("the library knows it"));
    let mut packed = Vec::new();
    encoder.read_to_end(&mut packed).expect("memory takes it");
    let mut bytes = tree::MAGIC.to_vec();
    for number in [2, list.len() as u64, packed.len() as u64] {
        varint::put(&mut bytes, number);
    }
    [bytes, packed, front].concat()
}

fn of_bytes(mut bytes: &[u8]) {
    let Ok(patch) = Patch::open(&mut bytes) else {
        return;
    };
    let header = patch.header().clone();
    drop(patch);
    same(&header, bytes);
}

/// Whether what is written of a header is read as the same, with nothing of the body.
fn same(header: &Header, body: &[u8]) {
    let mut again = header.to_bytes();
    again.extend_from_slice(body);
    let mut left = &again[..];
    let read = Header::read(&mut left).expect("what was written can be read");
    assert!(read == *header, "another header was read");
    assert!(left == body, "the body begins elsewhere");
}

fn of_tree(mut bytes: &[u8]) {
    let Ok(patch) = TreePatch::open(&mut bytes) else {
        return;
    };
    let (files, header) = (patch.files().clone(), patch.header().clone());
    let memory = patch.memory();
    drop(patch);
    for path in files.paths() {
        let mut parts = path.as_bytes().split(|&byte| byte == b'/');
        let is_sound = parts.all(|part| !matches!(part, b"" | b"." | b".."));
        assert!(is_sound, "{path} leads elsewhere");
    }
    same(&header, bytes);
    let mut again = files.to_bytes().expect("memory takes it");
    again.append(&mut header.to_bytes());
    again.extend_from_slice(bytes);
    let again = TreePatch::open(&again[..]).expect("what was written can be read");
    assert!(*again.files() == files, "other files were read");
    assert!(*again.header() == header, "another header was read");
    assert!(again.memory() == memory, "other memory was read");
}

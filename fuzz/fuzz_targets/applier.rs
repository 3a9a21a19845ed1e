//! Patches that are sound as containers, whatever they say: each is applied, and compared with what another
//! applier makes of it.
//!
//! An input is the settings, the base, and the plain streams of the body. What stands in front is made to
//! fit: the digests of the base, those of what the other applier made, and memory and work as the settings
//! tell. So a real patch can be changed at any place without any digest or packing in the way.

#![no_main]

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use sha2::{Digest, Sha256};
use system_image_delta::patch::header::{BlockDigest, DIGEST};
use system_image_delta::patch::{
    ApplyError, Header, Identity, Limits, MEMORY_OF_POINTERS, Output, POINTERS, Patch, ReadAt,
    Stream,
};
use system_image_fuzz::reference::{Reference, Stop};
use system_image_fuzz::{body, heap, sections};

/// Settings and base, then the streams.
const SECTIONS: usize = 2 + Stream::COUNT;

/// More than any page or unpacker takes, in bytes.
const PLENTY: u64 = 256 << 20;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    sections::mutate(data, size, max_size, seed, SECTIONS, 2..8)
});

fuzz_target!(|bytes: &[u8]| {
    let mut sections = sections::of(bytes, SECTIONS);
    let streams = sections.split_off(2);
    let base = sections.pop().expect("it is the second");
    let setting = |i: usize| sections[0].get(i).copied().unwrap_or(0);

    let mut reference = Reference::new(&base, &streams);
    let told = reference.run();
    let mut target = reference.target.clone();
    let mut is_honest = told.is_ok();
    match setting(0) % 8 {
        1 => target.push(0),
        2 if !target.is_empty() => drop(target.pop()),
        3 if !target.is_empty() => target[0] ^= 1,
        _ => {}
    }
    is_honest &= target == reference.target;

    let dictionary = |plain: &Vec<u8>| match plain.len() as u64 {
        0 => 0,
        len => len.next_power_of_two().clamp(4 << 10, 1 << 20),
    };
    let dictionaries: Vec<u64> = streams.iter().map(dictionary).collect();
    let (base_block, target_block) = (
        12 + u32::from(setting(1) % 4),
        12 + u32::from(setting(2) % 12),
    );
    let mut header = Header {
        required: reference.features.iter().map(|&name| name.into()).collect(),
        optional: Vec::new(),
        base: identity(&base),
        target: identity(&target),
        base_block,
        target_block,
        memory: 0,
        work: u64::MAX,
        dictionaries,
        base_digests: digests(&base, base_block).into_iter().map(Some).collect(),
        target_digests: digests(&target, target_block),
    };
    let fixed = Patch::<&[u8]>::fixed_memory(&header);
    let pointers = if header.requires(POINTERS) {
        MEMORY_OF_POINTERS
    } else {
        0
    };
    let needed = fixed + reference.encoder + reference.unpacker + pointers + (1 << 20);
    // What is said, and whether it is enough.
    let (memory, is_enough) = match setting(3) % 8 {
        0..=2 => (needed + PLENTY, true),
        3 => (needed + (u64::from(setting(4)) << 16), false),
        4 => (fixed + (u64::from(setting(4)) << 16), false),
        5 => (fixed + reference.encoder, false),
        6 => (fixed.saturating_sub(1), false),
        _ => (fixed + pointers, false),
    };
    header.memory = memory;
    is_honest &= is_enough;
    if setting(5) % 4 == 3 {
        header.work = u64::from(setting(6)) << 12;
        is_honest = false;
    }
    if setting(7) % 8 == 7 && !header.base_digests.is_empty() {
        let at = usize::from(setting(8)) % header.base_digests.len();
        header.base_digests[at] = None;
        is_honest = false;
    }
    let is_packed = setting(9) % 4 == 3;
    let mut patch = header.to_bytes();
    let asked = &reference.asked;
    patch.extend(body::packed(
        &streams,
        &header.dictionaries,
        asked,
        is_packed,
    ));

    let limits = Limits {
        memory: u64::MAX,
        work: u64::MAX,
    };
    let base = Counted {
        bytes: &base,
        read: AtomicU64::new(0),
    };
    let mut output = Checked::new(&header);
    let (done, most) = heap::most_of(|| {
        let opened = Patch::open(&patch[..]).expect("the header is sound");
        opened.apply(&base, &mut output, limits)
    });
    let declared = header.memory.max(fixed) + heap::SLACK;
    if heap::IS_COUNTED {
        assert!(most <= declared, "{most} bytes were taken, {declared} told");
    }
    // Each byte is checked, copied or unpacked; what is changed on the way may be read again.
    let read = base.read.into_inner();
    let most_read = 2 * base.bytes.len() as u64 + 8 * target.len() as u64 + (1 << 20);
    let most_read = most_read.saturating_add(header.work);
    assert!(read <= most_read, "{read} bytes were read of the base");
    match &done {
        Ok(applied) => {
            assert!(applied.work <= header.work, "{} was done", applied.work);
            assert!(output.bytes == target, "other bytes were made");
            assert!(told != Err(Stop::Damaged), "a damaged patch was applied");
        }
        Err(error) => assert!(!is_honest, "a sound patch was refused: {error:?}"),
    }
    if memory < PLENTY {
        refused(&patch, memory, &header);
    }
});

/// A patch that says more than the device allows is refused.
fn refused(patch: &[u8], memory: u64, header: &Header) {
    let limits = Limits {
        memory: memory - 1,
        work: u64::MAX,
    };
    let mut output = Checked::new(header);
    let opened = Patch::open(patch).expect("the header is sound");
    let done = opened.apply(&b""[..].to_vec(), &mut output, limits);
    assert!(matches!(done, Err(ApplyError::Memory { .. })), "{done:?}");
}

fn identity(bytes: &[u8]) -> Identity {
    Identity {
        len: bytes.len() as u64,
        sha256: Sha256::digest(bytes).into(),
    }
}

fn digest(bytes: &[u8]) -> BlockDigest {
    let digest = Sha256::digest(bytes);
    digest[..DIGEST].try_into().expect("it is longer")
}

fn digests(bytes: &[u8], block: u32) -> Vec<BlockDigest> {
    bytes.chunks(1 << block).map(digest).collect()
}

/// A base that counts what is read of it.
struct Counted<'a> {
    bytes: &'a [u8],
    read: AtomicU64,
}

impl ReadAt for Counted<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read.fetch_add(buffer.len() as u64, Relaxed);
        self.bytes.read_exact_at(buffer, offset)
    }
}

/// An output that takes nothing but the blocks of the header.
struct Checked {
    bytes: Vec<u8>,
    block: u32,
    digests: BTreeSet<(usize, BlockDigest)>,
}

impl Checked {
    fn new(header: &Header) -> Self {
        let len = usize::try_from(header.target.len).expect("it is in memory");
        Self {
            bytes: Vec::with_capacity(len),
            block: header.target_block,
            digests: header.target_digests.iter().copied().enumerate().collect(),
        }
    }
}

impl ReadAt for Checked {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.bytes.read_exact_at(buffer, offset)
    }
}

impl Output for Checked {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        assert!(offset == self.bytes.len() as u64, "a block is left out");
        let number = self.bytes.len() >> self.block;
        assert!(
            self.digests.contains(&(number, digest(bytes))),
            "wrong bytes"
        );
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

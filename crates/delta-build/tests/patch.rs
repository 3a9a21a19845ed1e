//! Patches between real archives: what they make, what they refuse, and what damage does.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod samples;

use std::fs::File;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sha2::{Digest, Sha256};
use system_image_delta::patch::header::{BlockDigest, DIGEST};
use system_image_delta::patch::{
    Applied, ApplyError, Codec, Header as PatchHeader, HeaderError, IN_PIECES, Identity, Limits,
    MEMORY_OF_POINTERS, PAGE, PIECES, POINTERS, Patch, Remaker, Unpacker, WITH_POINTERS, Xz,
    XzCheck, Zstd157, varint,
};
use system_image_delta::{Header, Kind};
use system_image_delta_build::Writer;
use system_image_delta_build::patch::{Effort, MakeError, Options, Packings, make};
use system_image_gzip::Flavour;

use samples::{noise, text};

const OPTIONS: Options<'_> = Options {
    memory: 90 << 20,
    threads: 2,
    effort: Effort::Default,
    packings: None,
};

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn patch(base: &[u8], target: &[u8], options: Options<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    make(&file(base), &file(target), options, &mut out).unwrap();
    out
}

fn apply(base: &[u8], patch: &[u8]) -> Result<(Vec<u8>, Applied), ApplyError> {
    let mut out = Vec::new();
    let patch = Patch::open(patch).expect("the header is whole");
    let applied = patch.apply(&file(base), &mut out, Limits::default())?;
    Ok((out, applied))
}

fn tar(members: &[(&str, &[u8])], time: u64) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in members {
        let size = content.len() as u64;
        let kind = Kind::File { size };
        let time = time.cast_signed();
        let header = Header::of_root(name.as_bytes().to_vec(), kind, 0o644, time);
        writer.member(&header, &mut &**content).unwrap();
    }
    writer.finish().unwrap().0
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    filtered("gzip", &["-9nc"], plain)
}

/// A kernel module as Debian packs it.
fn module_of(plain: &[u8]) -> Vec<u8> {
    let told = ["--check=crc32", "--lzma2=dict=1MiB", "-T+1", "-c"];
    filtered("xz", &told, plain)
}

/// What a program makes of its input.
fn filtered(program: &str, told: &[&str], plain: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(told)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(plain).unwrap());
        child.wait_with_output().unwrap().stdout
    })
}

fn packed(codec: Codec, plain: &[u8]) -> Vec<u8> {
    let mut remaker = Remaker::new(codec, plain.len() as u64, u64::MAX).unwrap();
    let mut out = Vec::new();
    remaker.push(plain, &mut out).unwrap();
    remaker.finish(&mut out).unwrap();
    out
}

/// An initial RAM disk: a cpio archive, packed by zstd.
fn initrd(members: &[(&str, &[u8])], time: u32) -> Vec<u8> {
    let codec = Codec::Zstd {
        level: 9,
        checksum: true,
        window: 22,
    };
    packed(codec, &cpio(members, time))
}

fn cpio(members: &[(&str, &[u8])], time: u32) -> Vec<u8> {
    let mut cpio = Vec::new();
    for (i, (name, content)) in members
        .iter()
        .chain(&[("TRAILER!!!", &b""[..])])
        .enumerate()
    {
        let fields = [
            i,
            0o100_644,
            0,
            0,
            1,
            time as usize,
            content.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0,
        ];
        cpio.extend_from_slice(b"070701");
        for field in fields {
            cpio.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        cpio.extend_from_slice(name.as_bytes());
        cpio.push(0);
        cpio.resize(cpio.len().next_multiple_of(4), 0);
        cpio.extend_from_slice(content);
        cpio.resize(cpio.len().next_multiple_of(4), 0);
    }
    cpio
}

/// A kernel as far as its packing goes.
fn kernel(head: u64, plain: &[u8]) -> Vec<u8> {
    let mut bytes = b"MZ".to_vec();
    bytes.resize(0x202, 0);
    bytes.extend_from_slice(b"HdrS");
    bytes.extend(noise(head, 2000));
    bytes.extend(packed(Codec::Lz4Legacy { level: 9 }, plain));
    bytes.extend_from_slice(&u32::try_from(plain.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(b"end");
    bytes
}

/// Two versions of an image with something of everything.
fn images() -> [Vec<u8>; 2] {
    let module = noise(7, 90_000);
    let mut new_module = module.clone();
    new_module.splice(40_000..40_000, noise(8, 300));
    for at in (0..new_module.len()).step_by(701) {
        new_module[at] = new_module[at].wrapping_add(3);
    }
    let vmlinux = noise(9, 500_000);
    let mut new_vmlinux = vmlinux.clone();
    new_vmlinux.rotate_left(100_000);
    new_vmlinux[5000] ^= 1;
    let (log, new_log) = (text(0..9000), text(0..9100));
    let base = tar(
        &[
            (
                "boot/initrd.img-6.1.0-50",
                &initrd(&[("lib/6.1.0-50/a.ko", &module)], 1),
            ),
            ("boot/vmlinuz-6.1.0-50", &kernel(1, &vmlinux)),
            ("lib/6.1.0-50/a.ko", &module),
            ("doc/changelog.gz", &gzip(&log)),
            (
                "etc/same",
                b"the same content in both, long enough to be found by it",
            ),
            ("etc/empty", b""),
        ],
        1,
    );
    let target = tar(
        &[
            (
                "boot/initrd.img-6.1.0-56",
                &initrd(&[("lib/6.1.0-56/a.ko", &new_module)], 2),
            ),
            ("boot/vmlinuz-6.1.0-56", &kernel(2, &new_vmlinux)),
            ("lib/6.1.0-56/a.ko", &new_module),
            ("doc/changelog.gz", &gzip(&new_log)),
            (
                "etc/moved",
                b"the same content in both, long enough to be found by it",
            ),
            ("etc/twice", &noise(11, 5000)),
            ("etc/twice-again", &noise(11, 5000)),
        ],
        2,
    );
    [base, target]
}

#[test]
fn an_image_is_made_of_another() {
    let [base, target] = images();
    let patch = patch(&base, &target, OPTIONS);
    let (made, _) = apply(&base, &patch).unwrap();
    assert!(made == target);
    // The noise that is new once, and some for all else: nothing packed was carried, nothing twice.
    let new = 5000 + 300 + 2000;
    assert!(patch.len() < new + 4000, "{} bytes", patch.len());
}

/// Two images of Debian 13: modules are packed by xz, and stand as they are in front of the initial
/// RAM disk, which came to zstd through a pipe. In the first, modules are not packed, as in Debian 12.
fn packed_modules() -> [Vec<u8>; 2] {
    let module = noise(21, 90_000);
    let mut new_module = module.clone();
    new_module.splice(40_000..40_000, noise(22, 300));
    let program = [text(0..20_000), noise(23, 60_000)].concat();
    let mut new_program = program.clone();
    new_program.splice(500_000..500_000, noise(24, 200));
    let new_packed = module_of(&new_module);
    let mut ramdisk = cpio(&[("usr/lib/modules/6.12/fs/a.ko.xz", &new_packed)], 2);
    ramdisk.resize(ramdisk.len().next_multiple_of(512), 0);
    let codec = Codec::Zstd157(Zstd157 {
        level: 9,
        checksum: true,
        window: 22,
        is_sized: false,
    });
    let twice = b"new, and twice in what is packed as one, so that neither is there for the other";
    let members = [
        ("usr/bin/program", &new_program[..]),
        ("usr/share/one", twice),
        ("usr/share/other", twice),
    ];
    ramdisk.extend(packed(codec, &cpio(&members, 2)));
    let base = tar(
        &[
            ("lib/modules/6.1.0-50/fs/a.ko", &module),
            ("lib/modules/6.1.0-50/net/a.ko", &noise(25, 90_000)),
            ("usr/bin/program", &program),
        ],
        1,
    );
    let target = tar(
        &[
            ("boot/initrd.img-6.12", &ramdisk),
            ("usr/bin/program", &new_program),
            ("usr/lib/modules/6.12/fs/a.ko.xz", &new_packed),
        ],
        2,
    );
    [base, target]
}

#[test]
fn packed_modules_are_made_of_plain_ones_and_packed_once() {
    let [base, target] = packed_modules();
    let patch = patch(&base, &target, OPTIONS);
    let opened = Patch::open(&patch[..]).unwrap();
    assert_eq!(opened.header().required, ["pack-xz", "pack-zstd-1.5.7"]);
    assert!(apply(&base, &patch).unwrap().0 == target);
    let new = 300 + 200 + 100;
    assert!(patch.len() < new + 2500, "{} bytes", patch.len());
}

#[test]
fn packed_modules_are_made_of_packed_ones() {
    let [_, base] = packed_modules();
    let mut module = noise(21, 90_000);
    module[50_000] ^= 1;
    let module = module_of(&module);
    let target = tar(&[("usr/lib/modules/6.13/fs/a.ko.xz", &module)], 3);
    let patch = patch(&base, &target, OPTIONS);
    assert!(apply(&base, &patch).unwrap().0 == target);
    assert!(patch.len() < 1500, "{} bytes", patch.len());
}

#[test]
fn damaged_packed_modules_are_carried_as_they_are() {
    let module = module_of(&noise(21, 90_000));
    let mut damaged = module.clone();
    damaged[40_000] ^= 1;
    let mut longer = module.clone();
    longer.extend(b"more");
    for odd in [&damaged[..], &module[..70_000], &longer, &module[..20]] {
        let base = tar(&[("a.ko", &noise(21, 90_000))], 1);
        let target = tar(&[("a.ko.xz", odd)], 2);
        let patch = patch(&base, &target, OPTIONS);
        let opened = Patch::open(&patch[..]).unwrap();
        assert!(opened.header().required.is_empty());
        assert!(apply(&base, &patch).unwrap().0 == target);
    }
}

#[test]
fn files_of_xz_are_packed_again_to_the_bytes_of_the_program() {
    // More than a block of 3 MiB, where there are blocks.
    let long = [text(0..60_000), noise(3, 2_500_000)].concat();
    assert!(long.len() > 3 << 20);
    let short = [text(0..6000), noise(3, 90_000)].concat();
    for (told, preset, is_extreme, check, dictionary, has_blocks) in [
        (
            &["--check=crc32", "--lzma2=dict=1MiB", "-T+1", "-c"][..],
            6,
            false,
            XzCheck::Crc32,
            20,
            true,
        ),
        (&["-6", "-T1", "-c"], 6, false, XzCheck::Crc64, 23, false),
        (
            &["-1e", "-T1", "-C", "sha256", "-c"],
            1,
            true,
            XzCheck::Sha256,
            20,
            false,
        ),
        (
            &["-0", "-T+1", "-C", "none", "-c"],
            0,
            false,
            XzCheck::None,
            18,
            true,
        ),
    ] {
        let codec = Codec::Xz(Xz {
            preset,
            is_extreme,
            check,
            dictionary,
            has_blocks,
        });
        let plain = if has_blocks { &long } else { &short };
        let file = filtered("xz", told, plain);
        assert!(packed(codec, plain) == file, "{told:?}");
        let mut unpacker = Unpacker::new(codec).unwrap();
        let mut out = vec![0; plain.len() + 1];
        let (mut at, mut made) = (0, 0);
        while at < file.len() {
            let end = file.len().min(at + 1000);
            let progress = unpacker.unpack(&file[at..end], &mut out[made..]).unwrap();
            at += progress.took;
            made += progress.made;
        }
        assert!(out[..made] == plain[..]);
    }
}

#[test]
fn a_file_of_xz_with_a_larger_dictionary_than_is_said_is_refused() {
    let xz = |dictionary| {
        Codec::Xz(Xz {
            preset: 6,
            is_extreme: false,
            check: XzCheck::Crc32,
            dictionary,
            has_blocks: false,
        })
    };
    let file = packed(xz(23), &text(0..1000));
    let mut out = vec![0; 1 << 16];
    let mut unpacker = Unpacker::new(xz(20)).unwrap();
    assert!(unpacker.unpack(&file, &mut out).is_err());
    let mut unpacker = Unpacker::new(xz(23)).unwrap();
    assert!(unpacker.unpack(&file, &mut out).is_ok());
}

#[test]
fn equal_inputs_give_equal_patches_on_any_number_of_threads() {
    let [base, target] = images();
    for effort in [Effort::Fast, Effort::Default] {
        let on = |threads| {
            let options = Options {
                threads,
                effort,
                ..OPTIONS
            };
            patch(&base, &target, options)
        };
        assert!(on(1) == on(4), "{effort:?}");
    }
}

#[test]
fn an_image_is_made_of_nothing() {
    let target = tar(&[("lib/a", &cpio(&[("etc/0", b"")], 0))], 1);
    for base in [tar(&[], 1), Vec::new()] {
        let patch = patch(&base, &target, OPTIONS);
        assert!(apply(&base, &patch).unwrap().0 == target);
    }
}

#[test]
fn what_another_patch_found_out_changes_nothing() {
    let [base, target] = images();
    let packings = Packings::default();
    let options = Options {
        packings: Some(&packings),
        ..OPTIONS
    };
    let alone = patch(&base, &target, OPTIONS);
    for _ in 0..2 {
        assert!(patch(&base, &target, options) == alone);
    }
}

#[test]
fn a_patch_made_fast_leads_to_the_target_too() {
    let [base, target] = images();
    let options = Options {
        effort: Effort::Fast,
        ..OPTIONS
    };
    let fast = patch(&base, &target, options);
    assert!(apply(&base, &fast).unwrap().0 == target);
    // What it leaves out is the search for the best, not what makes patches small.
    assert!(fast.len() < 2 * patch(&base, &target, OPTIONS).len());
}

#[test]
fn a_long_stream_is_packed_in_parts_that_are_read_as_one() {
    let base = noise(7, 14 << 20);
    let mut target = base.clone();
    for at in (0..target.len()).step_by(1009) {
        target[at] ^= 0x5a;
    }
    let options = Options {
        effort: Effort::Fast,
        ..OPTIONS
    };
    let patch = patch(&base, &target, options);
    assert!(apply(&base, &patch).unwrap().0 == target);
}

#[test]
fn a_small_device_gets_a_patch_that_it_can_apply() {
    let [base, target] = images();
    let options = Options {
        memory: 24 << 20,
        ..OPTIONS
    };
    let small = patch(&base, &target, options);
    let opened = Patch::open(&small[..]).unwrap();
    assert!(opened.header().memory <= 24 << 20);
    let mut out = Vec::new();
    let limits = Limits {
        memory: 24 << 20,
        ..Limits::default()
    };
    opened.apply(&file(&base), &mut out, limits).unwrap();
    assert!(out == target);
}

#[test]
fn what_is_unpacked_finds_room_beside_what_packs() {
    let [base, target] = images();
    for memory in (16..64).step_by(3) {
        let options = Options {
            memory: memory << 20,
            ..OPTIONS
        };
        let patch = patch(&base, &target, options);
        assert!(apply(&base, &patch).unwrap().0 == target, "{memory}");
    }
}

#[test]
fn an_unpacker_that_takes_more_memory_than_is_told_is_refused() {
    let plain = text(0..100);
    let base = packed(Codec::Lz4Legacy { level: 9 }, &plain);
    let target = [&base[..], &plain].concat();
    // The base itself, then what it holds, out of a view.
    let len = |bytes: &[u8]| bytes.len() as u64;
    let mut control = vec![1, 2, len(&base), 3, 0, 0, len(&base), len(&plain)];
    control.extend(Codec::Lz4Legacy { level: 9 }.numbers());
    control.extend([1, 2, len(&plain), 0]);
    let numbers = [
        control,
        vec![0, 0],
        vec![len(&base), len(&plain)],
        vec![0, 0],
        vec![len(&target)],
    ];
    let applied = |more: u64| {
        let mut header = header(&base, &target, numbers.len());
        header.memory = Patch::<&[u8]>::fixed_memory(&header) + more;
        let patch = [header.to_bytes(), stored(&numbers)].concat();
        apply(&base, &patch)
    };
    let needed = Unpacker::memory(Codec::Lz4Legacy { level: 9 }) + PAGE as u64;
    assert!(applied(needed).unwrap().0 == target);
    for less in [0, 1 << 20, needed - 1] {
        let refused = applied(less).unwrap_err();
        assert!(matches!(refused, ApplyError::Patch(_)), "{refused:?}");
    }
}

#[test]
fn a_packed_member_that_holds_next_to_nothing_is_work() {
    // Blocks of DEFLATE that are stored and empty, then one with a single byte (RFC 1951).
    let mut base = [0, 0, 0, 0xff, 0xff].repeat(50_000);
    base.extend([1, 1, 0, 0xfe, 0xff, b'x']);
    let len = base.len() as u64;
    let mut control = vec![3, 0, 0, len, 1];
    let (flavour, level) = (Flavour::Gzip, 9);
    control.extend(Codec::Deflate { flavour, level }.numbers());
    control.extend([1, 2, 1, 0]);
    let from = varint::fold(len.cast_signed());
    let numbers = [control, vec![0], vec![1], vec![from], vec![1]];
    let applied = |work| {
        let mut header = header(&base, b"x", numbers.len());
        header.memory = Patch::<&[u8]>::fixed_memory(&header) + (2 << 20);
        header.work = work;
        let patch = [header.to_bytes(), stored(&numbers)].concat();
        apply(&base, &patch)
    };
    assert_eq!(applied(len + 1).unwrap().1.work, len + 1);
    for less in [0, 1, len] {
        let refused = applied(less).unwrap_err();
        assert!(matches!(refused, ApplyError::Patch(_)), "{refused:?}");
    }
}

#[test]
fn parts_that_make_nothing_are_refused() {
    let applied = |control: &[u64]| {
        let mut header = header(b"", b"", 1);
        header.memory = Patch::<&[u8]>::fixed_memory(&header) + (1 << 20);
        let patch = [header.to_bytes(), stored(&[control.to_vec()])].concat();
        apply(b"", &patch)
    };
    applied(&[0]).unwrap();
    for control in [&[1, 0, 0, 0][..], &[2, 0, 0, 0], &[2, 0, 7, 1, 1, 128, 0]] {
        let refused = applied(control).unwrap_err();
        assert!(matches!(refused, ApplyError::Patch(_)), "{refused:?}");
    }
}

#[test]
fn a_portion_is_within_its_file_and_the_rest_of_that_is_work() {
    let applied = |start, work| {
        let (base, target) = (b"0123456789", b"2345");
        // All of the file is told as one copy, and four of its eight bytes are made.
        let kind = 2 | WITH_POINTERS | IN_PIECES;
        let control = vec![1, kind, 4, 8, start, 1, 0, 0, 0, 0];
        let numbers = [control, vec![0], vec![8], vec![0], vec![4]];
        let mut header = header(base, target, numbers.len());
        header.required = vec![POINTERS.into(), PIECES.into()];
        header.memory = Patch::<&[u8]>::fixed_memory(&header) + MEMORY_OF_POINTERS + (3 << 20);
        header.work = work;
        let patch = [header.to_bytes(), stored(&numbers)].concat();
        apply(base, &patch)
    };
    assert_eq!(applied(2, 4).unwrap().0, b"2345");
    for (start, work) in [(2, 3), (5, 9), (9, 9), (u64::MAX, 9)] {
        let refused = applied(start, work).unwrap_err();
        assert!(matches!(refused, ApplyError::Patch(_)), "{refused:?}");
    }
    assert!(matches!(
        applied(3, 4).unwrap_err(),
        ApplyError::Wrong { .. }
    ));
}

/// A header without memory, for streams of numbers.
fn header(base: &[u8], target: &[u8], streams: usize) -> PatchHeader {
    let identity = |bytes: &[u8]| Identity {
        len: bytes.len() as u64,
        sha256: Sha256::digest(bytes).into(),
    };
    let digests = |bytes: &[u8]| -> Vec<BlockDigest> {
        let digest = |block: &[u8]| Sha256::digest(block)[..DIGEST].try_into().unwrap();
        bytes.chunks(1 << 12).map(digest).collect()
    };
    PatchHeader {
        required: Vec::new(),
        optional: Vec::new(),
        base: identity(base),
        target: identity(target),
        base_block: 12,
        target_block: 12,
        memory: 0,
        work: 1 << 30,
        dictionaries: vec![4096; streams],
        base_digests: digests(base).into_iter().map(Some).collect(),
        target_digests: digests(target),
    }
}

/// A body of short streams of numbers, each in one chunk that is not packed, in the order in which
/// they are asked for.
fn stored(streams: &[Vec<u64>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (stream, numbers) in streams.iter().enumerate() {
        let mut plain = Vec::new();
        for &number in numbers {
            varint::put(&mut plain, number);
        }
        let [high, low] = u16::try_from(plain.len() - 1).unwrap().to_be_bytes();
        body.push(u8::try_from(stream).unwrap());
        varint::put(&mut body, plain.len() as u64 + 3);
        body.extend([1, high, low]);
        body.extend(plain);
    }
    body
}

#[test]
fn more_memory_than_the_device_allows_is_refused() {
    let [base, target] = images();
    let patch = patch(&base, &target, OPTIONS);
    let mut out = Vec::new();
    let limits = Limits {
        memory: 1 << 20,
        ..Limits::default()
    };
    let refused = Patch::open(&patch[..])
        .unwrap()
        .apply(&file(&base), &mut out, limits);
    assert!(
        matches!(refused, Err(ApplyError::Memory { .. })),
        "{refused:?}"
    );
    assert!(out.is_empty());
}

#[test]
fn another_base_is_refused_before_anything_is_written() {
    let [base, target] = images();
    let patch = patch(&base, &target, OPTIONS);
    for at in [0, 600, base.len() / 2, base.len() - 2000] {
        let mut other = base.clone();
        other[at] ^= 1;
        let mut out = Vec::new();
        let refused =
            Patch::open(&patch[..])
                .unwrap()
                .apply(&file(&other), &mut out, Limits::default());
        assert!(
            matches!(refused, Err(ApplyError::OtherBase { .. })),
            "{at}: {refused:?}"
        );
        assert!(out.is_empty());
    }
    let refused = apply(&base[..1000], &patch);
    assert!(matches!(refused, Err(ApplyError::Base(_))), "{refused:?}");
}

#[test]
fn a_patch_that_needs_what_is_not_known_is_refused_by_name() {
    let base = text(0..100);
    let whole = patch(&base, &base, OPTIONS);
    let mut header = Patch::open(&whole[..]).unwrap().header().clone();
    let body = &whole[header.to_bytes().len()..];
    header.required.push("mind-reading".into());
    let asking = [&header.to_bytes()[..], body].concat();
    let refused = apply(&base, &asking);
    assert!(
        matches!(&refused, Err(ApplyError::Feature(name)) if name == "mind-reading"),
        "{refused:?}"
    );
}

#[test]
fn what_is_no_patch_of_this_version_is_refused() {
    let refused = Patch::open(&b"BSDIFF40 and more"[..]).unwrap_err();
    assert!(matches!(refused, HeaderError::Magic));
    let mut later = system_image_delta::patch::header::MAGIC.to_vec();
    varint::put(&mut later, 2);
    let refused = Patch::open(&later[..]).unwrap_err();
    assert!(matches!(refused, HeaderError::Version(2)));
}

#[test]
fn damage_is_refused_or_does_nothing() {
    let [base, target] = images();
    let whole = patch(&base, &target, OPTIONS);
    let (mut refused, mut harmless) = (0, 0);
    for at in (0..whole.len()).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        let Ok(opened) = Patch::open(&damaged[..]) else {
            refused += 1;
            continue;
        };
        let mut out = Vec::new();
        let done = opened.apply(&file(&base), &mut out, Limits::default());
        assert!(target.starts_with(&out), "wrong bytes were handed on");
        if done.is_ok() {
            assert!(out == target);
            harmless += 1;
        } else {
            refused += 1;
        }
    }
    assert!(
        refused > 20 * harmless,
        "{refused} refused, {harmless} harmless"
    );
    for len in (0..whole.len()).step_by(411) {
        let opened = Patch::open(&whole[..len]);
        let Ok(opened) = opened else { continue };
        let mut out = Vec::new();
        assert!(
            opened
                .apply(&file(&base), &mut out, Limits::default())
                .is_err()
        );
        assert!(target.starts_with(&out));
    }
}

#[test]
fn any_bytes_are_made_of_any_others() {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..3000);
    let edits = proptest::collection::vec((0..3000_usize, 0..200_usize, bytes()), 0..4);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(64));
    runner
        .run(&(bytes(), edits), |(base, edits)| {
            let mut target = base.clone();
            for (at, len, new) in edits {
                let at = at.min(target.len());
                let end = (at + len).min(target.len());
                target.splice(at..end, new);
            }
            let patch = patch(&base, &target, OPTIONS);
            prop_assert!(apply(&base, &patch).unwrap().0 == target);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_full_disk_is_told() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let failed = make(&file(b"base"), &file(b"target"), OPTIONS, &mut Full).unwrap_err();
    assert!(matches!(failed, MakeError::Write(_)), "{failed:?}");
}

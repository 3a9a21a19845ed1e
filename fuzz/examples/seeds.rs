//! Writes inputs from which the fuzzers begin: real patches between small images with something of
//! everything, and one of each codec. It wants `cc`, the assembler and the linker for AArch64, `mksquashfs`
//! and `mkfs.ext4`.
//!
//! Usage: `cargo run --release --example seeds DIRECTORY`; there comes a directory for each target.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use system_image_delta::patch::tree::Files;
use system_image_delta::patch::{
    Codec, IN_PIECES, Patch, Remaker, Stream, WITH_POINTERS, Xz, XzCheck, Zstd157, varint,
};
use system_image_delta::{Header, Kind, MemberPath};
use system_image_delta_build::Writer;
use system_image_delta_build::patch::{Effort, Options, make};
use system_image_fuzz::{body, sections};
use system_image_gzip::Flavour;

#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is a file of the tests' fixtures"
)]
#[path = "../../crates/testkit/src/aarch64.rs"]
mod programs;

use programs::{Linked, aarch64};

fn main() {
    let directory = std::env::args().nth(1).expect("a directory is told");
    let seeds = Seeds(directory);
    let (base, target) = archives();
    seeds.patch("archive", &base, &target);
    let (base, target) = packed_modules();
    seeds.patch("modules", &base, &target);
    seeds.patch(
        "text",
        &text(0..100),
        &[text(0..40), text(45..100)].concat(),
    );
    seeds.patch("nothing", b"", b"");
    let lab = tempfile::tempdir().expect("there is room");
    for (name, options) in [
        ("object", &["-c"][..]),
        ("program", &["-nostdlib", "-static"]),
    ] {
        let program = |extra| compiled(lab.path(), extra, options);
        seeds.patch(name, &program(0), &program(3));
    }
    for (name, linked) in [("instructions", Linked::Not), ("image", Linked::Kernel)] {
        let program = |extra| aarch64(180, extra, linked);
        seeds.patch(name, &program(0), &program(3));
    }
    let [base, target] = [false, true].map(|is_second| squashfs(lab.path(), is_second));
    seeds.patch("squashfs", &base, &target);
    let within = |image: &[u8], lines| {
        let boot = boot_image(&gzip(Flavour::Gzip, &text(0..lines)), &text(lines..200));
        let members = [
            ("partitions/system.img", image),
            ("partitions/boot.img", &boot),
        ];
        tar(&members, 1)
    };
    seeds.patch("within", &within(&base, 90), &within(&target, 100));
    let images = [false, true].map(|is_second| ext4(lab.path(), is_second));
    let [base, target] = &images;
    seeds.write(
        "images",
        "ext4",
        &sections::put(&[vec![80], base.clone(), target.clone()]),
    );
    for (i, codec) in codecs().into_iter().enumerate() {
        seeds.codec(&format!("codec-{i}"), codec);
    }
}

/// What a stream of numbers has.
fn numbers(streams: &body::Streams, stream: Stream) -> Vec<u64> {
    let mut left = &streams[usize::from(stream.number())][..];
    std::iter::from_fn(move || varint::read(&mut left).ok()).collect()
}

/// Puts these numbers in a stream.
fn set(streams: &mut body::Streams, stream: Stream, numbers: &[u64]) {
    let bytes = &mut streams[usize::from(stream.number())];
    bytes.clear();
    for &number in numbers {
        varint::put(bytes, number);
    }
}

/// The same patch if it is one run with pointers, but all that is copied is taken for types.
fn types(streams: &body::Streams) -> Option<body::Streams> {
    let control = numbers(streams, Stream::Control);
    let &[1, kind, len, copies, origin, .., 0] = &control[..] else {
        return None;
    };
    (kind & WITH_POINTERS != 0).then_some(())?;
    let by = varint::fold;
    let names = [4, 2, 1, by(3), 90, by(-20)];
    let types = [4, 1, 0, by(1 << 20)];
    let run = [1, kind, len, copies, origin];
    let range = [0, 1, 0, len, 5, 0, 1, 200, by(50), 1, 0, 0];
    let mut streams = streams.clone();
    let all = [&names[..], &types, &run, &range].concat();
    set(&mut streams, Stream::Control, &all);
    Some(streams)
}

/// The same patch if it is one run with pointers, made in two portions.
fn portions(streams: &body::Streams) -> Option<body::Streams> {
    let numbers = |stream| numbers(streams, stream);
    let control = numbers(Stream::Control);
    let &[1, kind, len, copies, origin, ref pointers @ .., 0] = &control[..] else {
        return None;
    };
    let positions = numbers(Stream::Positions);
    if kind & WITH_POINTERS == 0 || positions.len() as u64 != copies {
        return None;
    }
    // Told once more, places are counted from where the first telling ended.
    let literals = numbers(Stream::Literals).into_iter();
    let ahead = literals.chain(numbers(Stream::Copies)).sum::<u64>();
    let moved = positions.iter().map(|&by| varint::unfold(by));
    let end = ahead.cast_signed() + moved.sum::<i64>();
    let back = |by: u64| varint::fold(varint::unfold(by) - end);

    let half = len / 2;
    let mut told = Vec::new();
    for (start, len_, origin) in [(0, half, origin), (half, len - half, back(origin))] {
        told.extend([1, kind | IN_PIECES, len_, len, start, copies, origin]);
        told.extend(pointers);
    }
    told.push(0);
    let mut again = positions.clone();
    again[0] = back(again[0]);

    let mut made = streams.clone();
    let mut set = |stream, numbers: &[u64]| set(&mut made, stream, numbers);
    set(Stream::Control, &told);
    set(Stream::Positions, &[positions, again].concat());
    for stream in [Stream::Literals, Stream::Copies] {
        set(stream, &numbers(stream).repeat(2));
    }
    Some(made)
}

struct Seeds(String);

impl Seeds {
    fn write(&self, target: &str, name: &str, bytes: &[u8]) {
        let directory = Path::new(&self.0).join(target);
        fs::create_dir_all(&directory).expect("there is room");
        fs::write(directory.join(name), bytes).expect("there is room");
    }

    /// The patch between these, for all targets.
    fn patch(&self, name: &str, base: &[u8], target: &[u8]) {
        let options = Options {
            memory: 90 << 20,
            threads: 1,
            effort: Effort::Default,
            packings: None,
        };
        let mut patch = Vec::new();
        make(&file(base), &file(target), options, &mut patch).expect("it can be made");
        let mut left = &patch[..];
        let opened = Patch::open(&mut left).expect("it was just made");
        let header = opened.header().clone();
        drop(opened);
        let front = header.to_bytes();
        self.write("container", name, &front);
        let images = [vec![80], base.to_vec(), target.to_vec()];
        self.write("images", name, &sections::put(&images));
        let mut files = Files::default();
        let third = header.base.len / 3;
        for (path, len) in [
            ("partitions/a.img", third),
            ("system/a/b", third),
            ("system/d", header.base.len - 2 * third),
        ] {
            files.push(
                &MemberPath::parse(path.as_bytes()).expect("it is sound"),
                len,
            );
        }
        let list = files.to_bytes().expect("memory takes it");
        self.write(
            "container",
            &format!("{name}-tree"),
            &[&list[..], &front].concat(),
        );
        let mut plain = Vec::new();
        for (len, shared, path) in [
            (third, 0, "partitions/a.img"),
            (third, 0, "system/a/b"),
            (header.base.len - 2 * third, 7, "d"),
        ] {
            varint::put(&mut plain, len);
            varint::put(&mut plain, shared);
            varint::put(&mut plain, path.len() as u64);
            plain.extend(path.bytes());
        }
        self.write(
            "container",
            &format!("{name}-list"),
            &[&[0], &sections::put(&[plain, front])[..]].concat(),
        );

        let streams = body::plain(left, &header.dictionaries);
        let write = |name: &str, settings: &[u8], streams: &body::Streams| {
            let front = [settings.to_vec(), base.to_vec()];
            let all = [&front[..], streams].concat();
            self.write("applier", name, &sections::put(&all));
        };
        write(name, &[0], &streams);
        for memory in [5, 7] {
            write(&format!("{name}-{memory}"), &[0, 0, 0, memory], &streams);
        }
        if let Some(streams) = portions(&streams) {
            write(&format!("{name}-portions"), &[0], &streams);
        }
        if let Some(streams) = types(&streams) {
            write(&format!("{name}-types"), &[0], &streams);
        }
    }

    /// A patch that copies from a view, packs it again, and copies from a view of that.
    fn codec(&self, name: &str, codec: Codec) {
        let plain = match codec {
            Codec::Ext4Inodes { .. } => noise(5, 1024),
            _ => [text(0..20), noise(5, 300)].concat(),
        };
        let len = plain.len() as u64;
        let base = packed(codec, &plain);
        let packed_len = base.len() as u64;
        let mut streams = vec![Vec::new(); Stream::COUNT];
        let control = |origin| {
            let mut numbers = vec![3, origin, 0, packed_len, len];
            numbers.extend(codec.numbers());
            numbers
        };
        let mut put = |stream: Stream, numbers: &[u64]| {
            for &number in numbers {
                varint::put(&mut streams[usize::from(stream.number())], number);
            }
        };
        put(Stream::Control, &control(0));
        put(Stream::Control, &[2, len]);
        put(Stream::Control, &codec.numbers());
        put(Stream::Control, &[0, len]);
        put(Stream::Control, &control(1));
        put(Stream::Control, &[1, 2, len, 0]);
        put(Stream::Literals, &[0, 0]);
        put(Stream::Copies, &[len, len]);
        // From the first view, then from the one of the target, which stands behind it.
        put(
            Stream::Positions,
            &[varint::fold(packed_len.cast_signed()), 0],
        );
        put(Stream::Gaps, &[2 * len]);
        let mut all = vec![vec![0], base.clone()];
        all.extend(streams);
        self.write("applier", name, &sections::put(&all));
        // The view alone, and little memory for it.
        let mut streams = vec![Vec::new(); Stream::COUNT];
        let parts = [&control(0)[..], &[1, 2, len, 0]].concat();
        for (stream, numbers) in [
            (Stream::Control, &parts[..]),
            (Stream::Literals, &[0]),
            (Stream::Copies, &[len]),
            (Stream::Positions, &[varint::fold(packed_len.cast_signed())]),
            (Stream::Gaps, &[len]),
        ] {
            for &number in numbers {
                varint::put(&mut streams[usize::from(stream.number())], number);
            }
        }
        let mut all = vec![vec![0, 0, 0, 4, 16], base];
        all.extend(streams);
        self.write("applier", &format!("{name}-view"), &sections::put(&all));
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("there is room");
    file.write_all(bytes).expect("there is room");
    file
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

fn text(lines: std::ops::Range<u32>) -> Vec<u8> {
    let line = |i: u32| format!("line {i} says {}\n", i.wrapping_mul(2_654_435_761));
    lines.flat_map(|i| line(i).into_bytes()).collect()
}

fn packed(codec: Codec, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let remaker = Remaker::new(codec, plain.len() as u64, u64::MAX);
    let mut remaker = remaker.expect("the codec is sound");
    remaker.push(plain, &mut out).expect("memory takes it");
    remaker.finish(&mut out).expect("memory takes it");
    out
}

fn codecs() -> Vec<Codec> {
    let xz = |check, has_blocks| {
        Codec::Xz(Xz {
            preset: 1,
            is_extreme: false,
            check,
            dictionary: 16,
            has_blocks,
        })
    };
    let deflate = |flavour, level| Codec::Deflate { flavour, level };
    vec![
        Codec::Stored,
        Codec::Zstd {
            level: 3,
            checksum: true,
            window: 21,
        },
        Codec::Lz4Legacy { level: 9 },
        deflate(Flavour::Gzip, 9),
        deflate(Flavour::Zlib, 6),
        Codec::ZstdBlock { level: 15 },
        Codec::Ext4Inodes {
            seed: 7,
            first: 11,
            len: 256,
        },
        xz(XzCheck::Crc32, true),
        xz(XzCheck::Sha256, false),
        Codec::Zstd157(Zstd157 {
            level: 9,
            checksum: true,
            window: 22,
            is_sized: false,
        }),
    ]
}

fn tar(members: &[(&str, &[u8])], time: i64) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in members {
        let size = content.len() as u64;
        let kind = Kind::File { size };
        let header = Header::of_root(name.as_bytes().to_vec(), kind, 0o644, time);
        writer
            .member(&header, &mut &**content)
            .expect("memory takes it");
    }
    writer.finish().expect("memory takes it").0
}

fn cpio(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut cpio = Vec::new();
    for (name, content) in members.iter().chain(&[("TRAILER!!!", &b""[..])]) {
        let fields = [
            0,
            0o100_644,
            0,
            0,
            1,
            0,
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
            cpio.extend(format!("{field:08X}").bytes());
        }
        for bytes in [format!("{name}\0").as_bytes(), content] {
            cpio.extend_from_slice(bytes);
            cpio.resize(cpio.len().next_multiple_of(4), 0);
        }
    }
    cpio
}

fn gzip(flavour: Flavour, plain: &[u8]) -> Vec<u8> {
    let level = 9;
    let deflated = packed(Codec::Deflate { flavour, level }, plain);
    [&b"\x1f\x8b\x08\0\0\0\0\0\x02\x03"[..], &deflated, &[7; 8]].concat()
}

/// Of Android, the first version.
fn boot_image(kernel: &[u8], ramdisk: &[u8]) -> Vec<u8> {
    let mut image = b"ANDROID!".to_vec();
    for number in [kernel.len(), 0, ramdisk.len(), 0, 0, 0, 0, 512, 0] {
        image.extend(u32::try_from(number).expect("it is small").to_le_bytes());
    }
    for part in [kernel, ramdisk] {
        image.resize(image.len().next_multiple_of(512), 0);
        image.extend_from_slice(part);
    }
    image
}

fn kernel(head: u64, plain: &[u8]) -> Vec<u8> {
    let mut bytes = b"MZ".to_vec();
    bytes.resize(0x202, 0);
    bytes.extend_from_slice(b"HdrS");
    bytes.extend(noise(head, 100));
    bytes.extend(packed(Codec::Lz4Legacy { level: 9 }, plain));
    bytes.extend_from_slice(b"\xff\xff\xff\x0fend");
    bytes
}

fn changed(bytes: &[u8]) -> Vec<u8> {
    let mut new = bytes.to_vec();
    new.splice(bytes.len() / 2..bytes.len() / 2, noise(99, 20));
    for at in (0..new.len()).step_by(301) {
        new[at] = new[at].wrapping_add(3);
    }
    new
}

fn archives() -> (Vec<u8>, Vec<u8>) {
    let zstd = Codec::Zstd {
        level: 9,
        checksum: true,
        window: 22,
    };
    let image = |version: &str, module: &[u8], log: &[u8], time| {
        let name = format!("lib/{version}/a.ko");
        let initrd = packed(zstd, &cpio(&[(&name, module), ("etc/log", log)]));
        tar(
            &[
                (&format!("boot/initrd.img-{version}"), &initrd),
                (
                    &format!("boot/vmlinuz-{version}"),
                    &kernel(3, &[module, log].concat()),
                ),
                (&name, module),
                ("doc/a.gz", &gzip(Flavour::Gzip, log)),
                ("doc/b.gz", &gzip(Flavour::Zlib, log)),
            ],
            time,
        )
    };
    let module = noise(7, 2500);
    let (log, new_log) = (text(0..80), text(0..83));
    (
        image("6.1.0-50", &module, &log, 1),
        image("6.1.0-56", &changed(&module), &new_log, 2),
    )
}

fn packed_modules() -> (Vec<u8>, Vec<u8>) {
    let xz = Codec::Xz(Xz {
        preset: 6,
        is_extreme: false,
        check: XzCheck::Crc32,
        dictionary: 20,
        has_blocks: true,
    });
    let zstd = Codec::Zstd157(Zstd157 {
        level: 9,
        checksum: true,
        window: 22,
        is_sized: false,
    });
    let module = noise(21, 3000);
    let new = packed(xz, &changed(&module));
    let mut ramdisk = cpio(&[("usr/lib/modules/6.12/fs/a.ko.xz", &new)]);
    ramdisk.resize(ramdisk.len().next_multiple_of(512), 0);
    ramdisk.extend(packed(zstd, &cpio(&[("usr/bin/program", &text(0..60))])));
    let base = tar(
        &[
            ("lib/modules/6.1.0-50/fs/a.ko", &module),
            ("usr/bin/program", &text(2..60)),
        ],
        1,
    );
    let members = [
        ("boot/initrd.img-6.12", &ramdisk[..]),
        ("usr/bin/program", &text(0..60)),
        ("usr/lib/modules/6.12/fs/a.ko.xz", &new),
    ];
    (base, tar(&members, 2))
}

/// Functions of a program: so many that it pays to tell of pointers.
const FUNCTIONS: u32 = 100;

fn compiled(lab: &Path, extra: u32, options: &[&str]) -> Vec<u8> {
    let mut source = String::new();
    for i in 0..extra {
        source += &format!("int early{i}(int a) {{ return a ^ {i}; }}\n");
    }
    source += "int _start(int a) { return a; }\n";
    for i in 0..FUNCTIONS {
        let call = if i == 0 {
            "_start".to_owned()
        } else {
            format!("f{}", i - 1)
        };
        source += &format!(
            "__attribute__((noinline)) int f{i}(int a) {{ static const char *s = \"says {i}\"; \
             return {call}(a * {}) + s[a] + f{}(a); }}\n",
            i * 7 + 3,
            i / 3
        );
        if i % 40 == 20 {
            (0..extra)
                .for_each(|k| source += &format!("int late{i}_{k}(int a) {{ return a ^ {k}; }}\n"));
        }
    }
    source += "int (*table[])(int) = {";
    (0..FUNCTIONS).for_each(|i| source += &format!("f{i},"));
    source += "};\n";
    let (from, to) = (lab.join("program.c"), lab.join("program"));
    fs::write(&from, source).expect("there is room");
    let cc = Command::new("cc")
        .args(["-O1", "-g0", "-o"])
        .args([&to, &from])
        .args(options)
        .status();
    assert!(cc.expect("there is cc").success());
    fs::read(to).expect("it was just made")
}

fn squashfs(lab: &Path, is_second: bool) -> Vec<u8> {
    let root = lab.join(if is_second { "new" } else { "old" });
    fs::create_dir(&root).expect("there is room");
    let module = noise(31, 9000);
    let module = if is_second { changed(&module) } else { module };
    fs::write(root.join("module"), module).expect("there is room");
    let lines = if is_second { 0..205 } else { 0..200 };
    fs::write(root.join("log"), text(lines)).expect("there is room");
    let image = root.with_extension("squashfs");
    let made = Command::new("mksquashfs")
        .args([&root, &image])
        .args([
            "-noappend",
            "-quiet",
            "-no-progress",
            "-all-root",
            "-comp",
            "zstd",
            "-b",
            "4096",
            "-nopad",
        ])
        .args(["-mkfs-time", "0", "-all-time", "0"])
        .status();
    assert!(made.expect("there is mksquashfs").success());
    fs::read(image).expect("it was just made")
}

/// Of the trees that [`squashfs`] has made.
fn ext4(lab: &Path, is_second: bool) -> Vec<u8> {
    let root = lab.join(if is_second { "new" } else { "old" });
    let image = root.with_extension("ext4");
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "1024", "-N", "16", "-O", "^has_journal"])
        .args(["-U", "5de5a1c2-0000-4000-8000-0000000000aa", "-E"])
        .arg("hash_seed=5de5a1c2-0000-4000-8000-0000000000bb")
        .arg("-d")
        .args([&root, &image])
        .arg("80K")
        .status();
    assert!(made.expect("there is mkfs.ext4").success());
    fs::read(image).expect("it was just made")
}

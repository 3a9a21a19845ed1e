//! Patches between any two images of sound members, packed in every way.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use system_image_delta::patch::{Codec, Remaker, Xz, XzCheck, Zstd157};
use system_image_delta::{Header, Kind};
use system_image_delta_build::Writer;
use system_image_fuzz::patched;
use system_image_gzip::Flavour;

#[derive(Arbitrary, Debug)]
struct Input {
    memory: u8,
    threads: u8,
    is_archive: bool,
    base: Vec<Member>,
    target: Vec<Member>,
}

#[derive(Arbitrary, Debug)]
struct Member {
    name: u8,
    packing: Packing,
    contents: Vec<Content>,
}

#[derive(Arbitrary, Debug)]
enum Packing {
    None,
    Archive,
    Gzip { is_zlib: bool, level: u8 },
    Xz { preset: u8, has_blocks: bool },
    Zstd { level: u8, is_later: bool },
    Kernel,
}

#[derive(Arbitrary, Debug)]
enum Content {
    Bytes(Vec<u8>),
    Lines {
        first: u8,
        count: u8,
    },
    Noise {
        seed: u8,
        len: u16,
    },
    /// Noise with a byte changed every so often.
    Changed {
        seed: u8,
        len: u16,
        step: u8,
    },
}

impl Content {
    fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Bytes(ref bytes) => out.extend_from_slice(bytes),
            Self::Lines { first, count } => {
                for i in 0..u32::from(count) {
                    let line = u32::from(first) + i;
                    let says = line.wrapping_mul(2_654_435_761);
                    out.extend(format!("line {line} says {says}\n").bytes());
                }
            }
            Self::Noise { seed, len } => noise(seed, len, out),
            Self::Changed { seed, len, step } => {
                let start = out.len();
                noise(seed, len, out);
                for byte in out[start..].iter_mut().step_by(usize::from(step) + 1) {
                    *byte = byte.wrapping_add(3);
                }
            }
        }
    }
}

fn noise(seed: u8, len: u16, out: &mut Vec<u8>) {
    let mut state = u64::from(seed) << 8 | 1;
    for _ in 0..len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.push(state.to_le_bytes()[3]);
    }
}

fn packed(codec: Codec, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let Ok(mut remaker) = Remaker::new(codec, plain.len() as u64, u64::MAX) else {
        return plain.to_vec();
    };
    remaker.push(plain, &mut out).expect("memory takes it");
    remaker.finish(&mut out).expect("memory takes it");
    out
}

fn cpio(members: &[Vec<u8>]) -> Vec<u8> {
    let mut cpio = Vec::new();
    let mut put = |name: &str, content: &[u8]| {
        cpio.extend_from_slice(b"070701");
        let (size, name_len) = (content.len(), name.len() + 1);
        for field in [0, 0o100_644, 0, 0, 1, 0, size, 0, 0, 0, 0, name_len, 0] {
            cpio.extend(format!("{field:08X}").bytes());
        }
        for bytes in [format!("{name}\0").as_bytes(), content] {
            cpio.extend_from_slice(bytes);
            cpio.resize(cpio.len().next_multiple_of(4), 0);
        }
    };
    for (i, content) in members.iter().enumerate() {
        put(&format!("etc/{i}"), content);
    }
    put("TRAILER!!!", b"");
    cpio
}

impl Member {
    fn bytes(&self) -> Vec<u8> {
        let each = self.contents.iter().map(|content| {
            let mut bytes = Vec::new();
            content.put(&mut bytes);
            bytes
        });
        let each: Vec<_> = each.collect();
        let plain = || each.concat();
        match self.packing {
            Packing::None => plain(),
            Packing::Archive => cpio(&each),
            Packing::Gzip { is_zlib, level } => {
                let flavour = if is_zlib {
                    Flavour::Zlib
                } else {
                    Flavour::Gzip
                };
                let level = 1 + level % 9;
                let bare = packed(Codec::Deflate { flavour, level }, &plain());
                [&b"\x1f\x8b\x08\0\0\0\0\0\x02\x03"[..], &bare, &[7; 8]].concat()
            }
            Packing::Xz { preset, has_blocks } => {
                let xz = Xz {
                    preset: preset % 7,
                    is_extreme: false,
                    check: XzCheck::Crc32,
                    dictionary: 16 + preset % 5,
                    has_blocks,
                };
                packed(Codec::Xz(xz), &plain())
            }
            Packing::Zstd { level, is_later } => {
                let (level, checksum, window) = (1 + level % 19, true, 22);
                let codec = if is_later {
                    Codec::Zstd157(Zstd157 {
                        level,
                        checksum,
                        window,
                        is_sized: false,
                    })
                } else {
                    Codec::Zstd {
                        level,
                        checksum,
                        window,
                    }
                };
                packed(codec, &cpio(&each))
            }
            Packing::Kernel => {
                let mut bytes = b"MZ".to_vec();
                bytes.resize(0x202, 0);
                bytes.extend_from_slice(b"HdrS");
                bytes.extend(packed(Codec::Lz4Legacy { level: 9 }, &plain()));
                bytes.extend_from_slice(b"\xff\xff\xff\x0fend");
                bytes
            }
        }
    }
}

fn image(members: &[Member], is_archive: bool) -> Vec<u8> {
    if !is_archive {
        return members.iter().flat_map(Member::bytes).collect();
    }
    let mut writer = Writer::new(Vec::new());
    for member in members {
        let content = member.bytes();
        let size = content.len() as u64;
        let name = format!("lib/{}/a.ko", member.name);
        let header = Header::of_root(name.into_bytes(), Kind::File { size }, 0o644, 1);
        let put = writer.member(&header, &mut &content[..]);
        put.expect("memory takes it");
    }
    writer.finish().expect("memory takes it").0
}

fuzz_target!(|input: Input| {
    let base = image(&input.base, input.is_archive);
    let target = image(&input.target, input.is_archive);
    patched::check(&base, &target, input.memory, input.threads);
});

//! Finds packed members, and out of which packing their bytes can be made again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use system_image_delta::patch::{
    Codec, LZ4_MAGIC, Remaker, Unpacker, XZ_DICTIONARIES, Xz, XzCheck, Zstd157,
};
use system_image_gzip::Flavour;

use crate::patch::image;
use crate::patch::plan::{Content, kind_of};
use crate::patch::view::Shown;

/// A packed part of a file.
pub(crate) struct Member {
    /// Where in the file it is.
    pub(crate) range: Range<usize>,
    pub(crate) codec: Codec,
    pub(crate) plain: Vec<u8>,
}

/// A packed part of a file that can be made again.
pub(crate) struct Remade {
    pub(crate) range: Range<usize>,
    /// Exactly how it is packed.
    pub(crate) codec: Codec,
    /// Length of its plain bytes, and their SHA-256.
    pub(crate) content: Content,
    /// The kind of its plain bytes.
    pub(crate) kind: u8,
    /// Its plain bytes if they are an archive, else nothing: they are unpacked again when they are
    /// needed, since all of them are more than there is memory for.
    pub(crate) plain: Vec<u8>,
}

const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// With the only method that there is.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 8];
/// With the first byte of the flags, which is always 0.
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0\0";

/// Largest member that is looked into, plain, in bytes.
const LARGEST: usize = 512 << 20;

/// How far into a kernel image its packed part may begin, in bytes.
const KERNEL_HEAD: usize = 1 << 20;

/// Levels of zstd, those that are used for initial RAM disks and packages first.
const ZSTD_LEVELS: [u8; 8] = [9, 3, 19, 1, 6, 15, 12, 18];

/// Levels of gzip and zlib, those of packages first.
const DEFLATE_LEVELS: [u8; 4] = [9, 6, 1, 3];

/// Levels of LZ4.
const LZ4_LEVELS: [u8; 3] = [9, 12, 3];

/// Presets of xz, and whether they are extreme. Beyond the sixth they differ in the dictionary alone.
const XZ_PRESETS: [(u8, bool); 8] = [
    (6, false),
    (6, true),
    (3, false),
    (1, false),
    (0, false),
    (2, false),
    (4, false),
    (5, false),
];

/// How much of a file's beginning [`may_be`] wants to see, in bytes.
pub(crate) const HEAD: u64 = 0x206;

/// Whether a file that begins so may have packed members.
pub(crate) fn may_be(head: &[u8]) -> bool {
    let is_kernel = head.starts_with(b"MZ") && head.get(0x202..0x206) == Some(b"HdrS");
    is_kernel
        || [ZSTD_MAGIC, GZIP_MAGIC, XZ_MAGIC]
            .iter()
            .any(|magic| head.starts_with(magic))
}

/// Looks for packed members of a file that can be unpacked.
pub(crate) fn members(file: &[u8]) -> Vec<Member> {
    let found = zstd(file)
        .or_else(|| gzip(file))
        .or_else(|| xz(file))
        .or_else(|| kernel(file));
    found.into_iter().collect()
}

/// How packed members were packed, by the content that they are in. To find it out takes much of the
/// work of a patch: who makes several of them with one of these does it once.
#[derive(Debug, Default)]
pub struct Packings(Mutex<HashMap<Content, Vec<Option<Codec>>>>);

impl Packings {
    /// The packed members of a file, which is known by its `content`, that can be made again in one of
    /// the ways that are `allowed`.
    pub(crate) fn remade(
        &self,
        content: Content,
        file: &[u8],
        allowed: impl Fn(Codec, u64) -> bool,
    ) -> Vec<Remade> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let members = members(file);
        let known = lock().get(&content).cloned();
        let codecs = known.unwrap_or_else(|| {
            let found: Vec<_> = members.iter().map(|member| packing(member, file)).collect();
            lock().insert(content, found.clone());
            found
        });
        let again = |(member, codec): (Member, Option<Codec>)| {
            let len = member.plain.len() as u64;
            let codec = codec.filter(|&codec| allowed(codec, len))?;
            Some(Remade {
                range: member.range.clone(),
                codec,
                content: (len, Sha256::digest(&member.plain).into()),
                kind: kind_of(&member.plain),
                plain: member.archive(),
            })
        };
        members.into_iter().zip(codecs).filter_map(again).collect()
    }
}

/// Exactly how a member of a file is packed, if that is known to make its bytes again.
fn packing(member: &Member, file: &[u8]) -> Option<Codec> {
    let packed = &file[member.range.clone()];
    let mut candidates = candidates(member.codec).into_iter();
    candidates.find(|&codec| makes(codec, &member.plain, packed))
}

impl Member {
    /// Its plain bytes if they are an archive, else nothing.
    pub(crate) fn archive(self) -> Vec<u8> {
        if image::cpio(&self.plain).len() > 1 {
            self.plain
        } else {
            Vec::new()
        }
    }
}

fn zstd(file: &[u8]) -> Option<Member> {
    file.starts_with(ZSTD_MAGIC).then_some(())?;
    let descriptor = *file.get(4)?;
    let codec = Codec::Zstd157(Zstd157 {
        level: ZSTD_LEVELS[0],
        checksum: descriptor & 4 != 0,
        window: zstd_window(file, descriptor)?,
        // A field of its own, or the one that stands for the window as well.
        is_sized: descriptor & 0xe0 != 0,
    });
    unpack(file, codec)
}

/// The only member of a gzip file (RFC 1952), without its header and trailer.
fn gzip(file: &[u8]) -> Option<Member> {
    const TRAILER: usize = 8;
    let head = file.get(..10)?;
    head.starts_with(GZIP_MAGIC).then_some(())?;
    let flags = head[3];
    let mut start = 10;
    if flags & 4 != 0 {
        let len = file.get(start..start + 2)?;
        start += 2 + (usize::from(len[0]) | usize::from(len[1]) << 8);
    }
    // A name, then a comment, each ended by a zero.
    for flag in [8, 16] {
        if flags & flag != 0 {
            start += file.get(start..)?.iter().position(|&byte| byte == 0)? + 1;
        }
    }
    start += if flags & 2 != 0 { 2 } else { 0 };
    let end = file.len().checked_sub(TRAILER)?;
    let codec = Codec::Deflate {
        flavour: Flavour::Gzip,
        level: DEFLATE_LEVELS[0],
    };
    let mut member = unpack(file.get(start..end)?, codec)?;
    member.range = start..end;
    Some(member)
}

/// A file of xz with LZMA2 as its only filter, as the `.xz` format has it (version 1.2.1, sections
/// 2.1.1, 3.1 and 5.3.1).
fn xz(file: &[u8]) -> Option<Member> {
    const HAS_LENGTHS: u8 = 0xc0;
    let head = file.get(..12)?;
    head.starts_with(XZ_MAGIC).then_some(())?;
    let flags = *file.get(13)?;
    // The length of a block's header, then flags; lengths, if there are any; filters.
    let mut filter = 14;
    if flags & HAS_LENGTHS != 0 {
        for _ in 0..2 {
            filter += 1 + file
                .get(filter..)?
                .iter()
                .position(|byte| byte & 0x80 == 0)?;
        }
    }
    let (&[0x21, 1, size], 0) = (file.get(filter..filter + 3)?, flags & !HAS_LENGTHS) else {
        return None;
    };
    // Powers of two and the halves between them: presets have the former.
    let dictionary =
        Some(size / 2 + 12).filter(|log| size % 2 == 0 && XZ_DICTIONARIES.contains(log))?;
    let codec = Codec::Xz(Xz {
        preset: XZ_PRESETS[0].0,
        is_extreme: XZ_PRESETS[0].1,
        check: XzCheck::new(head[7].into())?,
        dictionary,
        has_blocks: flags & HAS_LENGTHS == HAS_LENGTHS,
    });
    unpack(file, codec)
}

/// The window of a frame, rounded up to a power of two (RFC 8878, section 3.1.1.1).
fn zstd_window(file: &[u8], descriptor: u8) -> Option<u8> {
    let is_single = descriptor & 0x20 != 0;
    let bytes = if is_single {
        let len = match descriptor >> 6 {
            0 => 1,
            1 => 2,
            2 => 4,
            _ => 8,
        };
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let field = file.get(5 + dictionary..5 + dictionary + len)?;
        let size = field
            .iter()
            .rev()
            .fold(0, |size, &byte| size << 8 | u64::from(byte));
        size + if len == 2 { 256 } else { 0 }
    } else {
        let window = *file.get(5)?;
        let base = 1_u64 << (10 + (window >> 3));
        base + (base >> 3) * u64::from(window & 7)
    };
    let log = bytes.next_power_of_two().trailing_zeros().max(10);
    u8::try_from(log).ok().filter(|&log| log <= 23)
}

/// A kernel for x86 whose image is packed with LZ4.
fn kernel(file: &[u8]) -> Option<Member> {
    (file.starts_with(b"MZ") && file.get(0x202..0x206)? == b"HdrS").then_some(())?;
    let head = &file[..file.len().min(KERNEL_HEAD)];
    let start = head.windows(4).position(|bytes| bytes == LZ4_MAGIC)?;
    let end = lz4_ranges(file, start).last()?.end;
    let codec = Codec::Lz4Legacy {
        level: LZ4_LEVELS[0],
    };
    let mut member = unpack(&file[start..end], codec)?;
    member.range = start..start + member.range.end;
    Some(member)
}

/// The blocks of a frame of LZ4, which is known to be one, where it stands in a file. They are shown each
/// for itself, so that none before has to be unpacked for it.
pub(super) fn lz4_blocks(frame: &[u8], start: u64) -> Option<Vec<Shown>> {
    let mut all = Vec::new();
    for block in lz4_ranges(frame, 0) {
        let plain = unpack(&frame[block.clone()], Codec::Lz4Block)?.plain;
        if !plain.is_empty() {
            all.push(Shown {
                range: start + block.start as u64..start + block.end as u64,
                codec: Codec::Lz4Block,
                plain_len: plain.len() as u64,
            });
        }
    }
    Some(all)
}

/// Where the blocks of a frame of LZ4 stand that begins at `start`, without their lengths in front.
fn lz4_ranges(file: &[u8], start: usize) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    let mut at = start + LZ4_MAGIC.len();
    // The length of the plain image follows the last block: no block is that long.
    while let Some(len) = file.get(at..at + 4) {
        let len = u32::from_le_bytes(len.try_into().expect("it has 4 bytes")) as usize;
        let block = at + 4..at + 4 + len;
        if len == 0 || len > (9 << 20) || block.end > file.len() {
            break;
        }
        at = block.end;
        all.push(block);
    }
    all
}

/// Unpacks the beginning of some bytes, as far as the member goes.
fn unpack(bytes: &[u8], codec: Codec) -> Option<Member> {
    const AT_ONCE: usize = 1 << 20;
    let mut unpacker = Unpacker::new(codec).ok()?;
    let (mut plain, mut at) = (Vec::new(), 0);
    loop {
        let before = plain.len();
        plain.resize(before + AT_ONCE, 0);
        let progress = unpacker.unpack(&bytes[at..], &mut plain[before..]).ok()?;
        plain.truncate(before + progress.made);
        at += progress.took;
        if plain.len() > LARGEST {
            return None;
        }
        if progress.made == 0 && (progress.took == 0 || at == bytes.len()) {
            break;
        }
    }
    plain.shrink_to_fit();
    (at == bytes.len()).then_some(Member {
        range: 0..at,
        codec,
        plain,
    })
}

fn candidates(codec: Codec) -> Vec<Codec> {
    match codec {
        Codec::Stored
        | Codec::Lz4Block
        | Codec::Zstd { .. }
        | Codec::ZstdBlock { .. }
        | Codec::Ext4Inodes { .. } => Vec::new(),
        Codec::Zstd157(found) => ZSTD_LEVELS
            .into_iter()
            .flat_map(|level| {
                let Zstd157 {
                    checksum,
                    window,
                    is_sized,
                    ..
                } = found;
                let later = Codec::Zstd157(Zstd157 { level, ..found });
                let earlier = Codec::Zstd {
                    level,
                    checksum,
                    window,
                };
                // The earlier one is for files alone.
                [is_sized.then_some(earlier), Some(later)]
            })
            .flatten()
            .collect(),
        Codec::Deflate { .. } => [Flavour::Gzip, Flavour::Zlib]
            .into_iter()
            .flat_map(|flavour| DEFLATE_LEVELS.map(|level| Codec::Deflate { flavour, level }))
            .collect(),
        Codec::Xz(xz) => XZ_PRESETS
            .map(|(preset, is_extreme)| {
                Codec::Xz(Xz {
                    preset,
                    is_extreme,
                    ..xz
                })
            })
            .to_vec(),
        Codec::Lz4Legacy { .. } => LZ4_LEVELS.map(|level| Codec::Lz4Legacy { level }).to_vec(),
    }
}

/// Whether `plain` becomes `packed`. Stops at the first wrong byte.
pub(crate) fn makes(codec: Codec, plain: &[u8], packed: &[u8]) -> bool {
    const AT_ONCE: usize = 128 << 10;
    let len = plain.len() as u64;
    let Ok(mut remaker) = Remaker::new(codec, len, Remaker::memory_of(codec, len, u64::MAX)) else {
        return false;
    };
    let mut left = packed;
    let mut out = Vec::new();
    let mut is_right = |out: &mut Vec<u8>| {
        let rest = left.strip_prefix(&out[..]);
        out.clear();
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    for bytes in plain.chunks(AT_ONCE) {
        if remaker.push(bytes, &mut out).is_err() || !is_right(&mut out) {
            return false;
        }
    }
    remaker.finish(&mut out).is_ok() && is_right(&mut out) && left.is_empty()
}

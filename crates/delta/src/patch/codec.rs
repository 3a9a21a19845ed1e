//! In which form members of an image are packed, precisely enough to pack them again.

use std::io;

use system_image_gzip::Flavour;

use crate::patch::xz::{XZ_DICTIONARIES, Xz, XzCheck};
use crate::patch::zstd::Zstd157;

/// What packing in each way requires of an applier, by name.
pub(crate) const FEATURES: [&str; 8] = [
    DEFLATE,
    EXT4_INODES,
    LZ4,
    LZ4_BLOCK,
    XZ,
    ZSTD,
    ZSTD_1_5_7,
    ZSTD_BLOCK,
];
const DEFLATE: &str = "pack-deflate";
const EXT4_INODES: &str = "ext4-inodes";
const LZ4: &str = "pack-lz4-hc";
const LZ4_BLOCK: &str = "lz4-block";
const XZ: &str = "pack-xz";
const ZSTD: &str = "pack-zstd-1.5.4";
const ZSTD_BLOCK: &str = "pack-zstd-block-1.5.4";
const ZSTD_1_5_7: &str = "pack-zstd-1.5.7";

/// How a member is packed: the program that did it, and what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all: the bytes as they are.
    Stored,
    /// A Zstandard frame by libzstd 1.5.4 through its interface for several threads.
    Zstd {
        /// Level, 1 to 19.
        level: u8,
        /// Whether a checksum follows the content.
        checksum: bool,
        /// The window of the frame, as a power of two: at least what unpacking it takes.
        window: u8,
    },
    /// The legacy frame of LZ4 without an end, as the kernel's build makes it with `lz4 -l`.
    Lz4Legacy {
        /// Level, 3 to 12.
        level: u8,
    },
    /// A bare block of LZ4 of at most 8 MiB. It can only be shown, not packed.
    Lz4Block,
    /// A bare DEFLATE stream.
    Deflate {
        /// Whose.
        flavour: Flavour,
        /// Level, 1 to 9.
        level: u8,
    },
    /// A Zstandard frame of at most 1 MiB by libzstd 1.5.4, all at once, as `mksquashfs` makes it.
    ZstdBlock {
        /// Level, 1 to 22.
        level: u8,
    },
    /// A table of inodes of ext4: plain, they have no checksums.
    Ext4Inodes {
        /// What the checksums of the file system begin with.
        seed: u32,
        /// Number of the first inode.
        first: u32,
        /// Length of an inode in bytes, a power of two from 128 to 4096.
        len: u16,
    },
    /// A whole file of xz.
    Xz(Xz),
    /// A Zstandard frame by libzstd 1.5.7 through its interface for several threads.
    Zstd157(Zstd157),
}

/// Why a member cannot be unpacked or packed again.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The patch asks for what nobody knows.
    #[error("the patch names an unknown way of packing")]
    Unknown,
    /// The bytes are not what they should be.
    #[error("a member cannot be unpacked: {0}")]
    Unpack(&'static str),
    /// The library failed.
    #[error("a member cannot be packed again: {0}")]
    Pack(&'static str),
    /// The packed member cannot be read.
    #[error("cannot read a packed member")]
    Read(#[source] io::Error),
}

/// Largest level that zstd has without windows beyond those that every decoder takes.
const ZSTD_LEVELS: std::ops::RangeInclusive<u8> = 1..=19;

/// Levels of zstd for blocks, whose windows are never larger than they are.
const ZSTD_BLOCK_LEVELS: std::ops::RangeInclusive<u8> = 1..=22;

/// Windows of Zstandard frames, as powers of two: what every decoder takes.
const ZSTD_WINDOWS: std::ops::RangeInclusive<u8> = 10..=23;

/// Levels of gzip and zlib.
const DEFLATE_LEVELS: std::ops::RangeInclusive<u8> = 1..=9;

/// Levels of LZ4's slow packer.
const LZ4_LEVELS: std::ops::RangeInclusive<u8> = 3..=12;

/// Presets of xz.
const XZ_PRESETS: std::ops::RangeInclusive<u8> = 0..=9;

impl Codec {
    /// What an applier must be able to do for packing members in this way again, or for showing what can
    /// only be shown.
    pub const fn feature(self) -> Option<&'static str> {
        match self {
            Self::Stored => None,
            Self::Zstd { .. } => Some(ZSTD),
            Self::Lz4Legacy { .. } => Some(LZ4),
            Self::Lz4Block => Some(LZ4_BLOCK),
            Self::Deflate { .. } => Some(DEFLATE),
            Self::ZstdBlock { .. } => Some(ZSTD_BLOCK),
            Self::Ext4Inodes { .. } => Some(EXT4_INODES),
            Self::Xz(_) => Some(XZ),
            Self::Zstd157(_) => Some(ZSTD_1_5_7),
        }
    }

    /// The form that stands in a patch.
    pub fn numbers(self) -> Vec<u64> {
        match self {
            Self::Stored => vec![0],
            Self::Zstd {
                level,
                checksum,
                window,
            } => vec![1, level.into(), checksum.into(), window.into()],
            Self::Lz4Legacy { level } => vec![2, level.into()],
            Self::Lz4Block => vec![8],
            Self::Deflate { flavour, level } => {
                vec![3, u64::from(flavour == Flavour::Zlib), level.into()]
            }
            Self::ZstdBlock { level } => vec![4, level.into()],
            Self::Ext4Inodes { seed, first, len } => {
                vec![7, seed.into(), first.into(), len.into()]
            }
            Self::Xz(xz) => vec![
                5,
                xz.preset.into(),
                xz.is_extreme.into(),
                xz.check as u64,
                xz.dictionary.into(),
                xz.has_blocks.into(),
            ],
            Self::Zstd157(zstd) => vec![
                6,
                zstd.level.into(),
                zstd.checksum.into(),
                zstd.window.into(),
                zstd.is_sized.into(),
            ],
        }
    }

    /// Reads that form.
    pub fn get<E: From<CodecError>>(mut number: impl FnMut() -> Result<u64, E>) -> Result<Self, E> {
        let level = |number: u64, range: std::ops::RangeInclusive<u8>| {
            let level = u8::try_from(number).ok();
            level
                .filter(|level| range.contains(level))
                .ok_or(CodecError::Unknown)
        };
        Ok(match number()? {
            0 => Self::Stored,
            1 => Self::Zstd {
                level: level(number()?, ZSTD_LEVELS)?,
                checksum: level(number()?, 0..=1)? == 1,
                window: level(number()?, ZSTD_WINDOWS)?,
            },
            2 => Self::Lz4Legacy {
                level: level(number()?, LZ4_LEVELS)?,
            },
            3 => Self::Deflate {
                flavour: match number()? {
                    0 => Flavour::Gzip,
                    1 => Flavour::Zlib,
                    _ => return Err(CodecError::Unknown.into()),
                },
                level: level(number()?, DEFLATE_LEVELS)?,
            },
            4 => Self::ZstdBlock {
                level: level(number()?, ZSTD_BLOCK_LEVELS)?,
            },
            7 => {
                let (seed, first, len) = (number()?, number()?, number()?);
                let len = u16::try_from(len).ok();
                let len = len.filter(|len| len.is_power_of_two() && (128..=4096).contains(len));
                Self::Ext4Inodes {
                    seed: u32::try_from(seed).map_err(|_| CodecError::Unknown)?,
                    first: u32::try_from(first).map_err(|_| CodecError::Unknown)?,
                    len: len.ok_or(CodecError::Unknown)?,
                }
            }
            5 => Self::Xz(Xz {
                preset: level(number()?, XZ_PRESETS)?,
                is_extreme: level(number()?, 0..=1)? == 1,
                check: XzCheck::new(number()?).ok_or(CodecError::Unknown)?,
                dictionary: level(number()?, XZ_DICTIONARIES)?,
                has_blocks: level(number()?, 0..=1)? == 1,
            }),
            6 => Self::Zstd157(Zstd157 {
                level: level(number()?, ZSTD_LEVELS)?,
                checksum: level(number()?, 0..=1)? == 1,
                window: level(number()?, ZSTD_WINDOWS)?,
                is_sized: level(number()?, 0..=1)? == 1,
            }),
            8 => Self::Lz4Block,
            _ => return Err(CodecError::Unknown.into()),
        })
    }
}

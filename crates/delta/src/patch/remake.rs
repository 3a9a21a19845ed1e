//! Packs a member again, to the very bytes that its maker made: by the same library, told the same.

use std::io::Write;

use sha2::{Digest, Sha256};
use system_image_gzip::{Encoder, Level};
use zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use crate::patch::codec::{Codec, CodecError};
use crate::patch::inodes::Inodes;
use crate::patch::lz4_legacy;
use crate::patch::unpack::ZSTD_BLOCK_WINDOW;
use crate::patch::xz;
use crate::patch::zstd::{self, Zstd157};

/// How much is packed at once, in bytes.
const AT_ONCE: usize = 128 << 10;

/// What stays for views and pointers at least where two threads pack, in bytes.
const BESIDE_TWO: u64 = 16 << 20;

/// A member on its way into its packing.
#[derive(Debug)]
pub struct Remaker(Form);

enum Form {
    Stored,
    Known {
        plain: Sha256,
        digest: [u8; 32],
        packed: Vec<u8>,
    },
    /// What is too short for the library's threads.
    ShortZstd {
        context: CCtx<'static>,
        /// Plain bytes that are yet to come.
        left: u64,
        /// Whether the frame is complete. One more call would begin another.
        is_complete: bool,
    },
    Zstd(Box<zstd::Encoder>),
    Lz4(lz4_legacy::Encoder),
    Deflate(Box<Encoder<Vec<u8>>>),
    ZstdBlock {
        level: u8,
        plain: Vec<u8>,
    },
    Ext4Inodes(Inodes),
    Xz(Box<liblzma::stream::Stream>),
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stored => "Stored",
            Self::Known { .. } => "Known",
            Self::ShortZstd { .. } => "ShortZstd",
            Self::Zstd(_) => "Zstd",
            Self::Lz4(_) => "Lz4",
            Self::Deflate(_) => "Deflate",
            Self::ZstdBlock { .. } => "ZstdBlock",
            Self::Ext4Inodes(_) => "Ext4Inodes",
            Self::Xz(_) => "Xz",
        })
    }
}

impl Remaker {
    /// Begins with a member of `len` plain bytes, with as much memory as [`Self::memory_of`] tells.
    pub fn new(codec: Codec, len: u64, memory: u64) -> Result<Self, CodecError> {
        Ok(Self(match codec {
            Codec::Stored => Form::Stored,
            Codec::Lz4Block => return Err(CodecError::Unknown),
            Codec::Zstd {
                level, checksum, ..
            } if len > zstd::FOR_THREADS => {
                let encoder = zstd::Encoder::of_1_5_4(level, checksum, len, memory)?;
                Form::Zstd(Box::new(encoder))
            }
            Codec::Zstd {
                level, checksum, ..
            } => {
                let mut context = CCtx::try_create().ok_or(CodecError::Pack("no memory"))?;
                for parameter in [
                    CParameter::CompressionLevel(level.into()),
                    CParameter::ChecksumFlag(checksum),
                ] {
                    context.set_parameter(parameter).map_err(zstd_pack)?;
                }
                context.set_pledged_src_size(Some(len)).map_err(zstd_pack)?;
                Form::ShortZstd {
                    context,
                    left: len,
                    is_complete: false,
                }
            }
            Codec::Lz4Legacy { level } => Form::Lz4(lz4_legacy::Encoder::new(level, memory)),
            Codec::Deflate { flavour, level } => {
                let level = Level::new(level).ok_or(CodecError::Unknown)?;
                Form::Deflate(Box::new(Encoder::with_flavour(flavour, level, Vec::new())))
            }
            Codec::ZstdBlock { .. } if len > 1 << ZSTD_BLOCK_WINDOW => {
                return Err(CodecError::Pack("a block is too long"));
            }
            Codec::ZstdBlock { level } => Form::ZstdBlock {
                level,
                plain: Vec::new(),
            },
            Codec::Ext4Inodes { seed, first, len } => {
                Form::Ext4Inodes(Inodes::new(seed, first, len))
            }
            Codec::Xz(xz) => Form::Xz(Box::new(xz.encoder()?)),
            Codec::Zstd157(how) => Form::Zstd(Box::new(zstd::Encoder::of_1_5_7(how, len, memory)?)),
        }))
    }

    /// Makes `packed` of the plain bytes with this SHA-256, which are known to become just that.
    pub fn known(digest: [u8; 32], packed: Vec<u8>) -> Self {
        Self(Form::Known {
            plain: Sha256::new(),
            digest,
            packed,
        })
    }

    /// What packing a member of `len` plain bytes takes in memory where so much is left for it and for
    /// all else, in bytes. It is never less than [`Self::memory`].
    pub fn memory_of(codec: Codec, len: u64, left: u64) -> u64 {
        let of_two = match codec {
            Codec::Lz4Legacy { .. } => lz4_legacy::memory_of_two(len),
            Codec::Zstd { level, .. } | Codec::Zstd157(Zstd157 { level, .. }) => {
                zstd::memory_of_two(level, len)
            }
            _ => None,
        };
        of_two
            .filter(|of_two| left >= of_two + BESIDE_TWO)
            .unwrap_or_else(|| Self::memory(codec, len))
    }

    /// What packing a member of `len` plain bytes takes in memory at least, in bytes.
    pub fn memory(codec: Codec, len: u64) -> u64 {
        match codec {
            Codec::Stored | Codec::Lz4Block => 0,
            Codec::Zstd { level, .. } => zstd::memory(level, Some(len)),
            Codec::Zstd157(how) => zstd::memory(how.level, how.is_sized.then_some(len)),
            Codec::Lz4Legacy { .. } => lz4_legacy::LEAST_MEMORY,
            Codec::Deflate { .. } => 512 << 10,
            // Tables as large as the block, and the block on both sides.
            Codec::Ext4Inodes { .. } => 256 << 10,
            Codec::ZstdBlock { .. } => len.saturating_mul(24).saturating_add(2 << 20),
            Codec::Xz(xz) => xz.memory(),
        }
    }

    /// Takes plain bytes and appends what is packed of them so far.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        match &mut self.0 {
            Form::Stored => out.extend_from_slice(bytes),
            Form::Known { plain, .. } => plain.update(bytes),
            Form::ShortZstd {
                context,
                left,
                is_complete,
            } => {
                // The frame's end is told with the last bytes: behind them it would be a block of
                // its own, which the program does not make.
                while !bytes.is_empty() {
                    let is_last = bytes.len() as u64 >= *left;
                    let how = if is_last {
                        ZSTD_EndDirective::ZSTD_e_end
                    } else {
                        ZSTD_EndDirective::ZSTD_e_continue
                    };
                    let (took, inside) = zstd_step(context, bytes, out, how)?;
                    *is_complete = is_last && inside == 0;
                    *left = left.saturating_sub(took as u64);
                    bytes = &bytes[took..];
                }
            }
            Form::Lz4(encoder) => encoder.push(bytes, out)?,
            Form::Deflate(encoder) => {
                encoder.write_all(bytes).map_err(|_| DEFLATE)?;
                out.append(encoder.get_mut());
            }
            Form::ZstdBlock { plain, .. } => plain.extend_from_slice(bytes),
            Form::Ext4Inodes(inodes) => {
                let before = out.len();
                // With what came of an inode before.
                out.resize(before + bytes.len() + usize::from(u16::MAX), 0);
                let (_, made) = inodes.turn(bytes, &mut out[before..]);
                out.truncate(before + made);
            }
            Form::Zstd(encoder) => encoder.push(bytes, out)?,
            Form::Xz(stream) => {
                while !bytes.is_empty() {
                    let (took, _) = xz::pack(stream, bytes, out, false)?;
                    bytes = &bytes[took..];
                }
            }
        }
        Ok(())
    }

    /// Appends the rest.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        while !self.rest(out)? {}
        Ok(())
    }

    /// Appends some of the rest; whether that was all of it, and nothing is left to be asked for.
    pub fn rest(&mut self, out: &mut Vec<u8>) -> Result<bool, CodecError> {
        match &mut self.0 {
            Form::Zstd(encoder) => encoder.rest(out),
            Form::Lz4(encoder) => encoder.rest(out),
            form => {
                let form = std::mem::replace(form, Form::Stored);
                form.all_of_rest(out).map(|()| true)
            }
        }
    }
}

impl Form {
    /// Appends the rest, of what gives it in one go.
    fn all_of_rest(self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match self {
            Self::Stored | Self::Zstd(_) | Self::Lz4(_) => Ok(()),
            Self::Known {
                plain,
                digest,
                packed,
            } => {
                if plain.finalize()[..] != digest {
                    return Err(CodecError::Pack("its plain bytes are not the known ones"));
                }
                out.extend_from_slice(&packed);
                Ok(())
            }
            Self::ShortZstd {
                mut context,
                mut is_complete,
                ..
            } => {
                while !is_complete {
                    let (_, inside) =
                        zstd_step(&mut context, &[], out, ZSTD_EndDirective::ZSTD_e_end)?;
                    is_complete = inside == 0;
                }
                Ok(())
            }
            Self::Deflate(encoder) => {
                out.append(&mut encoder.finish().map_err(|_| DEFLATE)?);
                Ok(())
            }
            Self::Xz(mut stream) => {
                while !xz::pack(&mut stream, &[], out, true)?.1 {}
                Ok(())
            }
            Self::Ext4Inodes(inodes) if inodes.is_complete() => Ok(()),
            Self::Ext4Inodes(_) => Err(CodecError::Pack("an inode is cut off")),
            Self::ZstdBlock { level, plain } => {
                let mut context = CCtx::try_create().ok_or(CodecError::Pack("no memory"))?;
                let before = out.len();
                out.resize(before + zstd_safe::compress_bound(plain.len()), 0);
                let len = context
                    .compress(&mut out[before..], &plain, level.into())
                    .map_err(zstd_pack)?;
                out.truncate(before + len);
                Ok(())
            }
        }
    }
}

/// Never seen: writing into memory does not fail.
const DEFLATE: CodecError = CodecError::Pack("DEFLATE takes no more");

fn zstd_pack(code: usize) -> CodecError {
    CodecError::Pack(zstd_safe::get_error_name(code))
}

/// One call; how much was taken, and how much is left to come out.
fn zstd_step(
    context: &mut CCtx<'static>,
    bytes: &[u8],
    out: &mut Vec<u8>,
    how: ZSTD_EndDirective,
) -> Result<(usize, usize), CodecError> {
    let before = out.len();
    out.resize(before + AT_ONCE, 0);
    let mut from = InBuffer::around(bytes);
    let mut to = OutBuffer::around(&mut out[before..]);
    let left = context
        .compress_stream2(&mut to, &mut from, how)
        .map_err(zstd_pack)?;
    let made = to.pos();
    let took = from.pos();
    out.truncate(before + made);
    Ok((took, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_the_one_that_the_feature_names() {
        let (major, minor, patch) = (1, 5, 4);
        let number = major * 10_000 + minor * 100 + patch;
        assert_eq!(zstd_safe::version_number(), number);
        let codec = Codec::Zstd {
            level: 9,
            checksum: true,
            window: 22,
        };
        assert_eq!(codec.feature(), Some("pack-zstd-1.5.4"));
    }

    #[test]
    fn a_block_takes_no_more_memory_than_is_told() {
        for (level, log) in [(1, 12), (15, 17), (19, 17), (22, 17), (15, 20), (22, 20)] {
            let plain: Vec<u8> = (0..1_u32 << (log - 2)).flat_map(u32::to_le_bytes).collect();
            let mut context = CCtx::create();
            let mut out = vec![0; zstd_safe::compress_bound(plain.len())];
            context.compress(&mut out[..], &plain, level).unwrap();
            let codec = Codec::ZstdBlock {
                level: u8::try_from(level).unwrap(),
            };
            let taken = context.sizeof() + plain.len() + out.len();
            let told = Remaker::memory(codec, plain.len() as u64);
            assert!(taken as u64 <= told, "{level} {log}: {taken} {told}");
        }
        let long = Remaker::new(Codec::ZstdBlock { level: 1 }, (1 << 20) + 1, u64::MAX);
        assert!(long.is_err());
    }

    #[test]
    fn a_second_thread_makes_the_same_frame() {
        let plain: Vec<u8> = (0..5 << 20_u32)
            .flat_map(|i: u32| (i ^ i.wrapping_mul(2_654_435_761) >> 24).to_le_bytes())
            .collect();
        let len = plain.len() as u64;
        let codec = Codec::Zstd {
            level: 1,
            checksum: true,
            window: 19,
        };
        let made = |memory| {
            let mut remaker = Remaker::new(codec, len, memory).unwrap();
            let mut out = Vec::new();
            remaker.push(&plain, &mut out).unwrap();
            remaker.finish(&mut out).unwrap();
            out
        };
        let of_two = Remaker::memory_of(codec, len, u64::MAX);
        assert!(of_two > Remaker::memory(codec, len));
        assert!(made(of_two) == made(Remaker::memory(codec, len)));
        assert_eq!(
            Remaker::memory_of(codec, len, of_two),
            Remaker::memory(codec, len)
        );
    }

    #[test]
    fn how_the_bytes_are_cut_makes_no_difference() {
        let plain: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
        for codec in [
            Codec::Stored,
            Codec::Lz4Legacy { level: 9 },
            Codec::Zstd {
                level: 3,
                checksum: false,
                window: 21,
            },
        ] {
            let made = |cut: usize| {
                let mut remaker = Remaker::new(codec, plain.len() as u64, u64::MAX).unwrap();
                let mut out = Vec::new();
                for bytes in plain.chunks(cut) {
                    remaker.push(bytes, &mut out).unwrap();
                }
                remaker.finish(&mut out).unwrap();
                out
            };
            assert!(made(64 << 10) == made(1_000_003), "{codec:?}");
        }
    }
}

//! Unpacks a packed member, piece by piece: bytes are pushed in, and what they hold comes out.

use flate2::{Decompress, FlushDecompress, Status};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::patch::codec::{Codec, CodecError};
use crate::patch::inodes::Inodes;
use crate::patch::lz4_block;
use crate::patch::xz;
use crate::patch::zstd::Zstd157;

/// Plain length of a block of LZ4's legacy frame, in bytes.
pub(crate) const LZ4_BLOCK: usize = 8 << 20;

/// What stands in front of LZ4's legacy frame.
pub const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Longest packed block of LZ4's legacy frame, in bytes: what does not pack grows by 1/255.
const LZ4_PACKED: usize = LZ4_BLOCK + LZ4_BLOCK / 255 + 16;

/// Longest block that is packed by Zstandard all at once, as a power of two.
pub(crate) const ZSTD_BLOCK_WINDOW: u8 = 20;

/// How far one call got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that were taken.
    pub took: usize,
    /// Bytes of the output that are there.
    pub made: usize,
}

/// A member on its way out of its packing.
#[derive(Debug)]
pub struct Unpacker {
    form: Form,
    /// Whether the last call came to an end that the packed bytes tell.
    has_ended: bool,
}

enum Form {
    Stored,
    Zstd(DCtx<'static>),
    Lz4(Lz4),
    Lz4Block(lz4_block::Block),
    Deflate(Box<Decompress>),
    Ext4Inodes(Inodes),
    Xz(Box<liblzma::stream::Stream>),
}

impl std::fmt::Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Stored => "Stored",
            Self::Zstd(_) => "Zstd",
            Self::Lz4(_) => "Lz4",
            Self::Lz4Block(_) => "Lz4Block",
            Self::Deflate(_) => "Deflate",
            Self::Ext4Inodes(_) => "Ext4Inodes",
            Self::Xz(_) => "Xz",
        })
    }
}

impl Unpacker {
    /// Begins with a member.
    pub fn new(codec: Codec) -> Result<Self, CodecError> {
        let form = match codec {
            Codec::Stored => Form::Stored,
            Codec::Zstd { .. } | Codec::Zstd157(_) | Codec::ZstdBlock { .. } => {
                let window = match codec {
                    Codec::Zstd { window, .. } | Codec::Zstd157(Zstd157 { window, .. }) => window,
                    _ => ZSTD_BLOCK_WINDOW,
                };
                let mut context = DCtx::try_create().ok_or(CodecError::Unpack("no memory"))?;
                context
                    .set_parameter(DParameter::WindowLogMax(window.into()))
                    .map_err(zstd_unpack)?;
                Form::Zstd(context)
            }
            Codec::Lz4Legacy { .. } => Form::Lz4(Lz4::new()),
            Codec::Lz4Block => Form::Lz4Block(lz4_block::Block::new(LZ4_BLOCK)),
            Codec::Deflate { .. } => Form::Deflate(Box::new(Decompress::new(false))),
            Codec::Ext4Inodes { seed, first, len } => {
                Form::Ext4Inodes(Inodes::new(seed, first, len))
            }
            Codec::Xz(xz) => Form::Xz(Box::new(xz.unpacker()?)),
        };
        Ok(Self {
            form,
            has_ended: false,
        })
    }

    /// What unpacking takes in memory, in bytes.
    pub fn memory(codec: Codec) -> u64 {
        match codec {
            Codec::Stored => 0,
            Codec::Zstd { window, .. } | Codec::Zstd157(Zstd157 { window, .. }) => {
                (1 << window) + (512 << 10)
            }
            Codec::Lz4Legacy { .. } | Codec::Lz4Block => lz4_block::MEMORY,
            Codec::Deflate { .. } => 128 << 10,
            Codec::Xz(xz) => xz.unpacker_memory(),
            Codec::ZstdBlock { .. } => (1 << ZSTD_BLOCK_WINDOW) + (512 << 10),
            Codec::Ext4Inodes { .. } => 16 << 10,
        }
    }

    /// Whether the member is complete, once all of its plain bytes came out.
    pub(crate) fn has_ended(&self) -> bool {
        match &self.form {
            Form::Stored => true,
            Form::Ext4Inodes(inodes) => inodes.is_complete(),
            Form::Lz4(lz4) => lz4.is_between_blocks(),
            Form::Lz4Block(block) => block.may_end() && block.is_drained(),
            Form::Zstd(_) | Form::Deflate(_) | Form::Xz(_) => self.has_ended,
        }
    }

    /// Takes from `input` and fills `output`, both as far as it goes. No progress means that there
    /// is nothing more in what has come.
    pub fn unpack(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, CodecError> {
        match &mut self.form {
            Form::Stored => {
                let len = input.len().min(output.len());
                output[..len].copy_from_slice(&input[..len]);
                Ok(Progress {
                    took: len,
                    made: len,
                })
            }
            Form::Zstd(context) => {
                let mut from = InBuffer::around(input);
                let mut to = OutBuffer::around(output);
                let hint = context
                    .decompress_stream(&mut to, &mut from)
                    .map_err(zstd_unpack)?;
                self.has_ended = hint == 0;
                Ok(Progress {
                    took: from.pos(),
                    made: to.pos(),
                })
            }
            Form::Lz4(lz4) => lz4.unpack(input, output),
            Form::Lz4Block(block) => block.unpack(input, output),
            Form::Ext4Inodes(inodes) => {
                let (took, made) = inodes.turn(input, output);
                Ok(Progress { took, made })
            }
            Form::Xz(stream) => {
                let (progress, has_ended) = xz::unpack(stream, input, output)?;
                self.has_ended = has_ended;
                Ok(progress)
            }
            Form::Deflate(state) => {
                let before = (state.total_in(), state.total_out());
                let status = state
                    .decompress(input, output, FlushDecompress::None)
                    .map_err(|_| CodecError::Unpack("a DEFLATE stream is damaged"))?;
                self.has_ended = status == Status::StreamEnd;
                let since = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
                Ok(Progress {
                    took: since(state.total_in(), before.0),
                    made: since(state.total_out(), before.1),
                })
            }
        }
    }
}

fn zstd_unpack(code: usize) -> CodecError {
    CodecError::Unpack(zstd_safe::get_error_name(code))
}

/// LZ4's legacy frame: blocks, each with its packed length in front.
struct Lz4 {
    has_begun: bool,
    head: Vec<u8>,
    block: lz4_block::Block,
    /// Packed bytes of the block that are yet to come; `None` between blocks.
    left: Option<usize>,
}

impl Lz4 {
    fn new() -> Self {
        Self {
            has_begun: false,
            head: Vec::new(),
            block: lz4_block::Block::new(LZ4_BLOCK),
            left: None,
        }
    }

    fn unpack(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, CodecError> {
        let mut progress = Progress::default();
        loop {
            let now = &input[progress.took..];
            if let Some(left) = self.left {
                let now = &now[..now.len().min(left)];
                let step = self.block.unpack(now, &mut output[progress.made..])?;
                progress.took += step.took;
                progress.made += step.made;
                let left = left - step.took;
                self.left = Some(left);
                if left > 0 || !self.block.is_drained() {
                    return Ok(progress);
                }
                if !self.block.may_end() {
                    return Err(CodecError::Unpack("a block is damaged"));
                }
                self.left = None;
                continue;
            }
            let len = now.len().min(4 - self.head.len());
            // What stands behind the last block is not the frame's.
            if len == 0 || progress.made == output.len() {
                return Ok(progress);
            }
            self.head.extend_from_slice(&now[..len]);
            progress.took += len;
            if let Ok(head) = <[u8; 4]>::try_from(&self.head[..]) {
                self.head.clear();
                self.head(head)?;
            }
        }
    }

    fn is_between_blocks(&self) -> bool {
        self.has_begun && self.left.is_none() && self.head.is_empty()
    }

    fn head(&mut self, head: [u8; 4]) -> Result<(), CodecError> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return if head == LZ4_MAGIC {
                Ok(())
            } else {
                Err(CodecError::Unpack("it is not LZ4's legacy frame"))
            };
        }
        let len = u32::from_le_bytes(head);
        let len = usize::try_from(len)
            .ok()
            .filter(|len| (1..=LZ4_PACKED).contains(len));
        self.left = Some(len.ok_or(CodecError::Unpack("a block's length"))?);
        self.block.restart(LZ4_BLOCK);
        Ok(())
    }
}

//! Applies a patch: reads it from front to back and makes the target from it and the base.

use std::io::{self, Read};

use crate::patch::base::{Base, ReadAt, at_once};
use crate::patch::blocks::{Blocks, Output};
use crate::patch::codec::{Codec, CodecError, FEATURES};
use crate::patch::header::{Header, HeaderError};
use crate::patch::remake::Remaker;
use crate::patch::space::Space;
use crate::patch::streams::{KINDS, PatchReadError, Stream, Streams};
use crate::patch::varint;
use crate::patch::view::Origin;

/// How much of a packed member is made at once, in bytes.
const MADE_AT_ONCE: usize = 64 << 10;

/// What a device allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes, compared with [`Header::memory`].
    pub memory: u64,
    /// Bytes that are unpacked, compared with [`Header::work`].
    pub work: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 96 << 20,
            work: 64 << 30,
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Bytes of the target.
    pub bytes: u64,
    /// Bytes that were unpacked for it.
    pub work: u64,
}

/// Why a patch was not applied. What was written until then is right, and not all of the target.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The patch needs an applier that knows more.
    #[error("the patch needs `{0}`, which this program cannot do")]
    Feature(String),
    /// The device has not that much memory to give.
    #[error("the patch needs {needed} bytes of memory, and {allowed} are allowed")]
    Memory {
        /// What it needs.
        needed: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// The device does not want to do that much.
    #[error("the patch has {needed} bytes unpacked, and {allowed} are allowed")]
    Work {
        /// What it needs.
        needed: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// The base is not the one that the patch leads from.
    #[error("this is not the base of the patch: it differs in the block at byte {offset}")]
    OtherBase {
        /// Where the differing block begins.
        offset: u64,
    },
    /// The base cannot be read.
    #[error("cannot read the base")]
    Base(#[source] io::Error),
    /// The patch cannot be read.
    #[error(transparent)]
    Patch(#[from] PatchReadError),
    /// A packed member.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// What came out is not the target; nothing of that block was written.
    #[error("the patch does not lead to its target: the block at byte {offset} is wrong")]
    Wrong {
        /// Where the wrong block begins.
        offset: u64,
    },
    /// The target cannot be written.
    #[error("cannot write the target")]
    Write(#[source] io::Error),
    /// What was written of the target cannot be read again.
    #[error("cannot read what was written of the target")]
    ReadBack(#[source] io::Error),
}

impl ApplyError {
    pub(crate) const fn damaged(why: &'static str) -> Self {
        Self::Patch(PatchReadError::Damaged(why))
    }
}

/// A patch whose header was read.
#[derive(Debug)]
pub struct Patch<R> {
    header: Header,
    body: R,
}

impl<R: Read> Patch<R> {
    /// Reads the header.
    pub fn open(mut input: R) -> Result<Self, HeaderError> {
        let header = Header::read(&mut input)?;
        Ok(Self {
            header,
            body: input,
        })
    }

    /// What the patch says of itself.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Memory that streams with these dictionaries take, in bytes.
    pub fn streams_memory(dictionaries: &[u64]) -> u64 {
        Streams::<R>::memory(dictionaries)
    }

    /// Memory that applying takes whatever the parts are, in bytes.
    pub fn fixed_memory(header: &Header) -> u64 {
        let target_block = header.target.len.min(1 << header.target_block);
        let digests = header.base_digests.len() * 18 + header.target_digests.len() * 16;
        Self::streams_memory(&header.dictionaries)
            .saturating_add(target_block)
            .saturating_add(digests as u64)
            .saturating_add(3 * MADE_AT_ONCE as u64)
    }

    /// Makes the target. Nothing is written before it is known to be right, block by block; after
    /// an error what was written is the beginning of the target and must not be used as a whole.
    pub fn apply(
        self,
        base: &dyn ReadAt,
        output: &mut dyn Output,
        limits: Limits,
    ) -> Result<Applied, ApplyError> {
        self.apply_with(base, output, limits, &mut Remaker::new)
    }

    /// The same with members packed again by what `remaker` gives for a codec and a plain length:
    /// for builders, which have packed them before and need not do so again.
    pub fn apply_with(
        self,
        base: &dyn ReadAt,
        output: &mut dyn Output,
        limits: Limits,
        remaker: &mut dyn FnMut(Codec, u64) -> Result<Remaker, CodecError>,
    ) -> Result<Applied, ApplyError> {
        let header = self.header;
        let mut required = header.required.iter();
        if let Some(name) = required.find(|name| !FEATURES.contains(&name.as_str())) {
            return Err(ApplyError::Feature(name.clone()));
        }
        if header.memory > limits.memory {
            return Err(ApplyError::Memory {
                needed: header.memory,
                allowed: limits.memory,
            });
        }
        if header.work > limits.work {
            return Err(ApplyError::Work {
                needed: header.work,
                allowed: limits.work,
            });
        }
        let fixed = Self::fixed_memory(&header);
        let Some(memory) = header.memory.checked_sub(fixed) else {
            return Err(ApplyError::damaged("it needs more memory than it says"));
        };
        let base = Base::new(
            base,
            header.base.len,
            header.base_block,
            header.base_digests,
        );
        let mut applier = Applier {
            streams: Streams::new(self.body, &header.dictionaries)?,
            space: Space::new(base, header.work),
            blocks: Blocks::new(
                output,
                header.target.len,
                header.target_block,
                header.target_digests,
            ),
            memory,
            remaker,
            position: 0,
            gap: None,
            run: 0,
        };
        applier.space.remember(memory);
        while applier.part()? {}
        applier.streams.finish()?;
        applier.blocks.finish(&header.target)?;
        Ok(Applied {
            bytes: header.target.len,
            work: applier.space.work(),
        })
    }
}

struct Applier<'a, R> {
    streams: Streams<R>,
    space: Space<'a>,
    blocks: Blocks<'a>,
    /// Memory beside what is fixed, in bytes.
    memory: u64,
    /// What packs members again.
    remaker: &'a mut dyn FnMut(Codec, u64) -> Result<Remaker, CodecError>,
    /// Where the next copy comes from unless it says otherwise.
    position: u64,
    /// Copied bytes before the next run of residues, when that is known.
    gap: Option<u64>,
    /// Bytes that are left of the run of residues.
    run: u64,
}

/// What comes next within a part.
enum Piece {
    Literal(u64),
    Copy(u64),
}

/// The pieces of a part, in the order in which they are told.
struct Pieces {
    left: u64,
    copy_is_next: bool,
}

impl<R: Read> Applier<'_, R> {
    /// Makes one part; whether there may be more.
    fn part(&mut self) -> Result<bool, ApplyError> {
        match self.control()? {
            0 => return Ok(false),
            1 => {
                let kind = self.kind()?;
                let len = self.control()?;
                self.plain(len, kind)?;
            }
            2 => {
                let len = self.control()?;
                let codec = Codec::get(|| self.control())?;
                self.packed(len, codec)?;
            }
            3 => {
                let origin = match self.control()? {
                    0 => Origin::Base,
                    1 => Origin::Target,
                    _ => return Err(ApplyError::damaged("a view of something unknown")),
                };
                let range = (self.control()?, self.control()?);
                let plain_len = self.control()?;
                let codec = Codec::get(|| self.control())?;
                self.space.open(origin, range, codec, plain_len)?;
            }
            _ => return Err(ApplyError::damaged("a part of unknown meaning")),
        }
        Ok(true)
    }

    fn control(&mut self) -> Result<u64, ApplyError> {
        Ok(self.streams.number(Stream::Control)?)
    }

    fn kind(&mut self) -> Result<u8, ApplyError> {
        let kind = u8::try_from(self.control()?).ok();
        let kind = kind.filter(|&kind| kind < KINDS);
        kind.ok_or(ApplyError::damaged("a kind of content that is unknown"))
    }

    /// Makes `len` bytes of the target.
    fn plain(&mut self, len: u64, kind: u8) -> Result<(), ApplyError> {
        let mut pieces = Pieces::new(len);
        while let Some(piece) = self.next(&mut pieces)? {
            let (mut left, is_copy) = piece.parts();
            while left > 0 {
                let in_base = self.position.saturating_add(left) <= self.space.base_len();
                let made = if is_copy && !in_base {
                    // What lends the room is also read from: this goes through a buffer.
                    let mut buffer = [0; COPIED_AT_ONCE];
                    let len = at_once(left, COPIED_AT_ONCE);
                    let buffer = &mut buffer[..len];
                    self.copy(buffer, kind)?;
                    self.blocks.write(buffer)?;
                    len
                } else {
                    let room = self.blocks.room(left)?;
                    let len = room.len();
                    if is_copy {
                        self.space.read_base(room, self.position)?;
                        let residues = (&mut self.gap, &mut self.run);
                        correct(&mut self.streams, residues, kind, room)?;
                        self.position += len as u64;
                    } else {
                        self.streams.read(Stream::Literal(kind), room)?;
                    }
                    self.blocks.filled(len)?;
                    len
                };
                left -= made as u64;
            }
        }
        Ok(())
    }

    /// Makes `len` bytes, kind by kind, and packs them.
    fn packed(&mut self, len: u64, codec: Codec) -> Result<(), ApplyError> {
        let encoder = Remaker::memory(codec, len);
        let Some(memory) = self.memory.checked_sub(encoder) else {
            return Err(ApplyError::damaged("it needs more memory than it says"));
        };
        self.space.remember(memory);
        let mut remaker = (self.remaker)(codec, len)?;
        let mut buffer = vec![0; MADE_AT_ONCE];
        let mut out = Vec::new();
        let mut left = len;
        while left > 0 {
            let kind = self.kind()?;
            let len = self.control()?;
            if len == 0 || len > left {
                return Err(ApplyError::damaged("a length within a packed part"));
            }
            left -= len;
            let mut pieces = Pieces::new(len);
            while let Some(piece) = self.next(&mut pieces)? {
                let (mut left, is_copy) = piece.parts();
                while left > 0 {
                    let len = at_once(left, MADE_AT_ONCE);
                    let buffer = &mut buffer[..len];
                    if is_copy {
                        self.copy(buffer, kind)?;
                    } else {
                        self.streams.read(Stream::Literal(kind), buffer)?;
                    }
                    remaker.push(buffer, &mut out)?;
                    self.blocks.write(&out)?;
                    out.clear();
                    left -= len as u64;
                }
            }
        }
        remaker.finish(&mut out)?;
        self.blocks.write(&out)?;
        self.space.remember(self.memory);
        Ok(())
    }

    /// Fills `buffer` with the next bytes of a copy.
    fn copy(&mut self, buffer: &mut [u8], kind: u8) -> Result<(), ApplyError> {
        self.space.read(buffer, self.position, &self.blocks)?;
        let residues = (&mut self.gap, &mut self.run);
        correct(&mut self.streams, residues, kind, buffer)?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn next(&mut self, pieces: &mut Pieces) -> Result<Option<Piece>, ApplyError> {
        while pieces.left > 0 {
            let copy_is_next = pieces.copy_is_next;
            pieces.copy_is_next = !copy_is_next;
            let stream = if copy_is_next {
                Stream::Copies
            } else {
                Stream::Literals
            };
            let len = self.streams.number(stream)?;
            if len > pieces.left || copy_is_next && len == 0 {
                return Err(ApplyError::damaged("a length within a part"));
            }
            pieces.left -= len;
            if copy_is_next {
                let by = varint::unfold(self.streams.number(Stream::Positions)?);
                let position = self.position.checked_add_signed(by);
                self.position = position.ok_or(ApplyError::damaged("it copies from nowhere"))?;
                if self.position.checked_add(len).is_none() {
                    return Err(ApplyError::damaged("it copies from nowhere"));
                }
                return Ok(Some(Piece::Copy(len)));
            }
            // It mostly stands for as many bytes of the base.
            let position = self.position.checked_add(len);
            self.position = position.ok_or(ApplyError::damaged("it copies from nowhere"))?;
            if len > 0 {
                return Ok(Some(Piece::Literal(len)));
            }
        }
        Ok(None)
    }
}

/// How much is copied through a buffer at once, in bytes.
const COPIED_AT_ONCE: usize = 8 << 10;

impl Pieces {
    const fn new(left: u64) -> Self {
        Self {
            left,
            copy_is_next: false,
        }
    }
}

impl Piece {
    const fn parts(&self) -> (u64, bool) {
        match *self {
            Self::Literal(len) => (len, false),
            Self::Copy(len) => (len, true),
        }
    }
}

/// Adds the residues to copied bytes.
fn correct<R: Read>(
    streams: &mut Streams<R>,
    (gap, run): (&mut Option<u64>, &mut u64),
    kind: u8,
    mut copied: &mut [u8],
) -> Result<(), ApplyError> {
    while !copied.is_empty() {
        if *run > 0 {
            let len = at_once(*run, copied.len());
            let (now, later) = copied.split_at_mut(len);
            add(streams, kind, now)?;
            *run -= len as u64;
            copied = later;
            continue;
        }
        let left = match *gap {
            Some(left) => left,
            None => streams.number(Stream::Gaps)?,
        };
        let len = at_once(left, copied.len());
        copied = &mut copied[len..];
        let left = left - len as u64;
        *gap = Some(left);
        if left == 0 && !copied.is_empty() {
            *run = streams.number(Stream::Runs)?;
            if *run == 0 {
                return Err(ApplyError::damaged("a run of residues"));
            }
            *gap = None;
        }
    }
    Ok(())
}

fn add<R: Read>(streams: &mut Streams<R>, kind: u8, bytes: &mut [u8]) -> Result<(), ApplyError> {
    let mut residues = [0; 1 << 10];
    for bytes in bytes.chunks_mut(residues.len()) {
        let residues = &mut residues[..bytes.len()];
        streams.read(Stream::Residue(kind), residues)?;
        for (byte, &residue) in bytes.iter_mut().zip(&*residues) {
            *byte = byte.wrapping_add(residue);
        }
    }
    Ok(())
}

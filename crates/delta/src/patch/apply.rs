//! Applies a patch: reads it from front to back and makes the target from it and the base.

use std::io::{self, Read};
use std::thread;

use crate::patch::base::{Base, ReadAt, at_once};
use crate::patch::blocks::{self, Blocks, Output, Written, is_whole};
use crate::patch::codec::{self, Codec, CodecError};
use crate::patch::header::{Header, HeaderError};
use crate::patch::pointers::{Places, Pointers};
use crate::patch::projection::{Move, Projection};
use crate::patch::remake::Remaker;
use crate::patch::residues::Residues;
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
            .saturating_add(blocks::AT_ONCE * target_block)
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
        if let Some(name) = required.find(|name| !is_known(name)) {
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
        let has_pointers = header.requires(POINTERS);
        let Some(memory) = header.memory.checked_sub(fixed) else {
            return Err(ApplyError::damaged("it needs more memory than it says"));
        };
        let base = Base::new(
            base,
            header.base.len,
            header.base_block,
            header.base_digests,
        );
        let streams = Streams::new(self.body, &header.dictionaries)?;
        let space = Space::new(base, header.work);
        let written = Written::new(output);
        let work = thread::scope(|scope| {
            let (blocks, checker) = Blocks::new(&written, header.target.len, header.target_block);
            let thread = scope.spawn(|| checker.run(&written, &header.target_digests));
            let mut applier = Applier {
                streams,
                space,
                blocks,
                memory,
                remaker,
                position: 0,
                residues: Residues::default(),
                has_pointers,
                pointers_fit: false,
            };
            applier.share(memory);
            while applier.part()? {}
            applier.streams.finish()?;
            applier.blocks.finish()?;
            let digest = thread.join().expect("it does not panic");
            if let Some(failed) = written.failure() {
                return Err(failed);
            }
            is_whole(digest, &header.target)?;
            Ok(applier.space.work())
        })?;
        Ok(Applied {
            bytes: header.target.len,
            work,
        })
    }
}

/// Whether this program has a feature.
fn is_known(feature: &str) -> bool {
    feature == POINTERS || codec::FEATURES.contains(&feature)
}

struct Applier<'a, R> {
    streams: Streams<R>,
    space: Space<'a>,
    blocks: Blocks<'a>,
    /// Memory beside what is fixed, in bytes.
    memory: u64,
    /// What packs members again.
    remaker: &'a mut dyn FnMut(Codec, u64) -> Result<Remaker, CodecError>,
    /// Where the next copy comes from unless it says otherwise, and as far as they were read.
    position: u64,
    residues: Residues,
    /// Whether the header says that there are runs with pointers.
    has_pointers: bool,
    /// Whether there is memory for them in this part.
    pointers_fit: bool,
}

/// What comes next within a run.
#[derive(Clone, Copy)]
enum Piece {
    /// So many bytes.
    Literal(u64),
    /// So many bytes from this address on.
    Copy(u64, u64),
}

/// The pieces of a run, in the order in which they are told.
struct Pieces {
    left: u64,
    copy_is_next: bool,
}

/// A run of one kind.
struct Run {
    kind: u8,
    len: u64,
    /// Its pointers, if it has some.
    program: Option<Program>,
}

/// A run whose copies have pointers.
struct Program {
    pointers: Pointers,
    projection: Projection,
    /// Where the old file begins.
    origin: u64,
    /// All pieces of the run.
    pieces: std::vec::IntoIter<Piece>,
}

impl<R: Read> Applier<'_, R> {
    /// Makes one part; whether there may be more.
    fn part(&mut self) -> Result<bool, ApplyError> {
        match self.control()? {
            0 => return Ok(false),
            1 => self.plain()?,
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

    /// Reads what a run is: its kind, its length, and its pointers.
    fn run(&mut self) -> Result<Run, ApplyError> {
        let kind = self.control()?;
        let len = self.control()?;
        let program = if kind & WITH_POINTERS == 0 {
            None
        } else {
            Some(self.program(len)?)
        };
        let kind = u8::try_from(kind & !WITH_POINTERS).ok();
        let kind = kind.filter(|&kind| kind < KINDS);
        Ok(Run {
            kind: kind.ok_or(ApplyError::damaged("a kind of content that is unknown"))?,
            len,
            program,
        })
    }

    /// Reads the pointers of a run of `len` bytes, and what the run is made of.
    fn program(&mut self, len: u64) -> Result<Program, ApplyError> {
        let copies = self.control()?;
        if copies > MOST_COPIES || !self.pointers_fit {
            return Err(ApplyError::damaged("it needs more memory than it says"));
        }
        let origin = varint::unfold(self.control()?);
        let origin = self.position.checked_add_signed(origin);
        let pointers = Pointers::get(|| self.control())?;
        let (Some(origin), Some(pointers)) = (origin, pointers) else {
            return Err(ApplyError::damaged("pointers"));
        };
        let copies = usize::try_from(copies).expect("there are few");
        let mut all = Vec::with_capacity(2 * copies + 1);
        let mut moves = Vec::with_capacity(copies);
        let mut pieces = Pieces::new(len);
        let mut new = 0;
        while let Some(piece) = self.next(&mut pieces)? {
            all.push(piece);
            new += match piece {
                Piece::Literal(len) => len,
                Piece::Copy(len, from) => {
                    let old = from.wrapping_sub(origin);
                    moves.push(Move { old, len, new });
                    len
                }
            };
            if moves.len() > copies {
                return Err(ApplyError::damaged("the number of copies"));
            }
        }
        Ok(Program {
            pointers,
            projection: Projection::new(moves),
            origin,
            pieces: all.into_iter(),
        })
    }

    /// Makes a run of the target.
    fn plain(&mut self) -> Result<(), ApplyError> {
        let mut run = self.run()?;
        if run.program.is_some() {
            let mut buffer = vec![0; MADE_AT_ONCE];
            return self.through(&mut run, &mut buffer, |blocks, bytes| {
                blocks.write(bytes)?;
                Ok(())
            });
        }
        let mut pieces = Pieces::new(run.len);
        while let Some(piece) = self.next(&mut pieces)? {
            let (mut left, mut from) = piece.parts();
            while left > 0 {
                let in_base =
                    from.is_some_and(|from| from.saturating_add(left) <= self.space.base_len());
                let made = if let Some(from) = from
                    && !in_base
                {
                    // What lends the room is also read from: this goes through a buffer.
                    let mut buffer = [0; COPIED_AT_ONCE];
                    let len = at_once(left, COPIED_AT_ONCE);
                    let buffer = &mut buffer[..len];
                    self.copy(buffer, from, run.kind)?;
                    self.blocks.write(buffer)?;
                    len
                } else {
                    let room = self.blocks.room(left)?;
                    let len = room.len();
                    if let Some(from) = from {
                        self.space.read_base(room, from)?;
                        self.residues.add(&mut self.streams, run.kind, room)?;
                    } else {
                        self.streams.read(Stream::Literal(run.kind), room)?;
                    }
                    self.blocks.filled(len)?;
                    len
                };
                left -= made as u64;
                from = from.map(|from| from + made as u64);
            }
        }
        Ok(())
    }

    /// Makes `len` bytes, run by run, and packs them.
    fn packed(&mut self, len: u64, codec: Codec) -> Result<(), ApplyError> {
        let encoder = Remaker::memory(codec, len);
        let Some(memory) = self.memory.checked_sub(encoder) else {
            return Err(ApplyError::damaged("it needs more memory than it says"));
        };
        self.share(memory);
        let mut remaker = (self.remaker)(codec, len)?;
        let mut buffer = vec![0; MADE_AT_ONCE];
        let mut out = Vec::new();
        let mut left = len;
        while left > 0 {
            let mut run = self.run()?;
            if run.len == 0 || run.len > left {
                return Err(ApplyError::damaged("a length within a packed part"));
            }
            left -= run.len;
            self.through(&mut run, &mut buffer, |blocks, bytes| {
                remaker.push(bytes, &mut out)?;
                blocks.write(&out)?;
                out.clear();
                Ok(())
            })?;
        }
        remaker.finish(&mut out)?;
        self.blocks.write(&out)?;
        self.share(self.memory);
        Ok(())
    }

    /// Shares out so many bytes of memory: to pointers, if there may be some and they fit, and to
    /// views.
    fn share(&mut self, memory: u64) {
        let rest = memory.checked_sub(MEMORY_OF_POINTERS);
        let rest = rest.filter(|_| self.has_pointers);
        self.pointers_fit = rest.is_some();
        self.space.remember(rest.unwrap_or(memory));
    }

    /// Makes a run through a buffer.
    fn through(
        &mut self,
        run: &mut Run,
        buffer: &mut [u8],
        mut take: impl FnMut(&mut Blocks<'_>, &[u8]) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let mut pieces = Pieces::new(run.len);
        let mut new = 0;
        loop {
            let piece = match &mut run.program {
                Some(program) => program.pieces.next(),
                None => self.next(&mut pieces)?,
            };
            let Some(piece) = piece else {
                return Ok(());
            };
            let (mut left, mut from) = piece.parts();
            while left > 0 {
                let len = at_once(left, buffer.len());
                let bytes = &mut buffer[..len];
                let done = match (from, &run.program) {
                    (None, _) => {
                        self.streams.read(Stream::Literal(run.kind), bytes)?;
                        len
                    }
                    (Some(from), None) => {
                        self.copy(bytes, from, run.kind)?;
                        len
                    }
                    (Some(from), Some(program)) => {
                        self.space.read(bytes, from, &self.blocks)?;
                        let old = from.wrapping_sub(program.origin);
                        let done = program.change(bytes, Places { old, new }, left > len as u64);
                        let done_bytes = &mut bytes[..done];
                        self.residues.add(&mut self.streams, run.kind, done_bytes)?;
                        done
                    }
                };
                take(&mut self.blocks, &buffer[..done])?;
                left -= done as u64;
                new += done as u64;
                from = from.map(|from| from + done as u64);
            }
        }
    }

    /// Fills `buffer` with bytes of a copy.
    fn copy(&mut self, buffer: &mut [u8], from: u64, kind: u8) -> Result<(), ApplyError> {
        self.space.read(buffer, from, &self.blocks)?;
        self.residues.add(&mut self.streams, kind, buffer)
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
                let from = self.position.checked_add_signed(by);
                let end = from.and_then(|from| from.checked_add(len));
                let (Some(from), Some(end)) = (from, end) else {
                    return Err(ApplyError::damaged("it copies from nowhere"));
                };
                self.position = end;
                return Ok(Some(Piece::Copy(len, from)));
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

/// What is added to the number of a kind if its run has pointers.
pub const WITH_POINTERS: u64 = 8;

/// The feature of patches that have such runs.
pub const POINTERS: &str = "pointers";

/// Most copies of a run with pointers.
pub const MOST_COPIES: u64 = 48 << 10;

/// What a run with pointers takes, in bytes: three numbers for each piece of it and for where each
/// copy went, and its ranges and layouts.
pub const MEMORY_OF_POINTERS: u64 = MOST_COPIES * 72 + (256 << 10);

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
    /// Its length, and where it is copied from if it is.
    const fn parts(self) -> (u64, Option<u64>) {
        match self {
            Self::Literal(len) => (len, None),
            Self::Copy(len, from) => (len, Some(from)),
        }
    }
}

impl Program {
    fn change(&self, bytes: &mut [u8], places: Places, follows: bool) -> usize {
        self.pointers
            .change(bytes, places, follows, &self.projection)
    }
}

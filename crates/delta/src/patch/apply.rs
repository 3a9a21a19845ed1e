//! Applies a patch: reads it from front to back and makes the target from it and the base.

use std::io::{self, Read};
use std::thread;

use crate::patch::base;
use crate::patch::base::{Base, Checks, ReadAt, at_once};
use crate::patch::blocks::{self, Block, Blocks, Digests, Output, Written};
use crate::patch::codec::{self, Codec, CodecError};
use crate::patch::header::{Header, HeaderError};
use crate::patch::leftover::Leftover;
use crate::patch::pointers::State;
use crate::patch::remake::Remaker;
use crate::patch::runs::{
    MEMORY_OF_NUMBERINGS, MEMORY_OF_POINTERS, PIECES, POINTERS, POINTERS_OF_AARCH64,
    POINTERS_OF_BTF, Piece, Run, Runs,
};
use crate::patch::space::{LEAST_FOR_VIEWS, Space};
use crate::patch::streams::{PatchReadError, Streams};
use crate::patch::view::{Cursor, Origin, View};

/// How much is made at once in a buffer, in bytes.
const MADE_AT_ONCE: usize = 64 << 10;

/// Memory of an encoder in bytes that is as much work as unpacking a byte: it has to be cleared, however
/// little is packed.
const MEMORY_FOR_WORK: u64 = 32;

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
    /// Those of them that an earlier run left.
    pub left: u64,
    /// The work of it, as the header counts it.
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
        let digests = header.base_digests.len() * 19 + header.target_digests.len() * 16;
        let numberings = if header.requires(POINTERS_OF_BTF) {
            MEMORY_OF_NUMBERINGS
        } else {
            0
        };
        Self::streams_memory(&header.dictionaries)
            .saturating_add(blocks::AT_ONCE * target_block)
            .saturating_add(digests as u64)
            .saturating_add(numberings)
            .saturating_add(base::MEMORY)
            .saturating_add(MADE_AT_ONCE as u64)
    }

    /// Makes the target. Nothing is written before it is known to be right, block by block; after
    /// an error what was written is the beginning of the target and must not be used as a whole.
    ///
    /// What `output` has already is compared with the patch, and the target goes on behind what is
    /// right of it, with whatever served only to make that left out; the rest is cut off. So a run that
    /// was cut off, even by a loss of power, is continued by giving the same output again.
    pub fn apply(
        self,
        base: &dyn ReadAt,
        output: &mut dyn Output,
        limits: Limits,
    ) -> Result<Applied, ApplyError> {
        self.run(base, output, limits, &mut Remaker::new, true)
    }

    /// The same for builders, which have the target already: nothing is compared with digests that were
    /// just taken of the same bytes, and members are packed again by what `remaker` gives for a codec, a
    /// plain length and the memory that it may take. Whether each block is right is for `output` to
    /// tell. Of the base nothing is read but what is used.
    pub fn apply_with(
        self,
        base: &dyn ReadAt,
        output: &mut dyn Output,
        limits: Limits,
        remaker: &mut dyn FnMut(Codec, u64, u64) -> Result<Remaker, CodecError>,
    ) -> Result<Applied, ApplyError> {
        self.run(base, output, limits, remaker, false)
    }

    fn run(
        self,
        base: &dyn ReadAt,
        output: &mut dyn Output,
        limits: Limits,
        remaker: &mut dyn FnMut(Codec, u64, u64) -> Result<Remaker, CodecError>,
        has_doubts: bool,
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
        let has_numberings = header.requires(POINTERS_OF_BTF);
        let Some(memory) = header.memory.checked_sub(fixed) else {
            return Err(ApplyError::damaged("it needs more memory than it says"));
        };
        let leftover = Leftover::find(output, &header)?;
        let left = leftover.len;
        let checks = Checks::new(
            base,
            header.base.len,
            header.base_block,
            header.base_digests,
            has_doubts,
        );
        let streams = Streams::new(self.body, &header.dictionaries)?;
        let written = Written::new(output, left);
        let work = thread::scope(|scope| {
            let (blocks, checker) = Blocks::new(&written, header.target.len, header.target_block);
            let digests = &header.target_digests[leftover.blocks..];
            let mut digests = has_doubts.then(|| Digests::new(digests, leftover.whole));
            let thread = scope.spawn(|| {
                let is_right = |block: &Block| match &mut digests {
                    Some(digests) => digests.have(block),
                    None => true,
                };
                checker.run(&written, is_right);
                digests
            });
            if has_doubts {
                scope.spawn(|| checks.run_ahead());
            }
            let mut applier = Applier {
                runs: Runs::new(streams),
                space: Space::new(Base::new(&checks), header.work),
                blocks,
                memory,
                remaker,
                has_pointers,
                has_numberings,
            };
            applier.share(memory);
            let mut buffer = vec![0; MADE_AT_ONCE];
            while applier.part(&mut buffer)? {}
            applier.runs.finish()?;
            let work = applier.space.work();
            drop(applier.space);
            applier.blocks.finish()?;
            let digests = thread.join().expect("it does not panic");
            if let Some(failed) = written.failure() {
                return Err(failed);
            }
            if let Some(digests) = digests {
                digests.are_whole(&header.target)?;
            }
            Ok(work)
        })?;
        Ok(Applied {
            bytes: header.target.len,
            left,
            work,
        })
    }
}

/// Whether this program has a feature.
fn is_known(feature: &str) -> bool {
    [POINTERS, PIECES, POINTERS_OF_AARCH64, POINTERS_OF_BTF].contains(&feature)
        || codec::FEATURES.contains(&feature)
}

struct Applier<'a, R> {
    runs: Runs<R>,
    space: Space<'a>,
    blocks: Blocks<'a>,
    /// Memory beside what is fixed, in bytes.
    memory: u64,
    /// What packs members again.
    remaker: &'a mut dyn FnMut(Codec, u64, u64) -> Result<Remaker, CodecError>,
    /// Whether the header says that there are runs with pointers.
    has_pointers: bool,
    /// Whether it says that there may be numberings.
    has_numberings: bool,
}

impl<R: Read> Applier<'_, R> {
    /// Makes one part; whether there may be more.
    fn part(&mut self, buffer: &mut [u8]) -> Result<bool, ApplyError> {
        let before = self.blocks.position();
        let part = self.runs.control()?;
        match part {
            0 => return Ok(false),
            1 => self.plain(buffer)?,
            2 => {
                let len = self.runs.control()?;
                let codec = Codec::get(|| self.runs.control())?;
                self.packed(len, codec, buffer)?;
            }
            3 => {
                let origin = match self.runs.control()? {
                    0 => Origin::Base,
                    1 => Origin::Target,
                    _ => return Err(ApplyError::damaged("a view of something unknown")),
                };
                let range = (self.runs.control()?, self.runs.control()?);
                let plain_len = self.runs.control()?;
                let codec = Codec::get(|| self.runs.control())?;
                self.space.open(origin, range, codec, plain_len)?;
            }
            4 if self.has_numberings => self.runs.numbering()?,
            _ => return Err(ApplyError::damaged("a part of unknown meaning")),
        }
        // Any number of them would stand in a few bytes.
        if part < 3 && self.blocks.position() == before {
            return Err(ApplyError::damaged("a part that makes nothing"));
        }
        Ok(true)
    }

    /// Begins a run. To tell of what another run makes is work, too.
    fn run(&mut self) -> Result<Run, ApplyError> {
        let run = self.runs.run()?;
        self.space.spend(run.beside())?;
        Ok(run)
    }

    /// Makes a run of the target.
    fn plain(&mut self, buffer: &mut [u8]) -> Result<(), ApplyError> {
        let mut run = self.run()?;
        if run.program.is_some() {
            return self.plain_program(&mut run, buffer);
        }
        while let Some(piece) = self.runs.piece(&mut run)? {
            let (mut left, mut from) = piece.parts();
            let passed = self.blocks.pass(left);
            self.pass(&run, (passed, from), buffer)?;
            left -= passed;
            from = from.map(|from| from + passed);
            while left > 0 {
                let in_base =
                    from.is_some_and(|from| from.saturating_add(left) <= self.space.base_len());
                let made = if let Some(from) = from
                    && !in_base
                {
                    // What lends the room is also read from: this goes through a buffer.
                    let len = at_once(left, buffer.len());
                    self.copy(&run, &mut buffer[..len], from)?;
                    self.blocks.write(&buffer[..len])?;
                    len
                } else {
                    let room = self.blocks.room(left)?;
                    let len = room.len();
                    if let Some(from) = from {
                        self.space.read_base(room, from)?;
                        self.runs.add(&run, room)?;
                    } else {
                        self.runs.literal(&run, room)?;
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

    /// Makes a run with pointers. These are looked for from the first byte on that the run makes of a
    /// copy, so no copy is passed over in part.
    fn plain_program(&mut self, run: &mut Run, buffer: &mut [u8]) -> Result<(), ApplyError> {
        let mut new = run.start();
        while let Some(piece) = self.runs.piece(run)? {
            let (len, from) = piece.parts();
            if len <= self.blocks.left() {
                self.blocks.pass(len);
                self.pass(run, (len, from), buffer)?;
            } else {
                self.piece(run, piece, new, buffer, &mut |blocks, bytes| {
                    blocks.write(bytes)
                })?;
            }
            new += len;
        }
        Ok(())
    }

    /// Passes over bytes of a run that are there already. Only what tells how to make them is read.
    fn pass(
        &mut self,
        run: &Run,
        (len, from): (u64, Option<u64>),
        buffer: &mut [u8],
    ) -> Result<(), ApplyError> {
        if let Some(from) = from {
            self.space.pass(from, len)?;
        }
        let mut left = len;
        while left > 0 {
            let bytes = &mut buffer[..at_once(left, MADE_AT_ONCE)];
            left -= bytes.len() as u64;
            if from.is_some() {
                self.runs.add(run, bytes)?;
            } else {
                self.runs.literal(run, bytes)?;
            }
        }
        Ok(())
    }

    /// Length of a member that is packed by `codec` and holds `len` bytes, in bytes, if all of it is
    /// there already. It is found by unpacking, which takes less of everything than packing does; for
    /// one that cannot be unpacked it is not found.
    fn packed_len(&self, len: u64, codec: Codec, buffer: &mut [u8]) -> Option<u64> {
        let view = View {
            start: 0,
            plain_len: len,
            origin: Origin::Target,
            offset: self.blocks.position(),
            packed_len: self.blocks.left(),
            codec,
        };
        if view.packed_len == 0 || len == 0 {
            return None;
        }
        let read = |buffer: &mut [u8], offset| self.blocks.read_left(buffer, offset);
        let mut cursor = Cursor::new(codec).ok()?;
        let mut left = len;
        while left > 0 {
            let bytes = &mut buffer[..at_once(left, MADE_AT_ONCE)];
            cursor.fill(&view, bytes, read).ok()?;
            left -= bytes.len() as u64;
        }
        cursor.end(&view, read).ok()
    }

    /// Makes `len` bytes, run by run, and packs them.
    fn packed(&mut self, len: u64, codec: Codec, buffer: &mut [u8]) -> Result<(), ApplyError> {
        let encoder = Remaker::memory_of(codec, len, self.memory);
        let Some(memory) = self.memory.checked_sub(encoder) else {
            return Err(ApplyError::damaged("it needs more memory than it says"));
        };
        if let Some(packed_len) = self.packed_len(len, codec, buffer) {
            self.share(memory);
            self.blocks.pass(packed_len);
            self.packed_runs(len, |applier, run| {
                while let Some(piece) = applier.runs.piece(run)? {
                    applier.pass(run, piece.parts(), buffer)?;
                }
                Ok(())
            })?;
            self.share(self.memory);
            return Ok(());
        }
        // While there is memory for it.
        self.space.fill_pages(&self.blocks)?;
        self.share(memory);
        self.space.spend(encoder / MEMORY_FOR_WORK)?;
        let mut remaker = (self.remaker)(codec, len, encoder)?;
        let mut out = Vec::new();
        self.packed_runs(len, |applier, run| {
            applier.through(run, buffer, |blocks, bytes| {
                remaker.push(bytes, &mut out)?;
                blocks.write(&out)?;
                out.clear();
                Ok(())
            })
        })?;
        let mut is_all = false;
        while !is_all {
            is_all = remaker.rest(&mut out)?;
            self.blocks.write(&out)?;
            out.clear();
        }
        self.share(self.memory);
        Ok(())
    }

    /// The runs of a packed part that holds `len` bytes.
    fn packed_runs(
        &mut self,
        len: u64,
        mut take: impl FnMut(&mut Self, &mut Run) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let mut left = len;
        while left > 0 {
            let mut run = self.run()?;
            if run.len == 0 || run.len > left {
                return Err(ApplyError::damaged("a length within a packed part"));
            }
            left -= run.len;
            take(self, &mut run)?;
        }
        Ok(())
    }

    /// Shares out so many bytes of memory: to pointers, if there may be some and they fit, and to
    /// views.
    fn share(&mut self, memory: u64) {
        let rest = memory.checked_sub(MEMORY_OF_POINTERS);
        let rest = rest.filter(|&rest| self.has_pointers && rest >= LEAST_FOR_VIEWS);
        self.runs.pointers_fit = rest.is_some();
        self.space.remember(rest.unwrap_or(memory));
    }

    /// Makes a run through a buffer.
    fn through(
        &mut self,
        run: &mut Run,
        buffer: &mut [u8],
        mut take: impl FnMut(&mut Blocks<'_>, &[u8]) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let mut new = run.start();
        while let Some(piece) = self.runs.piece(run)? {
            self.piece(run, piece, new, buffer, &mut take)?;
            new += piece.parts().0;
        }
        Ok(())
    }

    /// Makes a piece that stands at `new` in its run, through a buffer.
    fn piece(
        &mut self,
        run: &Run,
        piece: Piece,
        mut new: u64,
        buffer: &mut [u8],
        take: &mut impl FnMut(&mut Blocks<'_>, &[u8]) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let (mut left, mut from) = piece.parts();
        let mut state = State::default();
        while left > 0 {
            let len = at_once(left, buffer.len());
            let bytes = &mut buffer[..len];
            let done = match (from, &run.program) {
                (None, _) => {
                    self.runs.literal(run, bytes)?;
                    len
                }
                (Some(from), None) => {
                    self.copy(run, bytes, from)?;
                    len
                }
                (Some(from), Some(program)) => {
                    self.space.read(bytes, from, &self.blocks)?;
                    let at = (from, new, &mut state);
                    let done = program.change(bytes, at, left > len as u64);
                    self.runs.add(run, &mut bytes[..done])?;
                    done
                }
            };
            take(&mut self.blocks, &buffer[..done])?;
            left -= done as u64;
            new += done as u64;
            from = from.map(|from| from + done as u64);
        }
        Ok(())
    }

    /// Fills `buffer` with bytes of a copy.
    fn copy(&mut self, run: &Run, buffer: &mut [u8], from: u64) -> Result<(), ApplyError> {
        self.space.read(buffer, from, &self.blocks)?;
        self.runs.add(run, buffer)
    }
}

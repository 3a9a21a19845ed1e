//! Runs: what they are made of, as the patch tells it, piece by piece.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use crate::patch::apply::ApplyError;
use crate::patch::pointers::{MOST_ENTRIES, Places, Pointers, State};
use crate::patch::projection::{Move, Projection};
use crate::patch::residues::Residues;
use crate::patch::streams::{KINDS, Stream, Streams};
use crate::patch::varint;

/// What is added to the number of a kind if its run has pointers.
pub const WITH_POINTERS: u64 = 8;

/// The feature of patches that have such runs.
pub const POINTERS: &str = "pointers";

/// The feature of patches that have such runs of code for AArch64.
pub const POINTERS_OF_AARCH64: &str = "pointers-aarch64";

/// The feature of patches whose pointers are changed in BTF, too.
pub const POINTERS_OF_BTF: &str = "pointers-btf";

/// Most numberings that a patch can tell of.
const MOST_NUMBERINGS: usize = 16;

/// What numberings take, in bytes: three numbers for each entry, and where these are by stretches; and what
/// they are told to be for.
pub const MEMORY_OF_NUMBERINGS: u64 = MOST_ENTRIES as u64 * (24 + 8) + (256 << 10);

/// What is added as well if the run makes only a portion of the file that its pointers are changed in.
pub const IN_PIECES: u64 = 16;

/// The feature of patches that have such runs.
pub const PIECES: &str = "pointers-in-pieces";

/// Most copies of a run with pointers.
pub const MOST_COPIES: u64 = 48 << 10;

/// What a run with pointers takes, in bytes: three numbers for each piece of it and for where each
/// copy went, and its ranges and layouts.
pub const MEMORY_OF_POINTERS: u64 = MOST_COPIES * 72 + (256 << 10);

/// What a patch says of its runs.
pub(crate) struct Runs<R> {
    streams: Streams<R>,
    /// Where the next copy comes from unless it says otherwise, and as far as they were read.
    position: u64,
    residues: Residues,
    /// What became of numbers, as far as it was told, and how many entries more there may be.
    numberings: Vec<Arc<Projection>>,
    entries_left: usize,
    /// Whether there is memory for pointers.
    pub(crate) pointers_fit: bool,
}

/// A run of one kind.
pub(crate) struct Run {
    kind: u8,
    /// Its length in bytes.
    pub(crate) len: u64,
    pieces: Pieces,
    /// Its pointers, if it has some.
    pub(crate) program: Option<Program>,
}

/// What comes next within a run.
#[derive(Clone, Copy)]
pub(crate) enum Piece {
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

/// A run whose copies have pointers.
pub(crate) struct Program {
    pointers: Pointers,
    projection: Projection,
    /// Where the old file begins.
    origin: u64,
    /// Which portion of the new file the run makes.
    portion: Portion,
    /// All pieces of the run.
    pieces: std::vec::IntoIter<Piece>,
}

/// A portion of a file.
struct Portion {
    range: Range<u64>,
    /// Length of the file in bytes.
    of: u64,
}

impl<R: Read> Runs<R> {
    pub(crate) fn new(streams: Streams<R>) -> Self {
        Self {
            streams,
            position: 0,
            residues: Residues::default(),
            numberings: Vec::new(),
            entries_left: MOST_ENTRIES,
            pointers_fit: false,
        }
    }

    /// The next number of the control stream.
    pub(crate) fn control(&mut self) -> Result<u64, ApplyError> {
        Ok(self.streams.number(Stream::Control)?)
    }

    /// Reads what became of numbers.
    pub(crate) fn numbering(&mut self) -> Result<(), ApplyError> {
        let most = self.entries_left;
        let numbering = Projection::get(&mut || self.control(), most)?;
        let numbering = numbering.filter(|_| self.numberings.len() < MOST_NUMBERINGS);
        let Some(numbering) = numbering else {
            return Err(ApplyError::damaged("what became of numbers"));
        };
        self.entries_left -= numbering.moves().len();
        self.numberings.push(Arc::new(numbering));
        Ok(())
    }

    /// Whether the body ends where it should.
    pub(crate) fn finish(&mut self) -> Result<(), ApplyError> {
        Ok(self.streams.finish()?)
    }

    /// Reads what a run is: its kind, its length, and its pointers.
    pub(crate) fn run(&mut self) -> Result<Run, ApplyError> {
        let kind = self.control()?;
        let len = self.control()?;
        let program = if kind & WITH_POINTERS == 0 {
            None
        } else {
            let (of, start) = if kind & IN_PIECES == 0 {
                (len, 0)
            } else {
                (self.control()?, self.control()?)
            };
            let portion = Portion::new(start, len, of);
            let portion = portion.ok_or(ApplyError::damaged("a portion of a file"))?;
            Some(self.program(portion)?)
        };
        let marks = match program {
            None => 0,
            Some(_) => WITH_POINTERS | IN_PIECES,
        };
        let kind = u8::try_from(kind & !marks).ok();
        let kind = kind.filter(|&kind| kind < KINDS);
        Ok(Run {
            kind: kind.ok_or(ApplyError::damaged("a kind of content that is unknown"))?,
            len,
            pieces: Pieces::new(len),
            program,
        })
    }

    /// The next piece of a run; nothing behind the last.
    pub(crate) fn piece(&mut self, run: &mut Run) -> Result<Option<Piece>, ApplyError> {
        match &mut run.program {
            Some(program) => Ok(program.pieces.next()),
            None => self.next(&mut run.pieces),
        }
    }

    /// Fills `buffer` with the next bytes of a literal.
    pub(crate) fn literal(&mut self, run: &Run, buffer: &mut [u8]) -> Result<(), ApplyError> {
        Ok(self.streams.read(Stream::Literal(run.kind), buffer)?)
    }

    /// Adds residues to the next copied bytes.
    pub(crate) fn add(&mut self, run: &Run, copied: &mut [u8]) -> Result<(), ApplyError> {
        self.residues.add(&mut self.streams, run.kind, copied)
    }

    /// Reads the pointers of a run, and what the run is made of.
    fn program(&mut self, portion: Portion) -> Result<Program, ApplyError> {
        let copies = self.control()?;
        if copies > MOST_COPIES || !self.pointers_fit {
            return Err(ApplyError::damaged("it needs more memory than it says"));
        }
        let origin = varint::unfold(self.control()?);
        let origin = self.position.checked_add_signed(origin);
        let numberings = std::mem::take(&mut self.numberings);
        let pointers = Pointers::get(|| self.control(), &numberings)?;
        self.numberings = numberings;
        let (Some(origin), Some(pointers)) = (origin, pointers) else {
            return Err(ApplyError::damaged("pointers"));
        };
        let copies = usize::try_from(copies).expect("there are few");
        let mut all = Vec::with_capacity(2 * copies + 1);
        let mut moves = Vec::with_capacity(copies);
        let mut pieces = Pieces::new(portion.of);
        let mut new = 0;
        while let Some(piece) = self.next(&mut pieces)? {
            all.extend(piece.within(new, &portion.range));
            let (len, from) = piece.parts();
            if let Some(from) = from {
                let old = from.wrapping_sub(origin);
                moves.push(Move { old, len, new });
            }
            new += len;
            if moves.len() > copies {
                return Err(ApplyError::damaged("the number of copies"));
            }
        }
        Ok(Program {
            pointers,
            projection: Projection::new(moves),
            origin,
            portion,
            pieces: all.into_iter(),
        })
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

impl Piece {
    /// Its length, and where it is copied from if it is.
    pub(crate) const fn parts(self) -> (u64, Option<u64>) {
        match self {
            Self::Literal(len) => (len, None),
            Self::Copy(len, from) => (len, Some(from)),
        }
    }

    /// What of it is in a range, if it begins at `at`.
    fn within(self, at: u64, range: &Range<u64>) -> Option<Self> {
        let (len, from) = self.parts();
        let before = range.start.saturating_sub(at).min(len);
        let behind = (at + len).saturating_sub(range.end).min(len);
        let len = (len - before).checked_sub(behind).filter(|&len| len > 0)?;
        Some(match from {
            None => Self::Literal(len),
            Some(from) => Self::Copy(len, from + before),
        })
    }
}

impl Portion {
    /// So many bytes from a place on, of a file that has all of them.
    fn new(start: u64, len: u64, of: u64) -> Option<Self> {
        let end = start.checked_add(len).filter(|&end| end <= of)?;
        Some(Self {
            range: start..end,
            of,
        })
    }
}

impl Run {
    /// Where its first byte is in the file that its pointers are changed in.
    pub(crate) fn start(&self) -> u64 {
        let program = self.program.as_ref();
        program.map_or(0, |program| program.portion.range.start)
    }

    /// How many bytes of that file it tells of and does not make.
    pub(crate) fn beside(&self) -> u64 {
        let program = self.program.as_ref();
        program.map_or(0, |program| program.portion.of - self.len)
    }
}

impl Pieces {
    const fn new(left: u64) -> Self {
        Self {
            left,
            copy_is_next: false,
        }
    }
}

impl Program {
    /// Changes the pointers in bytes that were copied from an address to a place in the run, with what is
    /// known from the bytes of the copy in front of them. How many bytes are ready; more of the copy
    /// follow, or none.
    pub(crate) fn change(
        &self,
        bytes: &mut [u8],
        (from, new, state): (u64, u64, &mut State),
        follows: bool,
    ) -> usize {
        let old = from.wrapping_sub(self.origin);
        let places = Places { old, new };
        self.pointers
            .change(bytes, (places, state), follows, &self.projection)
    }
}

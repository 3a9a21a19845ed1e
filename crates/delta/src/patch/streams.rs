//! The streams of a patch's body. Each is packed on its own, since bytes of one kind pack best
//! together, and comes in pieces, each standing where its first byte is asked for: so the body is
//! read from front to back and no piece is ever kept waiting.

use std::io::{self, Read};

use liblzma::stream::{Action, Filters, LzmaOptions, Status};

use crate::patch::varint;

/// Longest piece in bytes: that of an LZMA2 chunk, with its head.
pub const LONGEST_PIECE: u64 = (64 << 10) + 6;

/// Largest dictionary of a stream, in bytes.
const LARGEST_DICTIONARY: u64 = 64 << 20;

/// What a stream's decoder takes beside its dictionary, in bytes: its state, a piece, and what is
/// unpacked ahead.
const STREAM_MEMORY: u64 = 128 << 10;

/// How much is unpacked ahead for numbers, in bytes.
const AHEAD: usize = 4 << 10;

/// How many kinds of content have literals and residues of their own.
pub const KINDS: u8 = 8;

/// A stream of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// What the target is made of: parts and their parameters.
    Control,
    /// Lengths of literals.
    Literals,
    /// Lengths of copies.
    Copies,
    /// Where copies come from.
    Positions,
    /// How many copied bytes are right before the next run of residues.
    Gaps,
    /// Lengths of runs of residues.
    Runs,
    /// Bytes that are new, of a kind of content.
    Literal(u8),
    /// What is to be added to copied bytes, of a kind of content.
    Residue(u8),
}

impl Stream {
    /// The stream's number in the body.
    pub const fn number(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Literals => 1,
            Self::Copies => 2,
            Self::Positions => 3,
            Self::Gaps => 4,
            Self::Runs => 5,
            Self::Literal(kind) => 6 + 2 * kind,
            Self::Residue(kind) => 7 + 2 * kind,
        }
    }

    /// How many streams there can be.
    pub const COUNT: usize = 6 + 2 * KINDS as usize;
}

/// Why a patch's body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PatchReadError {
    /// The file cannot be read, or ends too early.
    #[error("cannot read the patch")]
    Read(#[source] io::Error),
    /// What it says makes no sense.
    #[error("the patch is damaged: {0}")]
    Damaged(&'static str),
}

impl From<io::Error> for PatchReadError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

struct Unpacking {
    decoder: liblzma::stream::Stream,
    piece: Vec<u8>,
    piece_at: usize,
    ahead: Box<[u8]>,
    ahead_at: usize,
    ahead_len: usize,
}

/// The streams of one body.
pub(crate) struct Streams<R> {
    input: R,
    unpacking: Vec<Option<Unpacking>>,
}

impl<R: Read> Streams<R> {
    /// `dictionaries` are those of the header.
    pub(crate) fn new(input: R, dictionaries: &[u64]) -> Result<Self, PatchReadError> {
        if dictionaries.len() > Stream::COUNT {
            return Err(PatchReadError::Damaged("it has streams of no meaning"));
        }
        let unpacking = dictionaries
            .iter()
            .map(|&dictionary| {
                (dictionary > 0)
                    .then(|| Unpacking::new(dictionary))
                    .transpose()
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { input, unpacking })
    }

    /// What all decoders together take, in bytes, for header limits.
    pub(crate) fn memory(dictionaries: &[u64]) -> u64 {
        let one = |&dictionary: &u64| dictionary.saturating_add(STREAM_MEMORY);
        let used = dictionaries.iter().filter(|&&dictionary| dictionary > 0);
        used.map(one).fold(0, u64::saturating_add)
    }

    /// Fills `buffer` with the next bytes of a stream.
    pub(crate) fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Result<(), PatchReadError> {
        let mut done = 0;
        while done < buffer.len() {
            let number = stream.number();
            let unpacking = self.unpacking(number)?;
            let ahead = &unpacking.ahead[unpacking.ahead_at..unpacking.ahead_len];
            if ahead.is_empty() {
                let rest = &mut buffer[done..];
                let got = if rest.len() < AHEAD {
                    unpacking.look_ahead()?
                } else {
                    let got = unpacking.unpack_into(rest)?;
                    done += got;
                    got
                };
                if got == 0 {
                    self.next_piece(number)?;
                }
            } else {
                let len = ahead.len().min(buffer.len() - done);
                buffer[done..done + len].copy_from_slice(&ahead[..len]);
                unpacking.ahead_at += len;
                done += len;
            }
        }
        Ok(())
    }

    /// The next number of a stream.
    pub(crate) fn number(&mut self, stream: Stream) -> Result<u64, PatchReadError> {
        let mut why = None;
        let value = varint::get(|| {
            let mut byte = [0];
            self.read(stream, &mut byte).map_err(|error| {
                why = Some(error);
                io::Error::from(io::ErrorKind::Other)
            })?;
            Ok(byte[0])
        });
        value.map_err(|error| why.unwrap_or(PatchReadError::Read(error)))
    }

    /// Whether the body ends where it should.
    pub(crate) fn finish(&mut self) -> Result<(), PatchReadError> {
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(PatchReadError::Damaged("something follows its end")),
            Err(error) => Err(PatchReadError::Read(error)),
        }
    }

    fn unpacking(&mut self, number: u8) -> Result<&mut Unpacking, PatchReadError> {
        let unpacking = self.unpacking.get_mut(usize::from(number));
        unpacking
            .and_then(Option::as_mut)
            .ok_or(PatchReadError::Damaged(
                "it asks for a stream that it has not",
            ))
    }

    fn next_piece(&mut self, number: u8) -> Result<(), PatchReadError> {
        let mut found = [0];
        self.input.read_exact(&mut found)?;
        if found[0] != number {
            return Err(PatchReadError::Damaged("a piece is not in its place"));
        }
        let len = varint::read(&mut self.input)?;
        if len == 0 || len > LONGEST_PIECE {
            return Err(PatchReadError::Damaged("a piece's length"));
        }
        let Some(unpacking) = &mut self.unpacking[usize::from(number)] else {
            return Err(PatchReadError::Damaged(
                "it asks for a stream that it has not",
            ));
        };
        unpacking.piece.clear();
        unpacking.piece_at = 0;
        let got = (&mut self.input)
            .take(len)
            .read_to_end(&mut unpacking.piece)?;
        if got as u64 != len {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(())
    }
}

impl Unpacking {
    fn new(dictionary: u64) -> Result<Self, PatchReadError> {
        let size = u32::try_from(dictionary)
            .ok()
            .filter(|_| dictionary <= LARGEST_DICTIONARY)
            .ok_or(PatchReadError::Damaged("a dictionary's size"))?;
        let decoder = decoder(size).map_err(|_| PatchReadError::Damaged("a dictionary's size"))?;
        Ok(Self {
            decoder,
            piece: Vec::new(),
            piece_at: 0,
            ahead: vec![0; AHEAD].into(),
            ahead_at: 0,
            ahead_len: 0,
        })
    }

    fn look_ahead(&mut self) -> Result<usize, PatchReadError> {
        let mut ahead = std::mem::take(&mut self.ahead);
        let got = self.unpack_into(&mut ahead);
        self.ahead = ahead;
        self.ahead_at = 0;
        self.ahead_len = *got.as_ref().unwrap_or(&0);
        got
    }

    /// Unpacks what there is of the piece; nothing when it is used up.
    fn unpack_into(&mut self, buffer: &mut [u8]) -> Result<usize, PatchReadError> {
        loop {
            let before = (self.decoder.total_in(), self.decoder.total_out());
            let input = &self.piece[self.piece_at..];
            match self.decoder.process(input, buffer, Action::Run) {
                Ok(Status::Ok | Status::MemNeeded) => {}
                Ok(_) => return Err(PatchReadError::Damaged("a stream ends too early")),
                Err(_) => return Err(PatchReadError::Damaged("a stream cannot be unpacked")),
            }
            let took = usize::try_from(self.decoder.total_in() - before.0).unwrap_or(usize::MAX);
            let made = usize::try_from(self.decoder.total_out() - before.1).unwrap_or(usize::MAX);
            self.piece_at += took;
            // The last bytes of a chunk may be left when all that it holds has come.
            if made > 0 || self.piece_at == self.piece.len() {
                return Ok(made);
            }
            if took == 0 {
                return Err(PatchReadError::Damaged("a stream cannot be unpacked"));
            }
        }
    }
}

/// A decoder of bare LZMA2. What the encoder was told beside the dictionary stands in the chunks.
fn decoder(dictionary: u32) -> Result<liblzma::stream::Stream, liblzma::stream::Error> {
    let mut options = LzmaOptions::new_preset(0)?;
    options.dict_size(dictionary);
    let mut filters = Filters::new();
    filters.lzma2(&options);
    liblzma::stream::Stream::new_raw_decoder(&filters)
}

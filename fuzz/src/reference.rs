//! Another applier, as simple as can be: everything is in memory, nothing is dropped and unpacked
//! again, no thread, no block, no limit but that of the fuzzer's patience.
//!
//! In: a base and plain streams. Out: the target and what the streams were asked for, in order. Packing,
//! unpacking and pointers are those of the applier that is tested, told another way: all at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use system_image_delta::patch::pointers::{Places, Pointers, State};
use system_image_delta::patch::{
    Codec, CodecError, IN_PIECES, MOST_COPIES, Move, PIECES, POINTERS, POINTERS_OF_BTF, Projection,
    Remaker, Stream, Unpacker, WITH_POINTERS, varint,
};

use crate::body::{Asked, Streams};

/// Why there is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The patch is damaged.
    Damaged,
    /// This applier does not go on: it is too much, or what happens is left open.
    Open,
}

impl From<CodecError> for Stop {
    fn from(_: CodecError) -> Self {
        Self::Damaged
    }
}

type Done<T> = Result<T, Stop>;

/// How much is made at once by an applier: within a copy that is of what it makes itself, this can be seen.
const AT_ONCE: usize = 64 << 10;

/// Length of the pages in which views are unpacked.
const PAGE: usize = 1 << 20;

/// The longest target that is made, and how much is unpacked, in bytes.
const LONGEST: usize = 1 << 20;
const MOST_WORK: usize = 8 << 20;

/// How many numberings there may be, and entries of all of them.
const MOST_NUMBERINGS: usize = 16;
const MOST_ENTRIES: u64 = 64 << 10;

/// How many parts are packed at most: encoders take time.
const MOST_PACKED: usize = 8;

/// A view, and what was unpacked of it.
struct View {
    start: u64,
    plain_len: u64,
    of_target: bool,
    offset: u64,
    packed_len: u64,
    codec: Codec,
    plain: Vec<u8>,
    unpacker: Option<Unpacker>,
    read: u64,
    input: Vec<u8>,
}

/// What it has done so far.
pub struct Reference<'a> {
    base: &'a [u8],
    streams: &'a Streams,
    at: Vec<usize>,
    /// What the streams were asked for.
    pub asked: Asked,
    /// What is made.
    pub target: Vec<u8>,
    /// The features that were made use of.
    pub features: BTreeSet<&'static str>,
    /// Memory that the largest encoder takes, in bytes.
    pub encoder: u64,
    /// Memory that the largest unpacker takes, in bytes.
    pub unpacker: u64,
    views: Vec<View>,
    position: u64,
    gap: Option<u64>,
    run: u64,
    work: usize,
    packed: usize,
    /// How much of the target was there when the part began, if it is not clear when the rest of it is.
    open_from: Option<usize>,
    /// What became of numbers, and how many entries told of it.
    numberings: Vec<Arc<Projection>>,
    entries: u64,
}

impl<'a> Reference<'a> {
    /// Begins with a patch.
    pub fn new(base: &'a [u8], streams: &'a Streams) -> Self {
        Self {
            base,
            streams,
            at: vec![0; streams.len()],
            asked: Vec::new(),
            target: Vec::new(),
            features: BTreeSet::new(),
            encoder: 0,
            unpacker: 0,
            views: Vec::new(),
            position: 0,
            gap: None,
            run: 0,
            work: 0,
            packed: 0,
            open_from: None,
            numberings: Vec::new(),
            entries: 0,
        }
    }

    /// Makes all of the target.
    ///
    /// # Errors
    /// Tells why it stopped before the end. What it was asked and what it made until then is kept.
    pub fn run(&mut self) -> Done<()> {
        loop {
            match self.control()? {
                0 => return Ok(()),
                1 => {
                    let before = self.target.len();
                    self.a_run(&mut Vec::new(), u64::MAX, false)?;
                    self.has_made(before)?;
                }
                2 => {
                    let before = self.target.len();
                    self.packed_part()?;
                    self.has_made(before)?;
                }
                3 => self.view()?,
                4 => self.numbering()?,
                _ => return Err(Stop::Damaged),
            }
        }
    }

    fn numbering(&mut self) -> Done<()> {
        self.features.insert(POINTERS_OF_BTF);
        let entries = self.control()?;
        self.entries = self.entries.saturating_add(entries);
        if self.entries > MOST_ENTRIES {
            return Err(Stop::Damaged);
        }
        let (mut moves, mut old, mut by) = (Vec::new(), 0_u64, 0_u64);
        for i in 0..entries {
            let gap = self.control()?;
            by = by.wrapping_add(varint::unfold(self.control()?).cast_unsigned());
            let is_told = |number: &u64| *number < 1 << 32;
            let next = old.checked_add(gap).filter(|_| i == 0 || gap > 0);
            old = next.filter(is_told).ok_or(Stop::Damaged)?;
            let new = old.checked_add_signed(by.cast_signed()).filter(is_told);
            let (len, new) = (1, new.ok_or(Stop::Damaged)?);
            moves.push(Move { old, len, new });
        }
        if self.numberings.len() == MOST_NUMBERINGS {
            return Err(Stop::Damaged);
        }
        self.numberings.push(Arc::new(Projection::new(moves)));
        Ok(())
    }

    fn has_made(&self, before: usize) -> Done<()> {
        if self.target.len() > before {
            Ok(())
        } else {
            Err(Stop::Damaged)
        }
    }

    fn ask(&mut self, stream: Stream, len: usize) -> Done<&'a [u8]> {
        let stream = usize::from(stream.number());
        match self.asked.last_mut() {
            Some((last, asked)) if *last == stream => *asked += len,
            _ => self.asked.push((stream, len)),
        }
        let at = self.at[stream];
        self.at[stream] += len;
        self.streams[stream].get(at..at + len).ok_or(Stop::Damaged)
    }

    fn number(&mut self, stream: Stream) -> Done<u64> {
        let mut why = None;
        let number = varint::get(|| match self.ask(stream, 1) {
            Ok(byte) => Ok(byte[0]),
            Err(stop) => {
                why = Some(stop);
                Err(std::io::ErrorKind::Other.into())
            }
        });
        number.map_err(|_| why.unwrap_or(Stop::Damaged))
    }

    fn control(&mut self) -> Done<u64> {
        self.number(Stream::Control)
    }

    fn view(&mut self) -> Done<()> {
        let of_target = match self.control()? {
            0 => false,
            1 => true,
            _ => return Err(Stop::Damaged),
        };
        let (offset, packed_len) = (self.control()?, self.control()?);
        let plain_len = self.control()?;
        let codec = self.codec()?;
        let last = self.views.last();
        let start = last.map_or(self.base.len() as u64, |view| view.start + view.plain_len);
        if start.checked_add(plain_len).is_none()
            || offset.checked_add(packed_len).is_none()
            || codec == Codec::Stored && packed_len != plain_len
        {
            return Err(Stop::Damaged);
        }
        if self.views.len() > 1000 {
            return Err(Stop::Open);
        }
        self.views.push(View {
            start,
            plain_len,
            of_target,
            offset,
            packed_len,
            codec,
            plain: Vec::new(),
            unpacker: None,
            read: 0,
            input: Vec::new(),
        });
        Ok(())
    }

    fn codec(&mut self) -> Done<Codec> {
        let mut why = Stop::Damaged;
        let codec = Codec::get(|| {
            self.control().map_err(|stop| {
                why = stop;
                CodecError::Unknown
            })
        });
        codec.map_err(|_| why)
    }

    fn packed_part(&mut self) -> Done<()> {
        let len = self.control()?;
        let codec = self.codec()?;
        self.packed += 1;
        if len > LONGEST as u64 || self.packed > MOST_PACKED {
            return Err(Stop::Open);
        }
        self.features.extend(codec.feature());
        let memory = Remaker::memory(codec, len);
        self.encoder = self.encoder.max(memory);
        let mut remaker = Remaker::new(codec, len, memory)?;
        self.open_from = Some(self.target.len());
        let mut plain = Vec::new();
        while (plain.len() as u64) < len {
            let left = len - plain.len() as u64;
            self.a_run(&mut plain, left, true)?;
        }
        self.open_from = None;
        remaker.push(&plain, &mut self.target)?;
        remaker.finish(&mut self.target)?;
        if self.target.len() > LONGEST {
            return Err(Stop::Open);
        }
        Ok(())
    }

    fn pointers(&mut self) -> Done<Pointers> {
        let numberings = self.numberings.clone();
        let pointers = Pointers::get(|| self.control(), &numberings)?;
        let pointers = pointers.ok_or(Stop::Damaged)?;
        let forms = pointers.ranges.iter();
        self.features
            .extend(forms.filter_map(|range| range.form.feature()));
        Ok(pointers)
    }

    /// Appends a run to `made`, or, if it is not packed, to the target.
    fn a_run(&mut self, made: &mut Vec<u8>, most: u64, is_packed: bool) -> Done<()> {
        let kind = self.control()?;
        let len = self.control()?;
        let mut whole = len;
        let program = if kind & WITH_POINTERS == 0 {
            None
        } else {
            self.features.insert(POINTERS);
            let portion = if kind & IN_PIECES == 0 {
                0..len
            } else {
                self.features.insert(PIECES);
                whole = self.control()?;
                let start = self.control()?;
                let end = start.checked_add(len).filter(|&end| end <= whole);
                start..end.ok_or(Stop::Damaged)?
            };
            let copies = self.control()?;
            if copies > MOST_COPIES {
                return Err(Stop::Damaged);
            }
            let origin = varint::unfold(self.control()?);
            let origin = self.position.checked_add_signed(origin);
            let pointers = self.pointers()?;
            Some((copies, origin.ok_or(Stop::Damaged)?, pointers, portion))
        };
        let marks = if program.is_some() {
            WITH_POINTERS | IN_PIECES
        } else {
            0
        };
        let kind = kind & !marks;
        let kind = u8::try_from(kind).ok().filter(|&kind| kind < 8);
        if let Some((copies, origin, pointers, portion)) = program {
            // All pieces are told first.
            let (mut pieces, mut moves, mut new) = (Vec::new(), Vec::new(), 0);
            self.pieces(whole, |piece, _| {
                if let (len, Some(from)) = piece {
                    let old = u64::wrapping_sub(from, origin);
                    moves.push(Move { old, len, new });
                }
                new += piece.0;
                pieces.push(piece);
                if moves.len() as u64 > copies {
                    return Err(Stop::Damaged);
                }
                Ok(())
            })?;
            let kind = kind.ok_or(Stop::Damaged)?;
            self.is_of_length(made, len, most, is_packed)?;
            let projection = Projection::new(moves);
            let mut end = 0;
            for (len, from) in pieces {
                let begin = end;
                end += len;
                // What of it is made.
                let new = begin.max(portion.start);
                let len = end.min(portion.end).saturating_sub(new);
                if len == 0 {
                    continue;
                }
                let bytes = match from {
                    None => self.literal(kind, len)?,
                    Some(from) => {
                        let from = from + (new - begin);
                        let before = self.target.len();
                        let open_from = self.open_from.replace(before);
                        let mut bytes = self.copied(from, len)?;
                        self.open_from = open_from;
                        let places = Places {
                            old: from.wrapping_sub(origin),
                            new,
                        };
                        let places = (places, &mut State::default());
                        pointers.change(&mut bytes, places, false, &projection);
                        self.residues(kind, &mut bytes)?;
                        bytes
                    }
                };
                self.put(made, &bytes, is_packed)?;
            }
            return Ok(());
        }
        let kind = kind.ok_or(Stop::Damaged)?;
        self.is_of_length(made, len, most, is_packed)?;
        self.pieces(len, |(mut left, from), this| {
            let Some(mut from) = from else {
                let bytes = this.literal(kind, left)?;
                return this.put(made, &bytes, is_packed);
            };
            while left > 0 {
                let now = left.min(AT_ONCE as u64);
                let mut bytes = this.copied(from, now)?;
                this.residues(kind, &mut bytes)?;
                this.put(made, &bytes, is_packed)?;
                left -= now;
                from += now;
            }
            Ok(())
        })
    }

    fn is_of_length(&self, made: &[u8], len: u64, most: u64, is_packed: bool) -> Done<()> {
        if is_packed && (len == 0 || len > most) {
            return Err(Stop::Damaged);
        }
        if len > (LONGEST - made.len().max(self.target.len()).min(LONGEST)) as u64 {
            return Err(Stop::Open);
        }
        Ok(())
    }

    /// Reads the pieces of a run of this length: the length of each, and where it is copied from.
    fn pieces(
        &mut self,
        mut left: u64,
        mut tell: impl FnMut((u64, Option<u64>), &mut Self) -> Done<()>,
    ) -> Done<()> {
        while left > 0 {
            let len = self.number(Stream::Literals)?;
            left = left.checked_sub(len).ok_or(Stop::Damaged)?;
            self.position = self.position.checked_add(len).ok_or(Stop::Damaged)?;
            if len > 0 {
                tell((len, None), self)?;
            }
            if left == 0 {
                break;
            }
            let len = self.number(Stream::Copies)?;
            if len == 0 {
                return Err(Stop::Damaged);
            }
            left = left.checked_sub(len).ok_or(Stop::Damaged)?;
            let by = varint::unfold(self.number(Stream::Positions)?);
            let from = self.position.checked_add_signed(by).ok_or(Stop::Damaged)?;
            self.position = from.checked_add(len).ok_or(Stop::Damaged)?;
            tell((len, Some(from)), self)?;
        }
        Ok(())
    }

    fn put(&mut self, made: &mut Vec<u8>, bytes: &[u8], is_packed: bool) -> Done<()> {
        let to = if is_packed { made } else { &mut self.target };
        to.extend_from_slice(bytes);
        if to.len() > LONGEST {
            return Err(Stop::Open);
        }
        Ok(())
    }

    fn literal(&mut self, kind: u8, len: u64) -> Done<Vec<u8>> {
        let len = usize::try_from(len).ok().filter(|&len| len <= LONGEST);
        let bytes = self.ask(Stream::Literal(kind), len.ok_or(Stop::Open)?)?;
        Ok(bytes.to_vec())
    }

    fn residues(&mut self, kind: u8, bytes: &mut [u8]) -> Done<()> {
        for byte in bytes {
            if self.run == 0 {
                let gap = match self.gap {
                    Some(gap) => gap,
                    None => self.number(Stream::Gaps)?,
                };
                if gap > 0 {
                    self.gap = Some(gap - 1);
                    continue;
                }
                self.gap = None;
                self.run = self.number(Stream::Runs)?;
                if self.run == 0 {
                    return Err(Stop::Damaged);
                }
            }
            *byte = byte.wrapping_add(self.ask(Stream::Residue(kind), 1)?[0]);
            self.run -= 1;
        }
        Ok(())
    }

    fn copied(&mut self, from: u64, len: u64) -> Done<Vec<u8>> {
        let mut bytes = Vec::new();
        let (mut from, mut left) = (from, len);
        while left > 0 {
            let now = if from < self.base.len() as u64 {
                let now = left.min(self.base.len() as u64 - from);
                bytes.extend(part(self.base, from, now)?);
                now
            } else {
                self.viewed(from, left, &mut bytes)?
            };
            left -= now;
            from += now;
        }
        Ok(bytes)
    }

    fn viewed(&mut self, address: u64, len: u64, bytes: &mut Vec<u8>) -> Done<u64> {
        let found = self
            .views
            .partition_point(|view| view.start + view.plain_len <= address);
        let mut view = self.views.get_mut(found).ok_or(Stop::Damaged)?;
        let at = address - view.start;
        let mut len = len.min(view.plain_len - at);
        if view.codec == Codec::Stored {
            let (of_target, offset) = (view.of_target, view.offset + at);
            bytes.extend(self.read(of_target, offset, len)?);
            return Ok(len);
        }
        len = len.min((PAGE as u64) - at % PAGE as u64);
        self.unpacker = self.unpacker.max(Unpacker::memory(view.codec));
        while view.plain.len() as u64 <= at {
            let page = (view.plain_len - view.plain.len() as u64).min(PAGE as u64);
            let page = usize::try_from(page).expect("it is a page");
            self.work += page;
            if self.work > MOST_WORK {
                return Err(Stop::Open);
            }
            self.page(found, page)?;
            view = &mut self.views[found];
        }
        bytes.extend(part(&view.plain, at, len)?);
        Ok(len)
    }

    /// Unpacks another page of a view.
    fn page(&mut self, found: usize, len: usize) -> Done<()> {
        let view = &mut self.views[found];
        let mut page = vec![0; len];
        let mut unpacker = match view.unpacker.take() {
            Some(unpacker) => unpacker,
            None => Unpacker::new(view.codec)?,
        };
        let mut input = std::mem::take(&mut view.input);
        let mut done = 0;
        while done < len {
            let progress = unpacker.unpack(&input, &mut page[done..])?;
            input.drain(..progress.took);
            done += progress.made;
            if progress.made == 0 && input.is_empty() {
                let view = &self.views[found];
                let now = (view.packed_len - view.read).min(AT_ONCE as u64);
                if now == 0 {
                    return Err(Stop::Damaged);
                }
                input = self.read(view.of_target, view.offset + view.read, now)?;
                self.views[found].read += now;
            } else if progress.made == 0 && progress.took == 0 {
                return Err(Stop::Damaged);
            }
        }
        let view = &mut self.views[found];
        view.unpacker = Some(unpacker);
        view.input = input;
        view.plain.extend(page);
        Ok(())
    }

    fn read(&self, of_target: bool, offset: u64, len: u64) -> Done<Vec<u8>> {
        if !of_target {
            return part(self.base, offset, len);
        }
        let end = offset.checked_add(len).ok_or(Stop::Damaged)?;
        if self.open_from.is_some_and(|open| end > open as u64) {
            return Err(Stop::Open);
        }
        part(&self.target, offset, len)
    }
}

fn part(bytes: &[u8], offset: u64, len: u64) -> Done<Vec<u8>> {
    let end = offset.checked_add(len).ok_or(Stop::Damaged)?;
    let (start, end) = (usize::try_from(offset), usize::try_from(end));
    let (Ok(start), Ok(end)) = (start, end) else {
        return Err(Stop::Damaged);
    };
    Ok(bytes.get(start..end).ok_or(Stop::Damaged)?.to_vec())
}

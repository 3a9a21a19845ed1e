//! The body of a patch, written in the order in which the applier reads it: streams, each packed on
//! its own, cut into pieces that stand where their first byte is asked for.

use std::io::{self, Write};
use std::sync::Mutex;

use liblzma::stream::{Filters, LzmaOptions, MatchFinder, Mode};
use liblzma::write::XzEncoder;
use system_image_delta::patch::{KINDS, Patch, Stream, varint};

use crate::parallel;
use crate::patch::plan::kind;

/// The runs of bytes that the applier asks streams for, in order. There are millions of them: each
/// is the stream and the length in one byte, or the stream alone and then the length as a varint.
#[derive(Default)]
struct Asked {
    runs: Vec<u8>,
    /// The last run, which may become longer.
    last: Option<(u8, u64)>,
}

/// Lengths from this on do not fit into the byte of the stream.
const LONG: u64 = 256 / STREAMS as u64;
const STREAMS: u8 = Stream::Residue(KINDS - 1).number() + 1;

impl Asked {
    fn add(&mut self, stream: u8, len: u64) {
        match &mut self.last {
            _ if len == 0 => {}
            Some((last, before)) if *last == stream => *before += len,
            _ => {
                self.end();
                self.last = Some((stream, len));
            }
        }
    }

    /// Writes the last run down.
    fn end(&mut self) {
        let Some((stream, len)) = self.last.take() else {
            return;
        };
        match u8::try_from(len) {
            Ok(short) if len < LONG => self.runs.push(short * STREAMS + stream),
            _ => {
                self.runs.push(stream);
                varint::put(&mut self.runs, len);
            }
        }
    }

    /// Tells of each run.
    fn each(mut self, mut tell: impl FnMut(usize, u64)) {
        self.end();
        let mut left = &self.runs[..];
        while let Some((&first, rest)) = left.split_first() {
            left = rest;
            let len = match first / STREAMS {
                0 => varint::read(&mut left).expect("it was just written"),
                short => short.into(),
            };
            tell(usize::from(first % STREAMS), len);
        }
    }
}

/// The plain bytes of a stream. What is long is held where it is, not copied.
#[derive(Default)]
struct Plain {
    blocks: Vec<Vec<u8>>,
    len: usize,
}

/// Length of the blocks that short pieces are put into, in bytes.
const BLOCK: usize = 256 << 10;

impl Plain {
    fn put(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        match self.blocks.last_mut() {
            Some(last) if last.capacity() - last.len() >= bytes.len() => {
                last.extend_from_slice(bytes);
            }
            _ => {
                let mut block = Vec::with_capacity(BLOCK.max(bytes.len()));
                block.extend_from_slice(bytes);
                self.blocks.push(block);
            }
        }
    }

    fn hold(&mut self, mut bytes: Vec<u8>) {
        if bytes.len() < BLOCK {
            self.put(&bytes);
            return;
        }
        bytes.shrink_to_fit();
        self.len += bytes.len();
        self.blocks.push(bytes);
    }

    /// A copy of so many bytes from the middle.
    fn middle(&self, len: usize) -> Vec<u8> {
        let start = self.len / 2;
        let mut at = 0;
        let mut bytes = Vec::with_capacity(len);
        for block in &self.blocks {
            let from = start.saturating_sub(at).min(block.len());
            let to = (start + len).saturating_sub(at).min(block.len());
            bytes.extend_from_slice(&block[from..to]);
            at += block.len();
        }
        bytes
    }
}

/// Streams as they grow.
pub(crate) struct Body {
    streams: Vec<Plain>,
    asked: Asked,
    /// A number in its form.
    number: Vec<u8>,
}

/// A packed body.
pub(crate) struct Packed {
    /// Dictionaries for the header.
    pub(crate) dictionaries: Vec<u64>,
    /// The pieces, in order.
    pub(crate) bytes: Vec<u8>,
    /// Plain and packed length of each stream.
    pub(crate) lengths: Vec<(u64, u64)>,
}

impl Body {
    pub(crate) fn new() -> Self {
        Self {
            streams: (0..STREAMS).map(|_| Plain::default()).collect(),
            asked: Asked::default(),
            number: Vec::new(),
        }
    }

    /// Appends bytes to a stream, which are [asked](Self::ask) for later.
    pub(crate) fn hold(&mut self, stream: Stream, bytes: Vec<u8>) {
        self.streams[usize::from(stream.number())].hold(bytes);
    }

    /// Asks for the next bytes of a stream.
    pub(crate) fn ask(&mut self, stream: Stream, len: u64) {
        self.asked.add(stream.number(), len);
    }

    /// Appends a number to a stream, and asks for it.
    pub(crate) fn number(&mut self, stream: Stream, value: u64) {
        self.number.clear();
        varint::put(&mut self.number, value);
        self.streams[usize::from(stream.number())].put(&self.number);
        self.ask(stream, self.number.len() as u64);
    }

    /// Packs all streams, on as many threads as are given, for an applier that has `memory` bytes
    /// for them.
    pub(crate) fn pack(self, threads: usize, memory: u64) -> io::Result<Packed> {
        let dictionaries = self.dictionaries(memory);
        // The longest first, so that none is left alone at the end.
        let mut order: Vec<usize> = (0..self.streams.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.streams[i].len));
        let streams: Vec<Mutex<Plain>> = self.streams.into_iter().map(Mutex::new).collect();
        let packed = parallel::each(threads, &order, |&i| {
            // What is packed is given back.
            let plain = std::mem::take(&mut *streams[i].lock().expect("each is taken once"));
            let len = plain.len as u64;
            let packed = match len {
                0 => Vec::new(),
                _ => pack(plain, dictionaries[i])?,
            };
            Ok::<_, io::Error>((len, packed))
        });
        let mut chunks: Vec<Chunks> = (0..order.len()).map(|_| Chunks::default()).collect();
        let mut lengths = vec![(0, 0); order.len()];
        for (&i, packed) in order.iter().zip(packed) {
            let (len, packed) = packed?;
            lengths[i] = (len, packed.len() as u64);
            chunks[i] = Chunks::of(packed);
        }
        let mut bytes = Vec::new();
        self.asked.each(|stream, len| {
            let chunks = &mut chunks[stream];
            chunks.wanted += len;
            while chunks.delivered < chunks.wanted {
                let chunk = chunks.next();
                bytes.push(u8::try_from(stream).expect("there are few streams"));
                varint::put(&mut bytes, chunk.len() as u64);
                bytes.extend_from_slice(chunk);
            }
        });
        Ok(Packed {
            dictionaries,
            bytes,
            lengths,
        })
    }

    /// The dictionaries that pay, or smaller ones if there is not that much memory.
    fn dictionaries(&self, memory: u64) -> Vec<u64> {
        let mut largest = LARGEST_DICTIONARY;
        loop {
            let streams = self.streams.iter().enumerate();
            let chosen: Vec<u64> = streams
                .map(|(i, plain)| dictionary(i, plain.len, largest))
                .collect();
            let takes = Patch::<&[u8]>::streams_memory(&chosen);
            if takes <= memory || largest <= SMALLEST_DICTIONARY {
                return chosen;
            }
            largest /= 2;
        }
    }
}

const SMALLEST_DICTIONARY: u64 = 4 << 10;

/// Largest dictionary of a stream, in bytes: with 16 MiB the literals of another release of a system,
/// which are more than a hundred, are 2.7 % shorter than with 4 MiB.
const LARGEST_DICTIONARY: u64 = 16 << 20;

/// Largest dictionary of literals that are not longer than the former, in bytes: with 8 MiB those of a
/// security update, which are 5, are 0.3 % longer.
const USUAL_DICTIONARY: u64 = 4 << 20;

/// A match of so many bytes is taken without looking for a longer one. Residues have long runs of
/// zeros, on which the search for the very best takes most of the time and saves one part in fifty.
const LONG_ENOUGH: u32 = 96;

/// How many places are looked at for a match.
const DEPTH: u32 = 32;

/// A dictionary that is as large as pays: literals are files that were not there before and are like
/// each other, the rest is as small with 1 MiB as with 64.
fn dictionary(stream: usize, len: usize, largest: u64) -> u64 {
    // Headers and padding are alike from one to the next.
    let is_literal =
        (kind::META + 1..KINDS).any(|kind| usize::from(Stream::Literal(kind).number()) == stream);
    let pays = match len as u64 {
        _ if !is_literal => 1 << 20,
        ..=LARGEST_DICTIONARY => USUAL_DICTIONARY,
        _ => LARGEST_DICTIONARY,
    };
    let largest = largest.min(pays);
    match len as u64 {
        0 => 0,
        len => len.next_power_of_two().clamp(SMALLEST_DICTIONARY, largest),
    }
}

/// Ways in which the bytes of a stream may hang together: `lc`, `lp` and `pb` of LZMA.
const WAYS: [(u32, u32, u32); 4] = [(3, 0, 0), (0, 0, 0), (0, 2, 2), (4, 0, 0)];

/// How much of a stream is packed to see which way is the best, in bytes.
const SAMPLE: usize = 256 << 10;

fn pack(plain: Plain, dictionary: u64) -> io::Result<Vec<u8>> {
    let is_short = plain.len <= 4 * SAMPLE;
    let sample = if is_short {
        plain.blocks.concat()
    } else {
        plain.middle(SAMPLE)
    };
    let mut best = (WAYS[0], lzma2([&sample], dictionary, WAYS[0])?);
    for way in &WAYS[1..] {
        let packed = lzma2([&sample], dictionary, *way)?;
        if packed.len() < best.1.len() {
            best = (*way, packed);
        }
    }
    if is_short {
        return Ok(best.1);
    }
    lzma2(plain.blocks, dictionary, best.0)
}

fn lzma2(
    blocks: impl IntoIterator<Item = impl AsRef<[u8]>>,
    dictionary: u64,
    way: (u32, u32, u32),
) -> io::Result<Vec<u8>> {
    let mut options = LzmaOptions::new_preset(6)?;
    options
        .dict_size(u32::try_from(dictionary).expect("dictionaries are small"))
        .literal_context_bits(way.0)
        .literal_position_bits(way.1)
        .position_bits(way.2)
        .mode(Mode::Normal)
        .match_finder(MatchFinder::BinaryTree4)
        .nice_len(LONG_ENOUGH)
        .depth(DEPTH);
    let mut filters = Filters::new();
    filters.lzma2(&options);
    let stream = liblzma::stream::Stream::new_raw_encoder(&filters)?;
    let mut encoder = XzEncoder::new_stream(Vec::new(), stream);
    for block in blocks {
        encoder.write_all(block.as_ref())?;
    }
    encoder.finish()
}

/// The chunks of a packed stream. Its end mark is left out: the applier knows where it ends.
#[derive(Default)]
struct Chunks {
    packed: Vec<u8>,
    at: usize,
    /// Plain bytes in the chunks so far.
    delivered: u64,
    /// Plain bytes that were asked for so far.
    wanted: u64,
}

impl Chunks {
    fn of(packed: Vec<u8>) -> Self {
        Self {
            packed,
            ..Self::default()
        }
    }

    /// The next chunk, as the LZMA2 format has it.
    fn next(&mut self) -> &[u8] {
        let head = &self.packed[self.at..];
        let pair = |at: usize| usize::from(head[at]) << 8 | usize::from(head[at + 1]);
        let (plain, len) = match head[0] {
            0x01 | 0x02 => (pair(1) + 1, pair(1) + 1 + 3),
            control => {
                let plain = (usize::from(control & 0x1f) << 16) + pair(1) + 1;
                let properties = usize::from(control >= 0xc0);
                (plain, pair(3) + 1 + 5 + properties)
            }
        };
        self.delivered += plain as u64;
        let start = self.at;
        self.at += len;
        &self.packed[start..self.at]
    }
}

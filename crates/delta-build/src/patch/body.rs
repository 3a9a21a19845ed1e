//! The body of a patch, written in the order in which the applier reads it: streams, each packed on
//! its own, cut into pieces that stand where their first byte is asked for.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::sync::{Mutex, OnceLock};

use liblzma::stream::{Filters, LzmaOptions, MatchFinder, Mode};
use liblzma::write::XzEncoder;
use system_image_delta::patch::{KINDS, Patch, Stream, varint};

use crate::parallel;
use crate::patch::effort::Effort;
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

    /// A copy of some bytes from the middle.
    fn sample(&self) -> Vec<u8> {
        let len = (self.len / 16).clamp(*SAMPLE.start(), *SAMPLE.end());
        let start = self.len.saturating_sub(len) / 2;
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

    /// The same bytes in so many parts, about equally long.
    fn cut(mut self, parts: usize) -> Vec<Self> {
        let mut cut = Vec::with_capacity(parts);
        for part in (1..parts).rev() {
            let mut tail = Self::default();
            let wanted = self.len - self.len / (part + 1) * part;
            while tail.len < wanted
                && let Some(mut block) = self.blocks.pop()
            {
                let kept = block.len().saturating_sub(wanted - tail.len);
                let end = block.split_off(kept);
                if !block.is_empty() {
                    block.shrink_to_fit();
                    self.blocks.push(block);
                }
                tail.len += end.len();
                tail.blocks.push(end);
            }
            tail.blocks.reverse();
            self.len -= tail.len;
            cut.push(tail);
        }
        cut.push(self);
        cut.reverse();
        cut
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

    /// Whether there are so many literals that longer dictionaries than the usual pay for them.
    pub(crate) fn is_mostly_new(&self) -> bool {
        let literals = literals().map(|stream| self.streams[stream].len as u64);
        literals.max().unwrap_or(0) > LARGEST_DICTIONARY
    }

    /// Packs all streams, on as many threads as are given, for an applier that has `memory` bytes
    /// for them.
    pub(crate) fn pack(self, threads: usize, memory: u64, effort: Effort) -> io::Result<Packed> {
        let dictionaries = self.dictionaries(memory);
        let lens: Vec<u64> = self.streams.iter().map(|plain| plain.len as u64).collect();
        let samples = self.streams.iter().map(Plain::sample);
        let samples: Vec<_> = samples.map(|sample| (sample, OnceLock::new())).collect();
        let mut parts = Vec::new();
        let streams = self.streams.into_iter().enumerate();
        for (i, plain) in streams.filter(|(_, plain)| plain.len > 0) {
            let count = lens[i] / (dictionaries[i] * DICTIONARIES_IN_A_PART);
            let count = usize::try_from(count).expect("the stream is in memory");
            let cut = plain.cut(count.max(1)).into_iter();
            parts.extend(cut.map(|plain| (i, plain.len, Mutex::new(plain))));
        }
        // The longest first, so that none is left alone at the end.
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(parts[at].1));
        let packed = parallel::each(threads, &order, |&at| {
            let (i, len, plain) = &parts[at];
            let (sample, tried) = &samples[*i];
            let tried = tried.get_or_init(|| Tried::new(sample, dictionaries[*i], effort));
            let tried = tried
                .as_ref()
                .map_err(|error| io::Error::from(error.kind()))?;
            if let Some(packed) = &tried.packed
                && *len == sample.len()
            {
                return Ok(packed.clone());
            }
            // What is packed is given back.
            let plain = std::mem::take(&mut *plain.lock().expect("each is taken once"));
            lzma2(plain.blocks, dictionaries[*i], tried.way, effort)
        });
        let mut packed: Vec<_> = order.into_iter().zip(packed).collect();
        packed.sort_by_key(|(at, _)| *at);
        let mut chunks: Vec<Chunks> = lens.iter().map(|_| Chunks::default()).collect();
        for (at, packed) in packed {
            chunks[parts[at].0].append(packed?);
        }
        let lengths = lens.iter().zip(&chunks);
        let lengths = lengths
            .map(|(len, chunks)| (*len, chunks.packed.len() as u64))
            .collect();
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

/// A match of so many bytes is taken without looking for a longer one, by default. Residues have long
/// runs of zeros, on which the search for the very best takes most of the time and saves one part in
/// fifty.
const LONG_ENOUGH: u32 = 96;

/// How many places are looked at for a match, by default.
const DEPTH: u32 = 32;

/// The streams of literals; headers and padding are alike from one to the next.
fn literals() -> impl Iterator<Item = usize> {
    (kind::META + 1..KINDS).map(|kind| usize::from(Stream::Literal(kind).number()))
}

/// A dictionary that is as large as pays: literals are files that were not there before and are like
/// each other, the rest is as small with 1 MiB as with 64.
fn dictionary(stream: usize, len: usize, largest: u64) -> u64 {
    let pays = match len as u64 {
        _ if !literals().any(|literal| literal == stream) => 1 << 20,
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
type Way = (u32, u32, u32);

const WAYS: [Way; 4] = [(3, 0, 0), (0, 0, 0), (0, 2, 2), (4, 0, 0)];

/// How many times its dictionary a part is long, at least, that is packed by itself: with 6 a patch is
/// longer by a ten thousandth, and no thread is left alone with a long stream.
const DICTIONARIES_IN_A_PART: u64 = 6;

/// How much of a stream is packed to see which way is the best, in bytes: one part in sixteen, within these.
const SAMPLE: RangeInclusive<usize> = 128 << 10..=256 << 10;

/// What came of packing a sample in all ways.
struct Tried {
    /// The best.
    way: Way,
    /// The sample, packed in that way if any was tried.
    packed: Option<Vec<u8>>,
}

impl Tried {
    fn new(sample: &[u8], dictionary: u64, effort: Effort) -> io::Result<Self> {
        let mut best = Self {
            way: WAYS[0],
            packed: None,
        };
        if effort == Effort::Fast {
            return Ok(best);
        }
        for way in WAYS {
            let packed = lzma2([sample], dictionary, way, effort)?;
            if best
                .packed
                .as_ref()
                .is_none_or(|best| packed.len() < best.len())
            {
                let packed = Some(packed);
                best = Self { way, packed };
            }
        }
        Ok(best)
    }
}

fn lzma2(
    blocks: impl IntoIterator<Item = impl AsRef<[u8]>>,
    dictionary: u64,
    way: Way,
    effort: Effort,
) -> io::Result<Vec<u8>> {
    let mut options = LzmaOptions::new_preset(6)?;
    options
        .dict_size(u32::try_from(dictionary).expect("dictionaries are small"))
        .literal_context_bits(way.0)
        .literal_position_bits(way.1)
        .position_bits(way.2);
    match effort {
        Effort::Fast => options
            .mode(Mode::Fast)
            .match_finder(MatchFinder::HashChain4)
            .nice_len(64)
            .depth(4),
        Effort::Default => options
            .mode(Mode::Normal)
            .match_finder(MatchFinder::BinaryTree4)
            .nice_len(LONG_ENOUGH)
            .depth(DEPTH),
    };
    let mut filters = Filters::new();
    filters.lzma2(&options);
    let stream = liblzma::stream::Stream::new_raw_encoder(&filters)?;
    let mut encoder = XzEncoder::new_stream(Vec::new(), stream);
    for block in blocks {
        encoder.write_all(block.as_ref())?;
    }
    encoder.finish()
}

/// The chunks of a packed stream.
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
    fn append(&mut self, mut packed: Vec<u8>) {
        // The mark of the end is left out: more may follow, and the applier knows where it ends.
        packed.pop();
        if self.packed.is_empty() {
            self.packed = packed;
        } else {
            self.packed.append(&mut packed);
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

//! The body of a patch, written in the order in which the applier reads it: streams, each packed on
//! its own, cut into pieces that stand where their first byte is asked for.

use std::io::{self, Write};

use liblzma::stream::{Filters, LzmaOptions, MatchFinder, Mode};
use liblzma::write::XzEncoder;
use system_image_delta::patch::{KINDS, Patch, Stream, varint};

use crate::parallel;
use crate::patch::plan::kind;

/// A run of bytes that the applier asks one stream for. There are millions of them.
#[derive(Clone, Copy)]
struct Asked {
    stream: u8,
    bytes: u32,
}

/// Streams as they grow.
pub(crate) struct Body {
    streams: Vec<Vec<u8>>,
    asked: Vec<Asked>,
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
            streams: vec![Vec::new(); Stream::COUNT],
            asked: Vec::new(),
        }
    }

    /// Appends bytes to a stream.
    pub(crate) fn put(&mut self, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let number = stream.number();
        self.streams[usize::from(number)].extend_from_slice(bytes);
        self.asked(number, bytes.len());
    }

    /// Appends a number to a stream.
    pub(crate) fn number(&mut self, stream: Stream, value: u64) {
        let number = stream.number();
        let bytes = &mut self.streams[usize::from(number)];
        let before = bytes.len();
        varint::put(bytes, value);
        let len = bytes.len() - before;
        self.asked(number, len);
    }

    fn asked(&mut self, stream: u8, len: usize) {
        let mut left = len;
        while left > 0 {
            let bytes = u32::try_from(left).unwrap_or(u32::MAX);
            left -= bytes as usize;
            match self.asked.last_mut() {
                Some(last) if last.stream == stream && last.bytes <= u32::MAX - bytes => {
                    last.bytes += bytes;
                }
                _ => self.asked.push(Asked { stream, bytes }),
            }
        }
    }

    /// Packs all streams, on as many threads as are given, for an applier that has `memory` bytes
    /// for them.
    pub(crate) fn pack(self, threads: usize, memory: u64) -> io::Result<Packed> {
        let dictionaries = self.dictionaries(memory);
        // The longest first, so that none is left alone at the end.
        let mut order: Vec<usize> = (0..self.streams.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.streams[i].len()));
        let packed = parallel::each(threads, &order, |&i| {
            if self.streams[i].is_empty() {
                return Ok(Vec::new());
            }
            pack(&self.streams[i], dictionaries[i])
        });
        let mut chunks: Vec<Chunks> = (0..order.len()).map(|_| Chunks::default()).collect();
        let mut lengths = vec![(0, 0); order.len()];
        for (&i, packed) in order.iter().zip(packed) {
            let packed = packed?;
            lengths[i] = (self.streams[i].len() as u64, packed.len() as u64);
            chunks[i] = Chunks::of(packed);
        }
        let mut bytes = Vec::new();
        for asked in &self.asked {
            let chunks = &mut chunks[usize::from(asked.stream)];
            chunks.wanted += u64::from(asked.bytes);
            while chunks.delivered < chunks.wanted {
                let chunk = chunks.next();
                bytes.push(asked.stream);
                varint::put(&mut bytes, chunk.len() as u64);
                bytes.extend_from_slice(chunk);
            }
        }
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
                .map(|(i, bytes)| dictionary(i, bytes.len(), largest))
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

fn pack(bytes: &[u8], dictionary: u64) -> io::Result<Vec<u8>> {
    let middle = bytes.len() / 2;
    let sample = if bytes.len() > 4 * SAMPLE {
        &bytes[middle..middle + SAMPLE]
    } else {
        bytes
    };
    let mut best = (WAYS[0], lzma2(sample, dictionary, WAYS[0])?);
    for way in &WAYS[1..] {
        let packed = lzma2(sample, dictionary, *way)?;
        if packed.len() < best.1.len() {
            best = (*way, packed);
        }
    }
    if sample.len() == bytes.len() {
        return Ok(best.1);
    }
    lzma2(bytes, dictionary, best.0)
}

fn lzma2(bytes: &[u8], dictionary: u64, way: (u32, u32, u32)) -> io::Result<Vec<u8>> {
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
    encoder.write_all(bytes)?;
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

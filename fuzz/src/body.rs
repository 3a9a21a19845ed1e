//! Bodies of patches, to plain streams and back (`docs/formats/patch.md`, section The body).

use std::io::Write;

use liblzma::stream::{Action, Filters, LzmaOptions, Stream as Lzma};
use liblzma::write::XzEncoder;
use system_image_delta::patch::{Stream, varint};

/// Longest plain content of an LZMA2 chunk that is not packed, in bytes.
const STORED: usize = 64 << 10;

/// The plain content of each stream.
pub type Streams = Vec<Vec<u8>>;

/// Bytes that an applier asks a stream for, in order.
pub type Asked = Vec<(usize, usize)>;

fn filters(dictionary: u64) -> Filters {
    let mut options = LzmaOptions::new_preset(0).expect("the library knows it");
    let dictionary = u32::try_from(dictionary).expect("dictionaries are small");
    options.dict_size(dictionary);
    let mut filters = Filters::new();
    filters.lzma2(&options);
    filters
}

/// The chunks of a stream: each with its plain length.
fn chunks(plain: &[u8], dictionary: u64, is_packed: bool) -> Vec<(Vec<u8>, usize)> {
    if !is_packed {
        let stored = plain.chunks(STORED).enumerate();
        let chunk = |(i, plain): (usize, &[u8])| {
            // The first one resets the dictionary.
            let control = if i == 0 { 1 } else { 2 };
            let [high, low] = u16::try_from(plain.len() - 1)
                .expect("it fits")
                .to_be_bytes();
            ([&[control, high, low], plain].concat(), plain.len())
        };
        return stored.map(chunk).collect();
    }
    let encoder = Lzma::new_raw_encoder(&filters(dictionary)).expect("the library knows it");
    let mut encoder = XzEncoder::new_stream(Vec::new(), encoder);
    encoder.write_all(plain).expect("memory takes it");
    let packed = encoder.finish().expect("memory takes it");
    let mut left = &packed[..];
    let mut chunks = Vec::new();
    while left[0] != 0 {
        let pair = |at: usize| usize::from(left[at]) << 8 | usize::from(left[at + 1]);
        let (plain, len) = match left[0] {
            1 | 2 => (pair(1) + 1, pair(1) + 1 + 3),
            control => {
                let plain = (usize::from(control & 0x1f) << 16) + pair(1) + 1;
                (plain, pair(3) + 1 + 5 + usize::from(control >= 0xc0))
            }
        };
        let (chunk, rest) = left.split_at(len);
        chunks.push((chunk.to_vec(), plain));
        left = rest;
    }
    chunks
}

/// Packs streams, each piece where its first byte is asked for.
pub fn packed(streams: &Streams, dictionaries: &[u64], asked: &Asked, is_packed: bool) -> Vec<u8> {
    let mut chunks: Vec<_> = streams
        .iter()
        .zip(dictionaries)
        .map(|(plain, &dictionary)| chunks(plain, dictionary, is_packed && !plain.is_empty()))
        .map(Vec::into_iter)
        .collect();
    let mut delivered = vec![0; streams.len()];
    let mut wanted = vec![0; streams.len()];
    let mut body = Vec::new();
    for &(stream, len) in asked {
        wanted[stream] += len;
        while delivered[stream] < wanted[stream]
            && let Some((chunk, plain)) = chunks[stream].next()
        {
            delivered[stream] += plain;
            body.push(u8::try_from(stream).expect("there are few streams"));
            varint::put(&mut body, chunk.len() as u64);
            body.extend(chunk);
        }
    }
    body
}

/// Unpacks the streams of a sound body.
pub fn plain(mut body: &[u8], dictionaries: &[u64]) -> Streams {
    let mut packed = vec![Vec::new(); Stream::COUNT];
    while let Some((&stream, rest)) = body.split_first() {
        body = rest;
        let len = varint::read(&mut body).expect("the body is sound");
        let (piece, rest) = body.split_at(usize::try_from(len).expect("the body is sound"));
        packed[usize::from(stream)].extend_from_slice(piece);
        body = rest;
    }
    let unpacked = packed.into_iter().enumerate().map(|(i, packed)| {
        let mut plain = Vec::new();
        if packed.is_empty() {
            return plain;
        }
        let packed = [&packed[..], &[0]].concat();
        let filters = filters(dictionaries[i]);
        let mut decoder = Lzma::new_raw_decoder(&filters).expect("the library knows it");
        loop {
            plain.reserve(STORED);
            let at = usize::try_from(decoder.total_in()).expect("it is in memory");
            let before = plain.len();
            let done = decoder.process_vec(&packed[at..], &mut plain, Action::Run);
            done.expect("the body is sound");
            if plain.len() == before {
                return plain;
            }
        }
    });
    unpacked.collect()
}

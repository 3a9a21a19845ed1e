//! Compressed archives: read as a stream, and their plain size without decompressing them.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// Memory of the decoder, in bytes: `xz -9` asks for 65 MiB, as published files do (server spec,
/// section 9). More would not fit the devices.
const DECODER_MEMORY: u64 = 80 << 20;

/// Read from the file at a time, in bytes.
const BUFFER: usize = 128 << 10;

/// Longest index that is read, in bytes: that of some hundred thousand blocks.
const MAX_INDEX: u64 = 8 << 20;

/// Length of the header and of the footer of a stream, in bytes.
const HEADER: u64 = FOOTER as u64;
const FOOTER: usize = 12;

/// Decompresses. Several streams in one file are one, as `xz` has it.
pub fn unpacked<R: Read>(compressed: R) -> XzDecoder<BufReader<R>> {
    let stream = Stream::new_stream_decoder(DECODER_MEMORY, CONCATENATED)
        .expect("a decoder with a sensible memory limit is always available");
    XzDecoder::new_stream(BufReader::with_capacity(BUFFER, compressed), stream)
}

/// The size of the content in bytes, as the indexes at the ends of the streams have it; `None` if that
/// cannot be told. An estimate for planning: nothing is believed because of it.
pub fn plain_size(file: &File) -> io::Result<Option<u64>> {
    let mut end = file.metadata()?.len();
    let mut sum: u64 = 0;
    while end > 0 {
        if end < 2 * HEADER {
            return Ok(None);
        }
        let mut footer = [0; FOOTER];
        file.read_exact_at(&mut footer, end - HEADER)?;
        if footer[8..] == [0; 4] {
            // Padding between streams, in fours.
            end -= 4;
            continue;
        }
        if &footer[10..] != b"YZ" {
            return Ok(None);
        }
        let backward = u32::from_le_bytes([footer[4], footer[5], footer[6], footer[7]]);
        let index_len = (u64::from(backward) + 1) * 4;
        let Some(index_at) = (end - HEADER).checked_sub(index_len) else {
            return Ok(None);
        };
        if index_len > MAX_INDEX {
            return Ok(None);
        }
        let mut index = vec![0; usize::try_from(index_len).unwrap_or(0)];
        file.read_exact_at(&mut index, index_at)?;
        let Some((packed, plain)) = sizes(&index) else {
            return Ok(None);
        };
        let start = packed
            .checked_add(HEADER)
            .and_then(|len| index_at.checked_sub(len));
        let (Some(start), Some(total)) = (start, sum.checked_add(plain)) else {
            return Ok(None);
        };
        (end, sum) = (start, total);
    }
    Ok(Some(sum))
}

/// The sums of the packed and the plain sizes of an index's blocks.
fn sizes(index: &[u8]) -> Option<(u64, u64)> {
    let mut left = index.strip_prefix(&[0])?;
    let count = number(&mut left)?;
    let (mut packed, mut plain) = (0_u64, 0_u64);
    for _ in 0..count {
        packed = packed.checked_add(number(&mut left)?.checked_next_multiple_of(4)?)?;
        plain = plain.checked_add(number(&mut left)?)?;
    }
    Some((packed, plain))
}

/// A number of up to 63 bits, seven in a byte, the lowest first.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use liblzma::write::XzEncoder;

    use super::*;

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut encoder = XzEncoder::new(Vec::new(), 0);
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn size_of(bytes: &[u8]) -> Option<u64> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        plain_size(&file).unwrap()
    }

    #[test]
    fn the_plain_size_is_read_from_the_end() {
        assert_eq!(size_of(&packed(&vec![1; 1_000_000])), Some(1_000_000));
        assert_eq!(size_of(&packed(b"")), Some(0));
        let two = [packed(&[1; 1000]), vec![0; 8], packed(&[2; 500])].concat();
        assert_eq!(size_of(&two), Some(1500));
        assert_eq!(size_of(b""), Some(0));
    }

    #[test]
    fn what_is_no_archive_has_no_size() {
        let whole = packed(&[1; 1000]);
        for cut in 1..whole.len() {
            assert_ne!(size_of(&whole[..cut]), Some(1000), "{cut}");
        }
        assert_eq!(size_of(&[b'Y'; 100]), None);
        assert_eq!(size_of(&[[0xff; 98].as_slice(), b"YZ"].concat()), None);
    }
}

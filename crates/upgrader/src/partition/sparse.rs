//! Android's sparse image form: chunks of blocks that hold data, one repeated value, or nothing.
//!
//! In: a file. Out: pieces with their places. Lengths are checked against the header's before
//! anything is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use system_image_delta::SPARSE_IMAGE;

/// Lengths of the headers in version 1, in bytes.
const FILE_HEADER: u16 = 28;
const CHUNK_HEADER: u16 = 12;

/// Largest block that is believed, in bytes.
const MAX_BLOCK: u32 = 1 << 20;

/// What a chunk holds.
#[derive(Clone, Copy, Debug)]
enum Chunk {
    /// Data, from this place in the file on.
    Raw(u64),
    /// One value of four bytes, over and over.
    Fill([u8; 4]),
    /// Nothing that matters.
    DontCare,
}

/// The headers of a sparse image.
#[derive(Debug)]
pub(super) struct Sparse {
    block: u64,
    blocks: u64,
    /// Each chunk with its length in blocks.
    chunks: Vec<(Chunk, u64)>,
}

impl Sparse {
    /// Reads the headers; `None` if the file has another form.
    pub(super) fn open(file: &File) -> io::Result<Option<Self>> {
        let mut header = [0; FILE_HEADER as usize];
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        if !header.starts_with(&SPARSE_IMAGE) {
            return Ok(None);
        }
        let (major, file_header, chunk_header) =
            (u16_at(&header, 4), u16_at(&header, 8), u16_at(&header, 10));
        let (block, blocks, count) = (
            u32_at(&header, 12),
            u32_at(&header, 16),
            u32_at(&header, 20),
        );
        if major != 1 || file_header < FILE_HEADER || chunk_header < CHUNK_HEADER {
            return Err(malformed("of a version that is not known"));
        }
        if block == 0 || !block.is_multiple_of(4) || block > MAX_BLOCK {
            return Err(malformed("with blocks of a strange size"));
        }
        let (block, blocks) = (u64::from(block), u64::from(blocks));
        let len = file.metadata()?.len();
        let mut at = u64::from(file_header);
        let mut chunks = Vec::new();
        let mut sum = 0;
        for _ in 0..count {
            let mut header = [0; CHUNK_HEADER as usize];
            file.read_exact_at(&mut header, at)?;
            let (kind, length, total) = (
                u16_at(&header, 0),
                u64::from(u32_at(&header, 4)),
                u64::from(u32_at(&header, 8)),
            );
            let data = at + u64::from(chunk_header);
            let size = total
                .checked_sub(u64::from(chunk_header))
                .filter(|size| data + size <= len)
                .ok_or_else(|| malformed("with a chunk that is longer than the file"))?;
            match (kind, size) {
                (0xcac1, size) if size == length * block => chunks.push((Chunk::Raw(data), length)),
                (0xcac2, 4) => {
                    let mut value = [0; 4];
                    file.read_exact_at(&mut value, data)?;
                    chunks.push((Chunk::Fill(value), length));
                }
                (0xcac3, 0) => chunks.push((Chunk::DontCare, length)),
                // A checksum over all of it. The archive that it came in has a better one.
                (0xcac4, 4) if length == 0 => {}
                _ => return Err(malformed("with a chunk that is none")),
            }
            sum += length;
            if sum > blocks {
                return Err(malformed("with more blocks than it says"));
            }
            at = data + size;
        }
        if sum != blocks {
            return Err(malformed("with fewer blocks than it says"));
        }
        Ok(Some(Self {
            block,
            blocks,
            chunks,
        }))
    }

    /// Bytes that it has when it is written.
    pub(super) fn size(&self) -> u64 {
        self.block * self.blocks
    }

    /// The pieces in order.
    pub(super) fn pieces<'a>(&'a self, file: &'a File) -> Pieces<'a> {
        Pieces {
            sparse: self,
            file,
            chunk: 0,
            done: 0,
            at: 0,
        }
    }
}

/// Where reading an image has got.
pub(super) struct Pieces<'a> {
    sparse: &'a Sparse,
    file: &'a File,
    chunk: usize,
    /// Bytes of this chunk that were given.
    done: u64,
    /// The place on the partition.
    at: u64,
}

impl Pieces<'_> {
    /// Fills the beginning of `buffer`, a multiple of four bytes long; the place, and how many bytes.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> io::Result<Option<(u64, usize)>> {
        while let Some(&(chunk, length)) = self.sparse.chunks.get(self.chunk) {
            let left = length * self.sparse.block - self.done;
            if left == 0 || matches!(chunk, Chunk::DontCare) {
                self.at += left;
                self.chunk += 1;
                self.done = 0;
                continue;
            }
            let len = usize::try_from(left)
                .unwrap_or(buffer.len())
                .min(buffer.len());
            match chunk {
                Chunk::Raw(data) => self
                    .file
                    .read_exact_at(&mut buffer[..len], data + self.done)?,
                Chunk::Fill(value) => {
                    for part in buffer[..len].chunks_exact_mut(4) {
                        part.copy_from_slice(&value);
                    }
                }
                Chunk::DontCare => {}
            }
            let at = self.at;
            self.at += len as u64;
            self.done += len as u64;
            return Ok(Some((at, len)));
        }
        Ok(None)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a sparse image {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: u16, blocks: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend([0; 2]);
        bytes.extend(blocks.to_le_bytes());
        let total = u32::try_from(data.len()).unwrap() + u32::from(CHUNK_HEADER);
        bytes.extend(total.to_le_bytes());
        bytes.extend(data);
        bytes
    }

    fn image(blocks: u32, chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = SPARSE_IMAGE.to_vec();
        for number in [1, 0, FILE_HEADER, CHUNK_HEADER] {
            bytes.extend(number.to_le_bytes());
        }
        let count = u32::try_from(chunks.len()).unwrap();
        for number in [8, blocks, count, 0] {
            bytes.extend(u32::to_le_bytes(number));
        }
        bytes.extend(chunks.concat());
        bytes
    }

    fn open(bytes: &[u8]) -> io::Result<(File, Option<Sparse>)> {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let sparse = Sparse::open(&file)?;
        Ok((file, sparse))
    }

    #[test]
    fn chunks_of_every_kind_are_read() {
        let bytes = image(
            5,
            &[
                chunk(0xcac1, 2, b"0123456789abcdef"),
                chunk(0xcac3, 1, b""),
                chunk(0xcac2, 2, b"fill"),
                chunk(0xcac4, 0, b"crc."),
            ],
        );
        let (file, sparse) = open(&bytes).unwrap();
        let sparse = sparse.unwrap();
        assert_eq!(sparse.size(), 40);
        let mut pieces = sparse.pieces(&file);
        let mut buffer = [0; 12];
        let mut all = vec![b'.'; 40];
        while let Some((at, len)) = pieces.next(&mut buffer).unwrap() {
            let at = usize::try_from(at).unwrap();
            all[at..at + len].copy_from_slice(&buffer[..len]);
        }
        assert_eq!(all, b"0123456789abcdef........fillfillfillfill");
    }

    #[test]
    fn images_of_other_forms_are_none_and_lies_are_refused() {
        for raw in [&b"short"[..], &[0; 100]] {
            assert!(open(raw).unwrap().1.is_none());
        }
        for (bytes, words) in [
            (image(1, &[]), "fewer"),
            (image(1, &[chunk(0xcac3, 2, b"")]), "more"),
            (image(1, &[chunk(0xcac1, 1, b"1234")]), "none"),
            (image(1, &[chunk(0xcac9, 1, b"")]), "none"),
            (
                image(2, &[chunk(0xcac1, 2, b"0123456789abcdef")[..20].to_vec()]),
                "longer",
            ),
        ] {
            let error = open(&bytes).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}

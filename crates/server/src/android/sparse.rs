//! Android's sparse images: chunks of a larger image, little-endian.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use anyhow::{Context, bail, ensure};
use system_image_delta::SPARSE_IMAGE;

const RAW: u16 = 0xcac1;
const FILL: u16 = 0xcac2;
const HOLE: u16 = 0xcac3;
const CRC: u16 = 0xcac4;

/// Largest image that is expanded, in bytes.
const MAX_IMAGE: u64 = 64 << 30;

/// Writes what `source` stands for to `output`; an image that is not sparse is copied.
pub(super) fn expand(source: &mut File, mut output: &File) -> anyhow::Result<()> {
    let mut head = [0; 28];
    let read = source.read(&mut head)?;
    source.rewind()?;
    if read < head.len() || !head.starts_with(&SPARSE_IMAGE) {
        io::copy(source, &mut output)?;
        return Ok(());
    }
    let (file_header, chunk_header) = (half(&head, 8), half(&head, 10));
    let (block, blocks, chunks) = (word(&head, 12), word(&head, 16), word(&head, 20));
    ensure!(
        half(&head, 4) == 1
            && file_header >= 28
            && chunk_header >= 12
            && block > 0
            && block % 4 == 0,
        "it is a sparse image of an unknown kind"
    );
    let size = u64::from(block) * u64::from(blocks);
    ensure!(
        size <= MAX_IMAGE,
        "it stands for {size} bytes, which is too much"
    );
    let mut source = io::BufReader::with_capacity(256 << 10, source);
    source.seek(SeekFrom::Start(file_header.into()))?;
    let mut at = 0u64;
    for _ in 0..chunks {
        let mut head = vec![0; chunk_header.into()];
        source.read_exact(&mut head).context("it is cut off")?;
        let len = u64::from(word(&head, 4)) * u64::from(block);
        ensure!(at + len <= size, "a chunk leads beyond its end");
        match half(&head, 0) {
            RAW => {
                output.seek(SeekFrom::Start(at))?;
                let copied = io::copy(&mut (&mut source).take(len), &mut output)?;
                ensure!(copied == len, "it is cut off");
            }
            FILL => {
                let mut value = [0; 4];
                source.read_exact(&mut value).context("it is cut off")?;
                if value != [0; 4] {
                    output.seek(SeekFrom::Start(at))?;
                    let piece = value.repeat(block as usize / 4);
                    for _ in 0..word(&head, 4) {
                        output.write_all(&piece)?;
                    }
                }
            }
            HOLE => {}
            CRC => {
                source.read_exact(&mut [0; 4]).context("it is cut off")?;
            }
            kind => bail!("it has a chunk of an unknown kind, {kind:#x}"),
        }
        at += len;
    }
    ensure!(
        at == size,
        "its chunks stand for {at} bytes, its header for {size}"
    );
    output.set_len(size)?;
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_become_what_they_stand_for() {
        let mut image = Vec::new();
        image.extend(SPARSE_IMAGE);
        for half in [1u16, 0, 28, 12] {
            image.extend(half.to_le_bytes());
        }
        for word in [8u32, 4, 3, 0] {
            image.extend(word.to_le_bytes());
        }
        let mut chunk = |kind: u16, blocks: u32, data: &[u8]| {
            image.extend(kind.to_le_bytes());
            image.extend([0, 0]);
            image.extend(blocks.to_le_bytes());
            image.extend((12 + u32::try_from(data.len()).unwrap()).to_le_bytes());
            image.extend(data);
        };
        chunk(RAW, 1, b"abcdefgh");
        chunk(HOLE, 2, b"");
        chunk(FILL, 1, b"wxyz");
        let expanded = |image: &[u8]| {
            let mut source = tempfile::tempfile().unwrap();
            source.write_all(image).unwrap();
            source.rewind().unwrap();
            let mut output = tempfile::tempfile().unwrap();
            expand(&mut source, &output).map(|()| {
                output.rewind().unwrap();
                let mut bytes = Vec::new();
                output.read_to_end(&mut bytes).unwrap();
                bytes
            })
        };
        let want = [&b"abcdefgh"[..], &[0; 16], b"wxyzwxyz"].concat();
        assert_eq!(expanded(&image).unwrap(), want);
        assert_eq!(expanded(b"not sparse").unwrap(), b"not sparse");
        for len in 28..image.len() {
            assert!(expanded(&image[..len]).is_err(), "{len}");
        }
    }
}

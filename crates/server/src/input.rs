//! What goes into payloads: archives on the disk, plain or compressed, and scratch files.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use camino::Utf8Path;
use flate2::read::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use system_image_report::Progress;

use anyhow::Context;

use crate::published::Published;

const BUFFER: usize = 256 << 10;

/// Memory for unpacking a given `.tar.xz`: level 9 of `xz` needs 65 MiB.
const DECODER_MEMORY: u64 = 100 << 20;

/// The first bytes of every `.xz` file.
const XZ_MAGIC: [u8; 6] = *b"\xfd7zXZ\0";

/// The first bytes of every gzip file.
const GZIP_MAGIC: [u8; 2] = *b"\x1f\x8b";

/// Streams an archive, unpacked as its first bytes say. The progress counts what is read of the
/// file itself.
pub fn open<'a>(
    file: &'a mut File,
    progress: &'a mut Progress,
) -> anyhow::Result<Box<dyn Read + 'a>> {
    file.rewind()?;
    let mut magic = [0; XZ_MAGIC.len()];
    let read = file.read(&mut magic)?;
    file.rewind()?;
    let magic = &magic[..read];
    let source = Watched {
        inner: file,
        progress,
    };
    Ok(if magic == XZ_MAGIC {
        Box::new(decoder(source)?)
    } else if magic.starts_with(&GZIP_MAGIC) {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(
            BUFFER, source,
        )))
    } else {
        Box::new(BufReader::with_capacity(BUFFER, source))
    })
}

/// What is told while an input is read.
pub fn reading(input: &Utf8Path, file: &File) -> anyhow::Result<Progress> {
    let what = format!("reading {}", input.file_name().unwrap_or("input"));
    Ok(Progress::new(shortened(&what), file.metadata()?.len()))
}

/// Unpacks xz, all streams of it.
pub fn decoder<R: Read>(data: R) -> anyhow::Result<XzDecoder<BufReader<R>>> {
    let stream = Stream::new_stream_decoder(DECODER_MEMORY, CONCATENATED)?;
    Ok(XzDecoder::new_stream(
        BufReader::with_capacity(BUFFER, data),
        stream,
    ))
}

/// A file without a name in the server's state directory: it is gone with the process.
pub fn scratch(tree: &Published) -> anyhow::Result<File> {
    let directory = tree.root().state();
    tempfile::tempfile_in(&directory)
        .with_context(|| format!("cannot make a scratch file in `{directory}`"))
}

/// The same open file from its beginning.
pub fn rewound(file: &File) -> anyhow::Result<BufReader<File>> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Ok(BufReader::with_capacity(BUFFER, file))
}

/// Names of the pool are longer than a terminal's line.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Counts what is read.
#[derive(Debug)]
pub struct Watched<'a, R> {
    /// What is read.
    pub inner: R,
    /// Where that is told.
    pub progress: &'a mut Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.progress.add(read as u64);
        Ok(read)
    }
}

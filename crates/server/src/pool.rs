//! The pool: payloads under names that never change their content, each with its signature and side
//! file.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use anyhow::{Context, bail};
use liblzma::stream::{Check, MtStreamBuilder, Stream};
use liblzma::write::XzEncoder;
use system_image_formats::checksum::Sha256;
use system_image_formats::hash::Hashing;
use system_image_formats::index::FileEntry;
use system_image_formats::name::TreePath;
use system_image_formats::side::SideFile;
use system_image_report::Progress;

use crate::input::{Watched, decoder, rewound, scratch, shortened};
use crate::published::{MAX_SIGNATURE, Published, side_path};
use crate::tree::Tree;

/// Compresses, signs and stores a tarball with its side file, unless all of it is there already.
pub fn store(
    tree: &Tree,
    path: &TreePath,
    tar: &File,
    side: &SideFile,
) -> anyhow::Result<FileEntry> {
    let _alone = tree.alone_with(path);
    if let Some(entry) = stored(tree, path)? {
        return Ok(entry);
    }
    let len = tar.metadata()?.len();
    let what = format!("compressing {}", path.file_name()?);
    let mut progress = Progress::new(shortened(&what), len);
    let mut writer = Hashing::new(tree.store().create(path)?);
    let mut encoder = XzEncoder::new_stream(
        &mut writer,
        encoder(tree.config().compression_level, tree.memory(), len)?,
    );
    let mut source = Watched {
        inner: rewound(tar)?,
        progress: &mut progress,
    };
    io::copy(&mut source, &mut encoder)
        .and_then(|_| encoder.finish().map(drop))
        .with_context(|| format!("cannot write `{path}`"))?;
    progress.finish();
    let (writer, checksum) = writer.finish();
    writer.commit()?;
    sign(tree, path, checksum, side)
}

/// Signs a file that was just written with this digest, and gives it its side file.
fn sign(
    tree: &Tree,
    path: &TreePath,
    checksum: Sha256,
    side: &SideFile,
) -> anyhow::Result<FileEntry> {
    let signature = path.with_suffix(".asc")?;
    let len = tree.store().size(path)?.context("it was just written")?;
    let mut data = tree.store().open(path)?.context("it was just written")?;
    // What is signed is what was compressed, not what a failing disk made of it.
    let text = tree.signer().sign(&mut data)?;
    data.rewind()?;
    let read = *tree.signers().verify_reader(&mut data, text.as_bytes())?;
    if read != checksum {
        bail!("`{path}` reads back differently from what was written: check the disk");
    }
    tree.store().write(&signature, text.as_bytes())?;
    store_side(tree, path, side)?;
    Ok(entry(path, signature, checksum, len))
}

/// The entry of a file that is in the pool already, with a good signature and its side file.
pub fn stored(tree: &Published, path: &TreePath) -> anyhow::Result<Option<FileEntry>> {
    let signature = path.with_suffix(".asc")?;
    let (Some(size), Some(text)) = (
        tree.store().size(path)?,
        tree.store().read(&signature, MAX_SIGNATURE)?,
    ) else {
        return Ok(None);
    };
    if tree
        .store()
        .size(&side_path(path)?.with_suffix(".asc")?)?
        .is_none()
    {
        return Ok(None);
    }
    let Some(data) = tree.store().open(path)? else {
        return Ok(None);
    };
    // A bad signature or a cut file is made anew, not reported: a crash leaves either.
    let Ok(checksum) = tree.signers().verify_reader(data, &text) else {
        return Ok(None);
    };
    Ok(Some(entry(path, signature, *checksum, size)))
}

fn entry(path: &TreePath, signature: TreePath, checksum: Sha256, size: u64) -> FileEntry {
    FileEntry {
        order: 0,
        path: path.clone(),
        signature,
        checksum,
        size,
        extra: serde_json::Map::new(),
    }
}

fn store_side(tree: &Tree, path: &TreePath, side: &SideFile) -> anyhow::Result<()> {
    let (place, bytes) = (side_path(path)?, side.to_bytes());
    let signature = tree.signer().sign(io::Cursor::new(&bytes))?;
    tree.store().write(&place, &bytes)?;
    tree.store()
        .write(&place.with_suffix(".asc")?, signature.as_bytes())?;
    Ok(())
}

/// Unpacks a file of the tree into a scratch file, checked against its index entry.
pub fn unpack(tree: &Published, file: &FileEntry) -> anyhow::Result<File> {
    let data = tree.store().open(&file.path)?;
    let data = data.with_context(|| format!("`{}` is missing in the tree", file.path))?;
    let mut progress = Progress::new(
        shortened(&format!("unpacking {}", file.path.file_name()?)),
        file.size,
    );
    let mut data = Hashing::new(Watched {
        inner: data,
        progress: &mut progress,
    });
    let mut output = scratch(tree)?;
    let copied = io::copy(&mut decoder(&mut data)?, &mut output);
    // The decoder stops at the end of the last stream; what follows belongs to the digest too.
    let rest = io::copy(&mut data, &mut io::sink());
    let (_, checksum) = data.finish();
    progress.finish();
    if checksum != file.checksum {
        bail!(
            "`{}` has checksum {checksum}, its index says {}",
            file.path,
            file.checksum
        );
    }
    copied
        .and(rest)
        .with_context(|| format!("cannot unpack `{}`", file.path))?;
    Ok(output)
}

/// Stores a file that is compressed already, as it is, unless all of it is there already.
pub fn adopt(
    tree: &Tree,
    path: &TreePath,
    data: &mut File,
    side: &SideFile,
) -> anyhow::Result<FileEntry> {
    let _alone = tree.alone_with(path);
    if let Some(entry) = stored(tree, path)? {
        return Ok(entry);
    }
    data.seek(SeekFrom::Start(0))?;
    let mut writer = Hashing::new(tree.store().create(path)?);
    io::copy(data, &mut writer).with_context(|| format!("cannot write `{path}`"))?;
    let (writer, checksum) = writer.finish();
    writer.commit()?;
    sign(tree, path, checksum, side)
}

/// Plain LZMA2 with CRC64, on as many cores as there is something to share for and `memory`, in
/// bytes, allows (server spec, section 9). How many there are changes no byte.
fn encoder(level: u32, memory: u64, len: u64) -> anyhow::Result<Stream> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = if len < (1 << 20) { 1 } else { cores };
    let mut builder = MtStreamBuilder::new();
    builder.preset(level).check(Check::Crc64);
    let threads = threads(&mut builder, most, memory);
    let encoder = builder.threads(threads).encoder();
    encoder.context("cannot set up xz")
}

/// So many threads at `most` as `memory` suffices for, but one at least.
fn threads(builder: &mut MtStreamBuilder, most: usize, memory: u64) -> u32 {
    let most = u32::try_from(most).unwrap_or(1);
    let fits = |threads: &u32| builder.threads(*threads).memusage() <= memory;
    (2..=most).rev().find(fits).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_threads_compress_as_memory_suffices_for() {
        let mut builder = MtStreamBuilder::new();
        builder.preset(9).check(Check::Crc64);
        let mut with = |gigabytes: u64| threads(&mut builder, 8, gigabytes << 30);
        assert_eq!((with(0), with(1), with(2)), (1, 1, 1));
        assert_eq!(with(3), 2);
        assert_eq!((with(6), with(64)), (4, 8));
    }
}

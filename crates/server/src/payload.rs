//! One tarball on its way into the pool: canonical form, digest, compression, signature, side
//! file.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek};

use anyhow::{Context, bail};
use camino::Utf8Path;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Check, MtStreamBuilder, Stream};
use liblzma::write::XzEncoder;
use system_image_delta::Limits;
use system_image_delta_build::{Form, classify, normalise};
use system_image_formats::checksum::Sha256;
use system_image_formats::hash::Hashing;
use system_image_formats::index::FileEntry;
use system_image_formats::name::TreePath;
use system_image_formats::side::SideFile;
use system_image_report::Progress;

use crate::config::Config;
use crate::published::{MAX_SIGNATURE, Published, side_path};
use crate::tree::Tree;

const BUFFER: usize = 256 << 10;

/// Memory for unpacking a given `.tar.xz`: level 9 of `xz` needs 65 MiB.
const DECODER_MEMORY: u64 = 100 << 20;

/// The first bytes of every `.xz` file.
const XZ_MAGIC: [u8; 6] = *b"\xfd7zXZ\0";

/// A tarball in canonical form, uncompressed, in a file without a name.
#[derive(Debug)]
pub struct Payload {
    /// Name in the pool up to the hash.
    pub prefix: String,
    /// Digest of the uncompressed bytes: the hash in the pool's name.
    pub digest: Sha256,
    /// What the tarball's names said it is.
    pub form: Form,
    /// The bytes.
    pub tar: File,
}

impl Payload {
    /// Brings a `.tar` or `.tar.xz` into canonical form.
    pub fn prepare(tree: &Tree, input: &Utf8Path, form: Option<Form>) -> anyhow::Result<Self> {
        let unusable = || format!("cannot publish `{input}`");
        let source = uncompressed(tree, input).with_context(unusable)?;
        let form = match form {
            Some(form) => form,
            None => classify(rewound(&source)?, Limits::default()).with_context(unusable)?,
        };
        let len = source.metadata().with_context(unusable)?.len();
        let what = format!("reading {}", input.file_name().unwrap_or("input"));
        let mut progress = Progress::new(what, len);
        let source = Watched {
            inner: rewound(&source)?,
            progress: &mut progress,
        };
        let mut output = Hashing::new(BufWriter::with_capacity(BUFFER, scratch(tree)?));
        let normalised =
            normalise(source, form, Limits::default(), &mut output).with_context(unusable)?;
        progress.finish();
        if normalised.acls_dropped > 0 {
            eprintln!(
                "note: the ACLs of {} members of `{input}` are left out, no upgrader restores them",
                normalised.acls_dropped
            );
        }
        let (output, digest) = output.finish();
        let tar = output
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok(Self {
            prefix: prefix(input, form),
            digest,
            form,
            tar,
        })
    }

    /// The payload's place in the pool.
    pub fn path(&self) -> anyhow::Result<TreePath> {
        Ok(format!("/pool/{}-{}.tar.xz", self.prefix, self.digest).parse()?)
    }
}

/// A prefix that names of the pool may begin with, from the input's name: the same for the same
/// kind of file in each image, as it pairs a file with its predecessor (server spec, section 7).
fn prefix(input: &Utf8Path, form: Form) -> String {
    if form == Form::Rootfs {
        return "rootfs".into();
    }
    let name = input.file_name().unwrap_or_default();
    let stem = name.strip_suffix(".xz").unwrap_or(name);
    let stem = stem.strip_suffix(".tar").unwrap_or(stem);
    // A file from another pool has its hash there already.
    let stem = match stem.rsplit_once('-') {
        Some((prefix, hash)) if hash.parse::<Sha256>().is_ok() => prefix,
        _ => stem,
    };
    let plain: String = stem
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+'))
        .collect();
    let plain = plain.trim_matches(['.', '-']);
    if plain.is_empty() {
        "payload".into()
    } else {
        plain.into()
    }
}

/// Compresses, signs and stores a tarball with its side file, unless all of it is there already.
pub fn store(
    tree: &Tree,
    path: &TreePath,
    tar: &File,
    side: &SideFile,
) -> anyhow::Result<FileEntry> {
    if let Some(entry) = stored(tree, path)? {
        return Ok(entry);
    }
    let len = tar.metadata()?.len();
    let what = format!("compressing {}", path.file_name()?);
    let mut progress = Progress::new(shortened(&what), len);
    let mut writer = Hashing::new(tree.store().create(path)?);
    let mut encoder = XzEncoder::new_stream(&mut writer, encoder(tree.config(), len)?);
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
    let signature = path.with_suffix(".asc")?;
    let len = tree.store().size(path)?.context("it was just written")?;
    let data = tree.store().open(path)?.context("it was just written")?;
    // What is signed is what was compressed, not what a failing disk made of it.
    let (text, read) = sign_and_hash(tree, data)?;
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
    let signature = tree.signer().sign(&bytes[..])?;
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

/// The input as an uncompressed file, told by its first bytes.
fn uncompressed(tree: &Tree, input: &Utf8Path) -> anyhow::Result<File> {
    let mut file = File::open(input)?;
    let mut magic = [0; XZ_MAGIC.len()];
    let read = file.read(&mut magic)?;
    file.rewind()?;
    if magic[..read] != XZ_MAGIC {
        return Ok(file);
    }
    let len = file.metadata()?.len();
    let what = format!("unpacking {}", input.file_name().unwrap_or("input"));
    let mut progress = Progress::new(shortened(&what), len);
    let mut output = scratch(tree)?;
    let source = Watched {
        inner: file,
        progress: &mut progress,
    };
    io::copy(&mut decoder(source)?, &mut output).context("it is a damaged .xz file")?;
    progress.finish();
    Ok(output)
}

fn decoder<R: Read>(data: R) -> anyhow::Result<XzDecoder<BufReader<R>>> {
    let stream = Stream::new_stream_decoder(DECODER_MEMORY, CONCATENATED)?;
    Ok(XzDecoder::new_stream(
        BufReader::with_capacity(BUFFER, data),
        stream,
    ))
}

/// Plain LZMA2 with CRC64, on as many cores as there is something to share for and memory allows
/// (server spec, section 9). How many there are changes no byte.
fn encoder(config: &Config, len: u64) -> anyhow::Result<Stream> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = if len < (1 << 20) { 1 } else { cores };
    let mut builder = MtStreamBuilder::new();
    builder.preset(config.compression_level).check(Check::Crc64);
    let share = config.memory / config.jobs.max(1) as u64;
    let threads = (1..=u32::try_from(most).unwrap_or(1))
        .rev()
        .find(|threads| *threads == 1 || builder.threads(*threads).memusage() <= share);
    builder
        .threads(threads.unwrap_or(1))
        .encoder()
        .context("cannot set up xz")
}

fn sign_and_hash(tree: &Tree, data: impl Read) -> anyhow::Result<(String, Sha256)> {
    let mut data = Hashing::new(data);
    let text = tree.signer().sign(&mut data)?;
    Ok((text, data.finish().1))
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
fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Counts what is read.
struct Watched<'a, R> {
    inner: R,
    progress: &'a mut Progress,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.progress.add(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_same_for_each_image_of_a_file() {
        let of = |name: &str| prefix(Utf8Path::new(name), Form::Payload);
        assert_eq!(of("in/device.tar.xz"), "device");
        assert_eq!(of("custom-vendor.tar"), "custom-vendor");
        assert_eq!(of(&format!("device-{}.tar.xz", "0a".repeat(32))), "device");
        assert_eq!(of("ein name.tar"), "einname");
        assert_eq!(of(".tar"), "payload");
        assert_eq!(prefix(Utf8Path::new("v1.tar"), Form::Rootfs), "rootfs");
    }
}

//! A tree as a large service has it: 50 channels, 100 devices in each, 30 images for each.
//!
//! Everything in it is real: tarballs, deltas, signatures, side files, indexes. Root file systems are
//! shared by the devices of a channel, device files by the channels of a device, and payloads have a
//! few kilobytes, so that what is measured is the tree and not its payloads. It is written without
//! syncing, which is what takes a server the time.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Seek, Write as _};
use std::os::unix::fs::symlink;
use std::thread;

use anyhow::{Context, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use liblzma::write::XzEncoder;
use serde_json::Map;
use system_image_delta::{Header, Kind};
use system_image_delta_build::{Options, Writer, delta};
use system_image_formats::channels::{Channel, Channels, DeviceEntry};
use system_image_formats::checksum::Sha256;
use system_image_formats::detail::VersionDetail;
use system_image_formats::hash::Hashing;
use system_image_formats::index::{FileEntry, Image, ImageKind, Index};
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::side::SideFile;
use system_image_formats::time::GeneratedAt;
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_trust::SecretKey;

pub(crate) const CHANNELS: u32 = 50;
pub(crate) const DEVICES: u32 = 100;

/// Versions of a device: each has a full image and a delta from the version before, so 30 images.
const VERSIONS: u32 = 15;

/// The first version that is still there.
const FIRST: u32 = 101;

/// Files in each payload, of which one changes with each version.
const MEMBERS: u32 = 8;

/// What plants a tree.
pub(crate) struct Planter {
    /// The server's image-signing key.
    pub(crate) key: SecretKey,
    /// Where the tree is.
    pub(crate) www: Utf8PathBuf,
    /// The clock, in Unix seconds.
    pub(crate) now: i64,
}

/// A payload in the pool and the delta that leads to it.
struct Payload {
    full: FileEntry,
    delta: FileEntry,
}

/// The four files of a version file, but for their place.
struct VersionFile {
    packed: Vec<u8>,
    checksum: Sha256,
    signature: String,
    side: Vec<u8>,
    side_signature: String,
}

pub(crate) fn channel(number: u32) -> anyhow::Result<ChannelName> {
    Ok(format!("24.04/channel-{number:02}").parse()?)
}

pub(crate) fn device(number: u32) -> anyhow::Result<DeviceName> {
    Ok(format!("device-{number:03}").parse()?)
}

impl Planter {
    /// Writes the tree, in place of the channels that are there.
    pub(crate) fn plant(&self) -> anyhow::Result<()> {
        fs::create_dir_all(self.www.join("pool"))?;
        let channels: Vec<_> = (0..CHANNELS).collect();
        let devices: Vec<_> = (0..DEVICES).collect();
        let rootfs = on_all_cores(&channels, |n| {
            self.timeline("rootfs", &format!("rootfs {n}"))
        })?;
        let device = on_all_cores(&devices, |n| {
            self.timeline("device", &format!("device {n}"))
        })?;
        let planted = on_all_cores(&channels, |n| {
            let name = channel(*n)?;
            let entry = self.channel(&name, &rootfs[*n as usize], &device)?;
            Ok((name, entry))
        })?;
        let channels = Channels(planted.into_iter().collect());
        self.document("channels.json".into(), &channels.to_bytes())
    }

    /// The versions of one kind of payload, each with a delta from the one before; the first one's
    /// comes from a version that has expired.
    fn timeline(&self, prefix: &str, seed: &str) -> anyhow::Result<Vec<Payload>> {
        let mut before = tarball(prefix, seed, FIRST - 1)?;
        let mut payloads = Vec::new();
        for version in FIRST..FIRST + VERSIONS {
            let now = tarball(prefix, seed, version)?;
            let mut difference = tempfile::tempfile()?;
            delta(&before.tar, &now.tar, Options::default(), &mut difference)?;
            difference.rewind()?;
            let name = format!("{prefix}-{}", now.digest);
            let name_before = format!("{prefix}-{}", before.digest);
            payloads.push(Payload {
                full: self.pooled(&name, &now.tar)?,
                delta: self.pooled(&format!("{name}.delta-{name_before}"), &difference)?,
            });
            before = now;
        }
        Ok(payloads)
    }

    /// Compresses a tarball into the pool, with its signature and its side file.
    fn pooled(&self, name: &str, tar: &File) -> anyhow::Result<FileEntry> {
        let (packed, checksum) = compressed(tar)?;
        let side = SideFile::new("publish", format!("sha256={checksum}").parse()?).to_bytes();
        let place = format!("pool/{name}");
        self.signed(&format!("{place}.tar.xz"), &packed)?;
        self.signed(&format!("{place}.json"), &side)?;
        entry(&format!("/{place}.tar.xz"), checksum, packed.len())
    }

    fn channel(
        &self,
        name: &ChannelName,
        rootfs: &[Payload],
        devices: &[Vec<Payload>],
    ) -> anyhow::Result<Channel> {
        // Devices of a channel share the bytes: they need not be told apart here.
        let versions = (FIRST..FIRST + VERSIONS).map(|version| self.version_file(version));
        let versions = versions.collect::<anyhow::Result<Vec<_>>>()?;
        let mut channel = Channel::default();
        for (number, payloads) in (0..).zip(devices) {
            let device = device(number)?;
            let directory = format!("{name}/{device}");
            fs::create_dir_all(self.www.join(&directory))?;
            let mut index = Index::empty(GeneratedAt::from_unix(self.now));
            for (at, version) in (FIRST..).take(versions.len()).enumerate() {
                let place = format!("{directory}/version-{version}");
                let version_file = self.place(&place, &versions[at])?;
                let files = |rootfs: &FileEntry, payload: &FileEntry| {
                    [rootfs.clone(), payload.clone(), version_file.clone()]
                };
                let fulls = files(&rootfs[at].full, &payloads[at].full);
                let deltas = files(&rootfs[at].delta, &payloads[at].delta);
                let base = ImageVersion::new(version - 1);
                index.push(image(version, ImageKind::FULL, fulls)?);
                index.push(image(version, ImageKind::Delta { base }, deltas)?);
            }
            let path = format!("{directory}/index.json");
            self.document(Utf8Path::new(&path), &index.to_bytes())?;
            channel.devices.insert(
                device,
                DeviceEntry {
                    index: format!("/{path}").parse()?,
                    keyring: None,
                    redirect: None,
                    extra: Map::new(),
                },
            );
        }
        Ok(channel)
    }

    fn version_file(&self, version: u32) -> anyhow::Result<VersionFile> {
        let tar = tarball("version", "ubuntu-build", version)?.tar;
        let (packed, checksum) = compressed(&tar)?;
        let detail = VersionDetail::from(format!("version={version}"));
        let side = SideFile::new("version", detail).to_bytes();
        Ok(VersionFile {
            signature: self.key.sign(&packed[..], self.now)?,
            side_signature: self.key.sign(&side[..], self.now)?,
            packed,
            checksum,
            side,
        })
    }

    fn place(&self, place: &str, file: &VersionFile) -> anyhow::Result<FileEntry> {
        let files: [(&str, &[u8]); 4] = [
            ("tar.xz", &file.packed),
            ("tar.xz.asc", file.signature.as_bytes()),
            ("json", &file.side),
            ("json.asc", file.side_signature.as_bytes()),
        ];
        for (suffix, bytes) in files {
            fs::write(self.www.join(format!("{place}.{suffix}")), bytes)?;
        }
        let path = format!("/{place}.tar.xz");
        entry(&path, file.checksum, file.packed.len())
    }

    /// Writes a file and its signature.
    fn signed(&self, relative: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let place = self.www.join(relative);
        fs::write(format!("{place}.asc"), self.key.sign(bytes, self.now)?)?;
        Ok(fs::write(place, bytes)?)
    }

    /// Writes a document as a store does, as links to a version of the pair; in the place of the
    /// one that is there.
    fn document(&self, relative: &Utf8Path, bytes: &[u8]) -> anyhow::Result<()> {
        let place = self.www.join(relative);
        let name = place.file_name().context("a document has a name")?;
        let directory = place.with_file_name(format!(".{name}"));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("1"))?;
        symlink("1", directory.join("now"))?;
        let signature = self.key.sign(bytes, self.now)?;
        for (suffix, bytes) in [("", bytes), (".asc", signature.as_bytes())] {
            fs::write(directory.join(format!("1/{name}{suffix}")), bytes)?;
            let link = format!("{place}{suffix}");
            let _ = fs::remove_file(&link);
            symlink(format!(".{name}/now/{name}{suffix}"), link)?;
        }
        Ok(())
    }
}

/// An uncompressed tarball and its digest.
struct Tarball {
    tar: File,
    digest: Sha256,
}

/// A small payload, of which each version changes one file.
fn tarball(prefix: &str, seed: &str, version: u32) -> anyhow::Result<Tarball> {
    let mut writer = Writer::new(Hashing::new(tempfile::tempfile()?));
    for member in 0..MEMBERS {
        // The last version that changed this file.
        let changed = version - (version + member) % MEMBERS;
        let mut content = String::new();
        for line in 0..8 {
            writeln!(
                content,
                "{seed}, file {member} of version {changed}, line {line}"
            )?;
        }
        let header = Header::of_root(
            format!("system/{prefix}-{member}").into_bytes(),
            Kind::File {
                size: content.len() as u64,
            },
            0o644,
            i64::from(changed),
        );
        writer.member(&header, &mut content.as_bytes())?;
    }
    let (mut tar, digest) = writer.finish()?.0.finish();
    tar.rewind()?;
    Ok(Tarball { tar, digest })
}

/// A tarball compressed in a hurry, and the digest of that.
fn compressed(mut tar: &File) -> anyhow::Result<(Vec<u8>, Sha256)> {
    tar.rewind()?;
    let mut encoder = XzEncoder::new(Hashing::new(Vec::new()), 0);
    std::io::copy(&mut tar, &mut encoder)?;
    let mut output = encoder.finish()?;
    output.flush()?;
    Ok(output.finish())
}

fn entry(path: &str, checksum: Sha256, size: usize) -> anyhow::Result<FileEntry> {
    let path: TreePath = path.parse()?;
    Ok(FileEntry {
        order: 0,
        signature: path.with_suffix(".asc")?,
        path,
        checksum,
        size: size as u64,
        extra: Map::new(),
    })
}

fn image(version: u32, kind: ImageKind, files: [FileEntry; 3]) -> anyhow::Result<Image> {
    let description = format!("tag=build-{version},device=20260101,version={version}");
    Ok(Image {
        kind,
        version: ImageVersion::new(version),
        version_detail: description.parse()?,
        description: Some(description),
        files: (0..)
            .zip(files)
            .map(|(order, file)| FileEntry { order, ..file })
            .collect(),
        bootme: false,
        phased: Percentage::ALL,
        extra: Map::new(),
    })
}

/// Does the same with each item, a share of them on each core; the results come in order.
fn on_all_cores<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let work = &work;
        let shares = items.chunks(items.len().div_ceil(cores).max(1));
        let workers: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(work).collect::<Result<Vec<_>, _>>()))
            .collect();
        let mut results = Vec::new();
        for worker in workers {
            let done = worker.join().map_err(|_| anyhow!("a worker panicked"))?;
            results.extend(done?);
        }
        Ok(results)
    })
}

//! Publishing: tarballs become an image, full and as deltas, visible in one step.

use std::io::Cursor;

use anyhow::{Context, anyhow, bail};
use camino::Utf8PathBuf;
use system_image_delta_build::{Form, Options, Removal, delta};
use system_image_formats::channel_ini::ChannelIni;
use system_image_formats::channels::DeviceEntry;
use system_image_formats::checksum::Sha256;
use system_image_formats::detail::VersionDetail;
use system_image_formats::index::{FileEntry, Image, ImageKind, Index};
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::side::SideFile;
use system_image_formats::time::GeneratedAt;
use system_image_formats::version::{ImageVersion, Percentage};

use crate::overlap::{self, Names};
use crate::payload::{self, Payload, is_always_whole};
use crate::tree::Tree;
use crate::version_file;

/// What to publish.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where.
    pub channel: ChannelName,
    /// For which device.
    pub device: DeviceName,
    /// The tarballs in the order in which a device applies them.
    pub files: Vec<Utf8PathBuf>,
    /// What the tarballs hold; told from their names when not given.
    pub form: Option<Form>,
    /// The image's number; one more than the newest when not given.
    pub version: Option<ImageVersion>,
    /// Versions that deltas lead from; the newest one when empty.
    pub bases: Vec<ImageVersion>,
    /// The share of the devices that may have it now.
    pub phased: Percentage,
    /// What the image is made of, without `version=`.
    pub detail: VersionDetail,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The image's number.
    pub version: ImageVersion,
    /// Whether there is a new image; otherwise the newest one has these files already.
    pub is_new: bool,
    /// Bytes of the full image.
    pub full: u64,
    /// Bytes of each delta image by its base.
    pub deltas: Vec<(ImageVersion, u64)>,
    /// Deltas that could not be made, and why.
    pub refused: Vec<(ImageVersion, String)>,
}

/// Publishes an image. A crash at any moment leaves the index as it was; running it again gives
/// what the first run would have given.
pub fn publish(tree: &Tree, request: &Request) -> anyhow::Result<Published> {
    let entry = tree.device(&request.channel, &request.device)?;
    let mut index = tree
        .index(&entry)?
        .unwrap_or_else(|| Index::empty(GeneratedAt::from_unix(tree.signer().now())));
    let version = version_to_publish(&index, request)?;
    let bases = bases(&index, request, version)?;
    if request.files.is_empty() {
        bail!("an image has at least one file");
    }

    let payloads = request
        .files
        .iter()
        .map(|file| Payload::prepare(tree, file, request.form))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let paths = payloads
        .iter()
        .map(Payload::path)
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(unchanged) = unchanged(&index, &paths, request) {
        return Ok(unchanged);
    }
    distinct_names(&paths)?;

    let mut detail = request.detail.clone();
    detail.push("version", &version.to_string())?;
    let side = |digest: &Sha256| {
        let mut detail = VersionDetail::default();
        detail
            .push("sha256", &digest.to_string())
            .expect("a digest is hexadecimal");
        SideFile::new("publish", detail)
    };
    let mut full = Vec::new();
    for (payload, path) in payloads.iter().zip(&paths) {
        full.push(payload::store(
            tree,
            path,
            &payload.tar,
            &side(&payload.digest),
        )?);
    }
    let version_file = store_version_file(tree, &entry, request, version, &detail)?;
    full.push(version_file.clone());

    let mut published = Published {
        version,
        is_new: true,
        full: full.iter().map(|file| file.size).sum(),
        deltas: Vec::new(),
        refused: Vec::new(),
    };
    let image = |kind, files: Vec<FileEntry>| Image {
        kind,
        version,
        description: Some(detail.to_string()),
        version_detail: detail.clone(),
        files: (0..)
            .zip(files)
            .map(|(order, file)| FileEntry { order, ..file })
            .collect(),
        bootme: false,
        phased: request.phased,
        extra: serde_json::Map::new(),
    };
    index.push(image(ImageKind::FULL, full.clone()));
    for base in bases {
        match delta_files(tree, &index, base, &payloads, &full)? {
            Ok(mut files) => {
                files.push(version_file.clone());
                published
                    .deltas
                    .push((base, files.iter().map(|file| file.size).sum()));
                index.push(image(ImageKind::Delta { base }, files));
            }
            Err(why) => published.refused.push((base, why)),
        }
    }
    tree.save_index(&entry, index)?;
    Ok(published)
}

fn version_to_publish(index: &Index, request: &Request) -> anyhow::Result<ImageVersion> {
    let newest = index.newest().unwrap_or(ImageVersion::NONE);
    let version = match request.version {
        Some(version) if version <= newest => {
            bail!("version {version} is not above the newest one, {newest}")
        }
        Some(version) => version,
        None => newest.next().context("the highest version is used up")?,
    };
    if !version.is_classic() {
        bail!(
            "version {version} is above {}, which clients in the field cannot read",
            ImageVersion::MAX_CLASSIC
        );
    }
    Ok(version)
}

fn bases(
    index: &Index,
    request: &Request,
    version: ImageVersion,
) -> anyhow::Result<Vec<ImageVersion>> {
    if request.bases.is_empty() {
        let fulls = index.images.iter().filter(|image| image.is_full());
        return Ok(fulls.map(|image| image.version).max().into_iter().collect());
    }
    let mut bases = request.bases.clone();
    bases.sort_unstable();
    bases.dedup();
    for base in &bases {
        if *base >= version || index.full(*base).is_none() {
            let known: Vec<_> = index
                .images
                .iter()
                .filter(|image| image.is_full())
                .map(|image| image.version.to_string())
                .collect();
            bail!(
                "there is no full image {base} for a delta; there are {}",
                known.join(", ")
            );
        }
    }
    Ok(bases)
}

/// The newest image, if it has exactly these files.
fn unchanged(index: &Index, paths: &[TreePath], request: &Request) -> Option<Published> {
    let newest = index.full(index.newest()?)?;
    let (_version_file, files) = newest.files.split_last()?;
    let same = files.iter().map(|file| &file.path).eq(paths) && request.version.is_none();
    same.then(|| Published {
        version: newest.version,
        is_new: false,
        full: newest.size(),
        deltas: Vec::new(),
        refused: Vec::new(),
    })
}

/// Devices keep all files of an update in one directory.
fn distinct_names(paths: &[TreePath]) -> anyhow::Result<()> {
    for (at, path) in paths.iter().enumerate() {
        if paths[..at].contains(path) {
            bail!("two files of the image have the same content: `{path}`");
        }
    }
    Ok(())
}

fn store_version_file(
    tree: &Tree,
    entry: &DeviceEntry,
    request: &Request,
    version: ImageVersion,
    detail: &VersionDetail,
) -> anyhow::Result<FileEntry> {
    let config = tree.config();
    let ini = ChannelIni {
        base: config.public_fqdn.clone(),
        http_port: config.http_port,
        https_port: config.https_port,
        channel: request.channel.clone(),
        device: request.device.clone(),
        build_number: version,
        channel_target: None,
        version_detail: detail.clone(),
    };
    let index = entry.index.as_str();
    let directory = index.strip_suffix("/index.json");
    let directory = directory.with_context(|| format!("`{index}` is in no directory"))?;
    let path: TreePath = format!("{directory}/version-{version}.tar.xz").parse()?;
    // One that no index names is left over from a run that did not end, or from another server.
    tree.store().remove(&path.with_suffix(".asc")?)?;
    let tarball = version_file::tarball(&ini, tree.signer().now());
    let mut tar = payload::scratch(tree)?;
    std::io::copy(&mut Cursor::new(tarball), &mut tar)?;
    payload::store(tree, &path, &tar, &SideFile::version(&ini))
}

/// The files of the delta image from `base`, version file left out, or why there can be none.
fn delta_files(
    tree: &Tree,
    index: &Index,
    base: ImageVersion,
    payloads: &[Payload],
    full: &[FileEntry],
) -> anyhow::Result<Result<Vec<FileEntry>, String>> {
    let image = index
        .full(base)
        .ok_or_else(|| anyhow!("there is no full image {base}"))?;
    let mut old: Vec<_> = image
        .files
        .iter()
        .filter(|file| prefix_of(&file.path) != "version")
        .collect();
    old.sort_by_key(|file| file.order);
    let pairs = match pair(&old, payloads) {
        Ok(pairs) => pairs,
        Err(why) => return Ok(Err(why)),
    };
    let names = match payloads {
        [_] => Vec::new(),
        several => several
            .iter()
            .map(|payload| Names::of(&payload.tar))
            .collect::<anyhow::Result<_>>()?,
    };
    let mut files = Vec::new();
    for (at, (payload, new)) in payloads.iter().zip(full).enumerate() {
        let Some(old) = pairs[at] else {
            files.push(new.clone());
            continue;
        };
        let always = is_always_whole(&payload.prefix);
        if old.path == new.path && !always {
            continue;
        }
        if always {
            files.push(new.clone());
            continue;
        }
        match delta_file(tree, old, new, at, payload, &names)? {
            Ok(file) => files.push(file),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(files))
}

/// Finds the predecessor of each file: the one with the same prefix, else, where both images have
/// the same number of files, the one in the same place.
fn pair<'a>(old: &[&'a FileEntry], new: &[Payload]) -> Result<Vec<Option<&'a FileEntry>>, String> {
    let mut left = old.to_vec();
    let mut take = |fits: &dyn Fn(&FileEntry) -> bool| {
        let at = left.iter().position(|file| fits(file))?;
        Some(left.remove(at))
    };
    let mut pairs: Vec<_> = new
        .iter()
        .map(|payload| take(&|file| prefix_of(&file.path) == payload.prefix))
        .collect();
    if old.len() == new.len() {
        for (at, pair) in pairs
            .iter_mut()
            .enumerate()
            .filter(|(_, pair)| pair.is_none())
        {
            *pair = take(&|file| file.path == old[at].path);
        }
    }
    match left.first() {
        None => Ok(pairs),
        Some(gone) => Err(format!(
            "`{}` has no successor, so its files would stay",
            gone.path
        )),
    }
}

/// A file's name up to the last `-` (server spec, section 7).
fn prefix_of(path: &TreePath) -> &str {
    let name = path.relative().rsplit('/').next().unwrap_or_default();
    name.rsplit_once('-').map_or(name, |(prefix, _)| prefix)
}

fn delta_file(
    tree: &Tree,
    old: &FileEntry,
    new: &FileEntry,
    at: usize,
    payload: &Payload,
    names: &[Names],
) -> anyhow::Result<Result<FileEntry, String>> {
    let base = payload::unpack(tree, old)?;
    let mut output = payload::scratch(tree)?;
    // A file laid over others must leave their directories alone.
    let removal = if at == 0 {
        Removal::Trees
    } else {
        Removal::Names
    };
    let options = Options {
        removal,
        ..Options::default()
    };
    let summary = match delta(&base, &payload.tar, options, &mut output) {
        Ok(summary) => summary,
        Err(error) => return Ok(Err(format!("{:#}", anyhow!(error)))),
    };
    if let Some(name) = summary.misread.first() {
        eprintln!(
            "note: old recoveries misread {} names to remove, the first is `{name}`",
            summary.misread.len()
        );
    }
    if let Some(name) = overlap::conflict(&output, at, names)? {
        return Ok(Err(format!(
            "`{name}` is in more than one file of the image"
        )));
    }
    let stem = |path: &TreePath| -> anyhow::Result<String> {
        let name = path.file_name()?;
        Ok(name
            .as_str()
            .strip_suffix(".tar.xz")
            .unwrap_or(name.as_str())
            .to_owned())
    };
    let path: TreePath = format!(
        "/pool/{}.delta-{}.tar.xz",
        stem(&new.path)?,
        stem(&old.path)?
    )
    .parse()?;
    let (source, target) = (
        payload::side(tree, &old.path)?,
        payload::side(tree, &new.path)?,
    );
    let side = SideFile::delta(source.as_ref(), target.as_ref());
    payload::store(tree, &path, &output, &side).map(Ok)
}

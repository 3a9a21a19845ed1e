//! An image in the making: parts in the pool become a full image and deltas, visible in one step.

use anyhow::bail;
use serde_json::Map;
use system_image_formats::channels::DeviceEntry;
use system_image_formats::detail::VersionDetail;
use system_image_formats::index::{FileEntry, Image, ImageKind, Index};
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::time::GeneratedAt;
use system_image_formats::version::{ImageVersion, Percentage};

use crate::delta_files::delta_files;
use crate::part::Part;
use crate::tree::Tree;
use crate::version_file::{self, Identity};

/// What an image is to be.
#[derive(Debug)]
pub struct Draft<'a> {
    /// Where it goes.
    pub channel: &'a ChannelName,
    /// Whose it is.
    pub device: &'a DeviceName,
    /// Its number.
    pub version: ImageVersion,
    /// Its files in order, the version file left out.
    pub parts: Vec<Part>,
    /// What it is made of, without `version=`.
    pub detail: VersionDetail,
    /// The share of the devices that may have it.
    pub phased: Percentage,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The image's number.
    pub version: ImageVersion,
    /// Bytes of the full image.
    pub full: u64,
    /// Each delta image.
    pub deltas: Vec<MadeDelta>,
    /// Deltas that could not be made, and why.
    pub refused: Vec<(ImageVersion, String)>,
}

/// A delta image that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeDelta {
    /// Where it starts.
    pub base: ImageVersion,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes where patches are applied, if there are some.
    pub patched: Option<u64>,
}

/// The index of a device, or an empty one.
pub fn index_of(tree: &Tree, entry: &DeviceEntry) -> anyhow::Result<Index> {
    let index = tree.index(entry)?;
    Ok(index.unwrap_or_else(|| Index::empty(GeneratedAt::from_unix(tree.now()))))
}

/// The number of the next image: one more than the newest, the channel's first one if there is
/// none, or the one that was `asked` for.
pub fn next_version(
    tree: &Tree,
    channel: &ChannelName,
    index: &Index,
    asked: Option<ImageVersion>,
) -> anyhow::Result<ImageVersion> {
    let newest = index.newest();
    let version = match (asked, newest) {
        (Some(version), Some(newest)) if version <= newest => {
            bail!("version {version} is not above the newest one, {newest}")
        }
        (Some(version), _) => version,
        (None, None) => tree.config().channel(channel).versionbase,
        (None, Some(newest)) => ImageVersion::new(newest.get().saturating_add(1)),
    };
    if version == ImageVersion::NONE {
        bail!("version 0 stands for a device without an image");
    }
    if !version.is_classic() {
        bail!(
            "version {version} is above {}, which clients in the field cannot read",
            ImageVersion::MAX_CLASSIC
        );
    }
    Ok(version)
}

/// Adds the image to `index`, which is as the tree shows it: in full, and as deltas from `bases`.
/// Its files are in the store afterwards; the index is not yet published.
pub fn add(
    tree: &Tree,
    entry: &DeviceEntry,
    index: &mut Index,
    draft: &Draft<'_>,
    bases: &[Image],
) -> anyhow::Result<Made> {
    distinct(&draft.parts)?;
    let version = draft.version;
    let mut detail = draft.detail.without("version");
    detail.push("version", &version.to_string())?;
    let identity = Identity {
        channel: draft.channel,
        target: None,
        device: draft.device,
        version,
        detail: &detail,
    };
    let version_file = version_file::store(tree, entry, index, identity)?;
    let image = |kind, mut files: Vec<FileEntry>| {
        files.push(version_file.clone());
        Image {
            kind,
            version,
            description: Some(detail.to_string()),
            version_detail: detail.clone(),
            files: (0..)
                .zip(files)
                .map(|(order, file)| FileEntry { order, ..file })
                .collect(),
            bootme: false,
            phased: draft.phased,
            extra: Map::new(),
        }
    };
    let files = draft.parts.iter().map(|part| part.entry.clone()).collect();
    let full = image(ImageKind::FULL, files);
    let mut made = Made {
        version,
        full: full.size(),
        deltas: Vec::new(),
        refused: Vec::new(),
    };
    index.push(full);
    let patch_memory = tree.config().channel(draft.channel).patch_memory;
    for base in bases {
        match delta_files(tree, base, &draft.parts, patch_memory)? {
            Ok(files) => {
                let base = base.version;
                let delta = image(ImageKind::Delta { base }, files);
                made.deltas.push(MadeDelta {
                    base,
                    bytes: delta.size(),
                    patched: delta.patched().map(|(image, _)| image.size()),
                });
                index.push(delta);
            }
            Err(why) => made.refused.push((base.version, why)),
        }
    }
    Ok(made)
}

/// Devices keep all files of an update in one directory.
fn distinct(parts: &[Part]) -> anyhow::Result<()> {
    if parts.is_empty() {
        bail!("an image has at least one file");
    }
    for (at, part) in parts.iter().enumerate() {
        let name = part.entry.path.file_name()?;
        for earlier in &parts[..at] {
            if earlier.entry.path == part.entry.path {
                bail!(
                    "two files of the image have the same content: `{}`",
                    part.entry.path
                );
            }
            if earlier.entry.path.file_name()? == name {
                bail!("two files of the image are called `{name}`");
            }
        }
    }
    Ok(())
}

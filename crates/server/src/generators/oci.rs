//! `oci`: an image layout of the Open Container Initiative on the disk, its layers flattened.
//!
//! Two passes over the layers: the first, from the top, finds which layer has each name's last word,
//! the second, from the bottom, writes those members. Whiteouts (`.wh.…`) say what is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;

use anyhow::{Context, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use system_image_delta::{Kind, Limits, MemberPath, Reader};
use system_image_delta_build::{Edits, Form, Writer};
use system_image_formats::checksum::Sha256;
use system_image_formats::hash::Hasher;

use super::archive::short;
use super::{Job, Produced, item, known, pool_path, store};
use crate::input::{self, rewound, scratch};
use crate::payload::canonical;

/// Largest manifest or index, in bytes.
const MAX_DOCUMENT: usize = 4 << 20;

/// The beginning of a name that says that another one is gone.
const WHITEOUT: &[u8] = b".wh.";

/// The name that says that all of a directory's older content is gone.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A reference to a blob.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Manifests {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

pub(super) fn produce(
    job: Job<'_>,
    path: &Utf8Path,
    reference: Option<&str>,
    name: Option<&str>,
) -> anyhow::Result<Produced> {
    let layout = job.tree.root().path(path);
    if !layout.join("index.json").exists() {
        return Ok(Produced::NotYet(format!(
            "there is no OCI layout in `{layout}`"
        )));
    }
    let (manifest, digest) = manifest(&layout, reference)?;
    let prefix = name.unwrap_or("rootfs");
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        ensure!(
            !layer.media_type.ends_with("zstd"),
            "layer `{}` is compressed by zstd; only gzip and plain layers are read",
            layer.digest
        );
        layers.push(unpacked(job, &layout, layer)?);
    }
    let flat = flatten(job, &layers)?;
    let made = canonical(job.tree, rewound(&flat)?, Form::Rootfs, &Edits::default());
    let (tar, content) = made.with_context(|| format!("`{layout}` cannot be published"))?;
    let path = pool_path(prefix, &content)?;
    if let Some(found) = known(job.tree, &path)? {
        return Ok(found);
    }
    let detail = item(prefix, &short(&content.to_string()))?;
    let more = [
        ("path", layout.as_str().into()),
        ("manifest", digest.to_string().into()),
    ];
    store(job.tree, &path, tar, "oci", detail, &more)
}

/// The image's manifest; the reference may be left out where there is one image only.
fn manifest(layout: &Utf8Path, reference: Option<&str>) -> anyhow::Result<(Manifest, Sha256)> {
    let place = layout.join("index.json");
    let bytes = system_image_durable::read(&place, MAX_DOCUMENT)
        .with_context(|| format!("cannot read `{place}`"))?
        .unwrap_or_default();
    let mut found: Manifests =
        serde_json::from_slice(&bytes).with_context(|| format!("`{place}` cannot be used"))?;
    let named = |descriptor: &Descriptor| {
        let name = descriptor
            .annotations
            .get("org.opencontainers.image.ref.name");
        reference.is_none() || name.map(String::as_str) == reference
    };
    loop {
        let mut fitting = found.manifests.iter().filter(|one| named(one));
        let Some(one) = fitting.next().or_else(|| {
            // The images behind a nested index carry no name of their own.
            found
                .manifests
                .first()
                .filter(|_| found.manifests.len() == 1)
        }) else {
            bail!(
                "`{layout}` has no image `{}`",
                reference.unwrap_or_default()
            );
        };
        ensure!(
            fitting.next().is_none() || reference.is_some(),
            "`{layout}` has several images; name one by `ref=…`"
        );
        let (bytes, digest) = blob(layout, &one.digest)?;
        if one.media_type.contains("index") || one.media_type.contains("manifest.list") {
            found = serde_json::from_slice(&bytes)
                .with_context(|| format!("blob `{}` is no index", one.digest))?;
            continue;
        }
        let manifest = serde_json::from_slice(&bytes)
            .with_context(|| format!("blob `{}` is no manifest", one.digest))?;
        return Ok((manifest, digest));
    }
}

/// Where a blob is, and its digest.
fn blob_place(layout: &Utf8Path, digest: &str) -> anyhow::Result<(Utf8PathBuf, Sha256)> {
    let hex = digest.strip_prefix("sha256:");
    let sum: Option<Sha256> = hex.and_then(|hex| hex.parse().ok());
    let sum = sum.with_context(|| format!("`{digest}` is no SHA-256 digest"))?;
    Ok((layout.join(format!("blobs/sha256/{sum}")), sum))
}

/// A small blob, if it is what its name says.
fn blob(layout: &Utf8Path, digest: &str) -> anyhow::Result<(Vec<u8>, Sha256)> {
    let (place, want) = blob_place(layout, digest)?;
    let bytes = system_image_durable::read(&place, MAX_DOCUMENT)
        .with_context(|| format!("cannot read `{place}`"))?;
    let bytes = bytes.with_context(|| format!("there is no `{place}`"))?;
    let mut hasher = Hasher::default();
    hasher.update(&bytes);
    ensure!(
        hasher.finish() == want,
        "`{place}` is not what its name says"
    );
    Ok((bytes, want))
}

/// A layer as an uncompressed archive, if it is what its name says.
fn unpacked(job: Job<'_>, layout: &Utf8Path, layer: &Descriptor) -> anyhow::Result<File> {
    let (place, want) = blob_place(layout, &layer.digest)?;
    let mut file = File::open(&place).with_context(|| format!("cannot read `{place}`"))?;
    let mut hasher = Hasher::default();
    std::io::copy(&mut file, &mut hasher).with_context(|| format!("cannot read `{place}`"))?;
    ensure!(
        hasher.finish() == want,
        "`{place}` is not what its name says"
    );
    let mut progress = input::reading(&place, &file)?;
    let mut output = scratch(job.tree)?;
    let mut stream = input::open(&mut file, &mut progress)?;
    std::io::copy(&mut stream, &mut output).with_context(|| format!("`{place}` is damaged"))?;
    drop(stream);
    progress.finish();
    Ok(output)
}

/// What a name is in the layers above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Above {
    /// A directory, which shows what lower layers have in it.
    Directory,
    /// Something else, or nothing any more: it hides what is below, and below that name.
    Final,
}

/// Which members of which layer are part of the whole.
struct Names {
    seen: BTreeMap<MemberPath, Above>,
    /// Directories whose content of lower layers is hidden.
    opaque: Vec<MemberPath>,
}

impl Names {
    /// Whether a name of a lower layer can be seen.
    fn visible(&self, path: &MemberPath) -> bool {
        let hidden = |parent: &[u8]| {
            matches!(self.seen.get(parent), Some(Above::Final))
                || self.opaque.iter().any(|known| known.as_bytes() == parent)
        };
        !self.seen.contains_key(path) && !path.ancestors().any(hidden)
    }
}

fn flatten(job: Job<'_>, layers: &[File]) -> anyhow::Result<File> {
    let mut names = Names {
        seen: BTreeMap::new(),
        opaque: Vec::new(),
    };
    // For each layer, whether each of its members is part of the whole.
    let mut chosen = vec![Vec::new(); layers.len()];
    for (at, layer) in layers.iter().enumerate().rev() {
        let mut here: Vec<(MemberPath, Above)> = Vec::new();
        let mut opaque = Vec::new();
        let mut reader = Reader::seeking(rewound(layer)?, Limits::default());
        while let Some(header) = reader.next_header()? {
            let path = MemberPath::parse_rooted(&header.path)?;
            let (parent, name) = split(path.as_bytes());
            if name == OPAQUE {
                opaque.push(MemberPath::parse_rooted(parent)?);
                chosen[at].push(false);
                continue;
            }
            if let Some(gone) = name.strip_prefix(WHITEOUT) {
                let gone = MemberPath::parse_rooted(&[parent, b"/", gone].concat())?;
                here.push((gone, Above::Final));
                chosen[at].push(false);
                continue;
            }
            chosen[at].push(path.is_root() || names.visible(&path));
            let kind = match header.kind {
                Kind::Directory => Above::Directory,
                _ => Above::Final,
            };
            here.push((path, kind));
        }
        // What a layer takes away and makes anew hides what is below all the same.
        here.sort_by_key(|(_, kind)| *kind == Above::Directory);
        for (path, kind) in here {
            names.seen.entry(path).or_insert(kind);
        }
        names.opaque.extend(opaque);
    }
    let mut writer = Writer::new(scratch(job.tree)?);
    for (layer, chosen) in layers.iter().zip(chosen) {
        let stands_for = heirs(layer, &chosen)?;
        let mut reader = Reader::seeking(rewound(layer)?, Limits::default());
        let mut chosen = chosen.into_iter();
        while let Some(mut header) = reader.next_header()? {
            let is_chosen = chosen.next() == Some(true);
            let path = MemberPath::parse_rooted(&header.path)?;
            if let Some(heir) = stands_for.get(&path).filter(|_| !is_chosen) {
                header.path = heir.as_bytes().to_vec();
                writer.member(&header, &mut reader)?;
                continue;
            }
            if !is_chosen {
                continue;
            }
            if let Kind::HardLink { target } = &mut header.kind
                && let Some(heir) = stands_for.get(&MemberPath::parse_rooted(target)?)
            {
                if *heir == path {
                    continue;
                }
                *target = heir.as_bytes().to_vec();
            }
            writer.member(&header, &mut reader)?;
        }
    }
    let (mut output, _) = writer.finish()?;
    output.flush()?;
    Ok(output)
}

/// For each file of a layer that a higher one hides while a hard link to it stays: that link, which
/// has the content from then on.
fn heirs(layer: &File, chosen: &[bool]) -> anyhow::Result<BTreeMap<MemberPath, MemberPath>> {
    let mut hidden = BTreeSet::new();
    let mut heirs = BTreeMap::new();
    let mut reader = Reader::seeking(rewound(layer)?, Limits::default());
    let mut chosen = chosen.iter();
    while let Some(header) = reader.next_header()? {
        let is_chosen = chosen.next() == Some(&true);
        let path = MemberPath::parse_rooted(&header.path)?;
        match &header.kind {
            Kind::File { .. } if !is_chosen => {
                hidden.insert(path);
            }
            Kind::HardLink { target } if is_chosen => {
                let target = MemberPath::parse_rooted(target)?;
                if hidden.contains(&target) {
                    heirs.entry(target).or_insert(path);
                }
            }
            _ => {}
        }
    }
    Ok(heirs)
}

/// A path's directory and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

//! Planning: by itself, and as a device's whole check for updates.

use std::fs;

use anyhow::{Context, ensure};
use camino::Utf8Path;
use serde_json::Map;
use system_image_demo::measure::Cost;
use system_image_demo::server::{CHANNEL, DEVICE};
use system_image_formats::index::{FileEntry, Image, ImageKind, Index};
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::TreePath;
use system_image_formats::time::GeneratedAt;
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_trust::SecretKey;

use crate::contest::{Side, contest};
use crate::lab::Lab;
use crate::offer::Offer;
use crate::python;
use crate::table::{Reference, Table};
use crate::task::Task;

/// Deltas that lead to each version, from the ones before it.
const DELTAS: u32 = 10;

/// Images of the index that the original's figures for a dry run were taken with.
pub(crate) const DRY_RUN_IMAGES: usize = 4999;

/// When the index was made, in Unix seconds.
const MADE: i64 = 1_750_000_000;

/// What the original needs for `--dry-run` over [`DRY_RUN_IMAGES`].
const DRY_RUN: Reference = Reference {
    cpu: (0.67, 2.7),
    memory: 90.0,
};

/// What the original needs for `--info`.
const INFO: Reference = Reference {
    cpu: (0.2, 0.2),
    memory: 37.0,
};

pub(crate) fn run(lab: &Lab, offer: &Offer, table: &mut Table) -> anyhow::Result<()> {
    for versions in [1000, 5000] {
        let what = format!("planning alone, {versions} versions, {DELTAS} deltas to each");
        let mut ours = [Side::new("planner", || {
            let (printed, whole) = Task::Plan { versions }.measure()?;
            let planning: Cost = serde_json::from_str(&printed)?;
            // The index is in memory, too.
            Ok(Cost {
                memory: whole.memory,
                ..planning
            })
        })];
        let costs = contest(&what, lab.short_rounds, &mut ours)?;
        table.row(&what, [("planner, index in memory", &costs[0])], None);
    }

    let client = |option: &str| -> anyhow::Result<(String, Cost)> {
        let step = lab.program("system-image-cli")?;
        let config = offer.config();
        let arguments = ["-C", config.as_str(), option, "-p", "0"];
        step.args(arguments).succeed()
    };
    // The first run fetches the keyrings, which stay.
    let (said, _) = client("--dry-run")?;
    ensure!(said.contains("Upgrade path is"), "no update: {said}");

    let what = format!("system-image-cli --dry-run, {DRY_RUN_IMAGES} images");
    let reader = "import json, sys; json.load(open(sys.argv[1]))";
    let mut sides = vec![Side::new("ours", || Ok(client("--dry-run")?.1))];
    let with_python = python::is_there();
    if with_python {
        sides.push(Side::new("python3", || {
            Ok(python::step(reader, &[offer.index.as_str()])?.succeed()?.1)
        }));
    }
    let costs = contest(&what, lab.short_rounds, &mut sides)?;
    let names = ["system-image-cli", "python3, only parsing that index"];
    table.row(&what, names.into_iter().zip(&costs), Some(DRY_RUN));
    drop(sides);

    let what = "system-image-cli --info";
    let mut sides = vec![Side::new("ours", || Ok(client("--info")?.1))];
    if with_python {
        sides.push(Side::new("python3", || {
            Ok(python::step("pass", &[])?.succeed()?.1)
        }));
    }
    let costs = contest(what, lab.short_rounds, &mut sides)?;
    let names = ["system-image-cli", "python3, doing nothing"];
    table.row(what, names.into_iter().zip(&costs), Some(INFO));
    Ok(())
}

/// The server's image-signing key.
pub(crate) fn image_signing_key(root: &Utf8Path) -> anyhow::Result<SecretKey> {
    let kind = KeyringType::ImageSigning;
    let place = root.join(format!("secret/gpg/keys/{kind}/secret-key.asc"));
    let text = fs::read(&place).with_context(|| format!("cannot read `{place}`"))?;
    Ok(SecretKey::from_armored(&text)?)
}

/// The clock, in Unix seconds.
pub(crate) fn now() -> anyhow::Result<i64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_secs())?)
}

/// An index of up to so many versions and images: for each version a full image and a delta from
/// each of the [`DELTAS`] versions before it, two files each, as a server with a few years of
/// daily images has it.
pub(crate) fn index(versions: u32, images: usize) -> anyhow::Result<Index> {
    let mut index = Index::empty(GeneratedAt::from_unix(MADE));
    for version in 1..=versions {
        for back in 0..=DELTAS.min(version - 1) {
            if index.images.len() >= images {
                return Ok(index);
            }
            index.images.push(image(version, back)?);
        }
    }
    Ok(index)
}

/// The full image of a version, or the delta from the one `back` versions before it.
fn image(version: u32, back: u32) -> anyhow::Result<Image> {
    // Names and digests as the pool has them; the numbers need only differ.
    let hash = |version: u32| format!("{version:064x}");
    let name = if back == 0 {
        format!("rootfs-{}", hash(version))
    } else {
        format!(
            "rootfs-{}.delta-rootfs-{}",
            hash(version),
            hash(version - back)
        )
    };
    let size = if back == 0 {
        340_000_000
    } else {
        12_000_000 + 7_000_000 * u64::from(back) + u64::from(version % 97) * 10_000
    };
    let description = format!("tag=build-{version},device=20260101,version={version}");
    Ok(Image {
        kind: if back == 0 {
            ImageKind::FULL
        } else {
            ImageKind::Delta {
                base: ImageVersion::new(version - back),
            }
        },
        version: ImageVersion::new(version),
        version_detail: description.parse()?,
        description: Some(description),
        files: vec![
            file(0, &format!("/pool/{name}.tar.xz"), size)?,
            file(
                1,
                &format!("/{CHANNEL}/{DEVICE}/version-{version}.tar.xz"),
                452,
            )?,
        ],
        bootme: false,
        phased: Percentage::ALL,
        extra: Map::new(),
    })
}

fn file(order: u32, path: &str, size: u64) -> anyhow::Result<FileEntry> {
    let path: TreePath = path.parse()?;
    Ok(FileEntry {
        order,
        signature: path.with_suffix(".asc")?,
        path,
        checksum: [0x5a; 32].into(),
        size,
        extra: Map::new(),
    })
}

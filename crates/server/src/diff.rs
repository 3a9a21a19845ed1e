//! What changes between two images: files by their digests, packages by their build records.
//!
//! A build record is a key of our own in a payload's side file: `packages`, name to version.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use system_image_formats::index::Image;
use system_image_report::Size;

use crate::part::{Part, prefix_of};
use crate::published::Published;

/// The key of a side file that lists packages with their versions.
pub const PACKAGES: &str = "packages";

/// What changes between two images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Payloads that differ, by prefix.
    pub files: Vec<FileChange>,
    /// Packages that are new, with their versions.
    pub added: BTreeMap<String, String>,
    /// Packages that are gone, with their versions.
    pub removed: BTreeMap<String, String>,
    /// Packages with another version: the old one and the new one.
    pub changed: BTreeMap<String, (String, String)>,
    /// Whether both images say what packages they have.
    pub recorded: bool,
}

/// A payload that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// What pairs the two.
    pub prefix: String,
    /// Bytes of the old one, if there is one.
    pub old: Option<u64>,
    /// Bytes of the new one, if there is one.
    pub new: Option<u64>,
}

/// Compares two images by what the tree says of them.
pub fn diff(tree: &Published, old: &Image, new: &Image) -> anyhow::Result<Diff> {
    let files = |image: &Image| -> BTreeMap<String, (String, u64)> {
        let parts = Part::of_image(image).into_iter();
        parts
            .map(|part| {
                let entry = &part.entry;
                let content = (entry.checksum.to_string(), entry.size);
                (prefix_of(&entry.path).to_owned(), content)
            })
            .collect()
    };
    let (theirs, ours) = (files(old), files(new));
    let mut diff = Diff::default();
    for prefix in theirs
        .keys()
        .chain(ours.keys().filter(|p| !theirs.contains_key(*p)))
    {
        let (old, new) = (theirs.get(prefix), ours.get(prefix));
        if old.map(|(sum, _)| sum) != new.map(|(sum, _)| sum) {
            diff.files.push(FileChange {
                prefix: prefix.clone(),
                old: old.map(|(_, size)| *size),
                new: new.map(|(_, size)| *size),
            });
        }
    }
    let (theirs, ours) = (packages(tree, old)?, packages(tree, new)?);
    diff.recorded = theirs.is_some() && ours.is_some();
    let (Some(theirs), Some(ours)) = (theirs, ours) else {
        return Ok(diff);
    };
    for (name, version) in &ours {
        match theirs.get(name) {
            None => {
                diff.added.insert(name.clone(), version.clone());
            }
            Some(before) if before != version => {
                let versions = (before.clone(), version.clone());
                diff.changed.insert(name.clone(), versions);
            }
            Some(_) => {}
        }
    }
    for (name, version) in theirs {
        if !ours.contains_key(&name) {
            diff.removed.insert(name, version);
        }
    }
    Ok(diff)
}

/// The packages of an image, as far as its files say; `None` when none of them does.
fn packages(tree: &Published, image: &Image) -> anyhow::Result<Option<BTreeMap<String, String>>> {
    let mut packages: Option<BTreeMap<_, _>> = None;
    for part in Part::of_image(image) {
        let side = tree.side(&part.entry.path)?.unwrap_or_default();
        if let Some(Value::Object(listed)) = side.extra.get(PACKAGES) {
            let listed = listed
                .iter()
                .filter_map(|(name, version)| Some((name.clone(), version.as_str()?.to_owned())));
            packages.get_or_insert_default().extend(listed);
        }
    }
    Ok(packages)
}

impl Diff {
    /// Prints it for people.
    pub fn print(&self) {
        let size =
            |size: Option<u64>| size.map_or("none".to_owned(), |size| Size(size).to_string());
        for file in &self.files {
            println!(
                "file {}: {} to {}",
                file.prefix,
                size(file.old),
                size(file.new)
            );
        }
        for (name, version) in &self.added {
            println!("added {name} {version}");
        }
        for (name, version) in &self.removed {
            println!("removed {name} {version}");
        }
        for (name, (old, new)) in &self.changed {
            println!("changed {name} {old} to {new}");
        }
        if !self.recorded {
            println!("the packages of the two images are not both recorded");
        }
    }
}

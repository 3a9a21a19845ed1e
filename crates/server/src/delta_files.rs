//! The files of a delta image: what changes between the parts of its base and those of its target
//! (server spec, section 14.2).

use std::fs::File;

use anyhow::{Context, anyhow};
use system_image_delta_build::{Options, Removal, delta};
use system_image_formats::index::{FileEntry, Image};
use system_image_formats::name::TreePath;
use system_image_formats::side::SideFile;

use crate::input::scratch;
use crate::overlap::{self, Names};
use crate::part::{Part, is_always_whole};
use crate::patch_file;
use crate::pool;
use crate::tree::Tree;

/// The files that take a device from `base` to an image of `parts`, the version file left out; or
/// why there can be no such delta. Patches stand beside them if devices have memory for some.
pub fn delta_files(
    tree: &Tree,
    base: &Image,
    parts: &[Part],
    patch_memory: u64,
) -> anyhow::Result<Result<Vec<FileEntry>, String>> {
    let old = Part::of_image(base);
    let pairs = match pair(&old, parts) {
        Ok(pairs) => pairs,
        Err(why) => return Ok(Err(why)),
    };
    let mut files = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        match pairs[at] {
            Some(from) if !is_always_whole(part.prefix()) => {
                if from.entry.checksum == part.entry.checksum {
                    continue;
                }
                let mut file = match delta_file(tree, from, at, parts, &pairs)? {
                    Ok(file) => file,
                    Err(why) => return Ok(Err(why)),
                };
                if patch_memory > 0 {
                    let others = old
                        .iter()
                        .filter(|other| other.entry.path != from.entry.path);
                    let others: Vec<_> = others.collect();
                    let patch = patch_file::patch(tree, from, &others, &file, patch_memory)?;
                    if let Some(patch) = patch {
                        file.set_patch(patch);
                    }
                }
                files.push(file);
            }
            _ => files.push(part.entry.clone()),
        }
    }
    Ok(Ok(files))
}

/// Finds the predecessor of each part: the one with the same prefix, else, where both images have
/// the same number of files, the one in the same place.
fn pair<'a>(old: &'a [Part], new: &[Part]) -> Result<Vec<Option<&'a Part>>, String> {
    let mut left: Vec<_> = old.iter().collect();
    let mut take = |fits: &dyn Fn(&Part) -> bool| {
        let at = left.iter().position(|part| fits(part))?;
        Some(left.remove(at))
    };
    let mut pairs: Vec<_> = new
        .iter()
        .map(|part| take(&|found| found.prefix() == part.prefix()))
        .collect();
    if old.len() == new.len() {
        for (at, pair) in pairs
            .iter_mut()
            .enumerate()
            .filter(|(_, pair)| pair.is_none())
        {
            *pair = take(&|part| part.entry.path == old[at].entry.path);
        }
    }
    match left.first() {
        None => Ok(pairs),
        Some(gone) => Err(format!(
            "`{}` has no successor, so its files would stay",
            gone.entry.path
        )),
    }
}

/// The place of the delta between two files of the pool.
fn place(old: &TreePath, new: &TreePath) -> anyhow::Result<TreePath> {
    let stem = |path: &TreePath| -> anyhow::Result<String> {
        let name = path.file_name()?;
        let name = name.as_str();
        Ok(name.strip_suffix(".tar.xz").unwrap_or(name).to_owned())
    };
    Ok(format!("/pool/{}.delta-{}.tar.xz", stem(new)?, stem(old)?).parse()?)
}

fn delta_file(
    tree: &Tree,
    old: &Part,
    at: usize,
    parts: &[Part],
    pairs: &[Option<&Part>],
) -> anyhow::Result<Result<FileEntry, String>> {
    let part = &parts[at];
    let path = place(&old.entry.path, &part.entry.path)?;
    // What else the image lays over or under this file; a part that comes whole after it puts
    // right whatever it did.
    let others: Vec<_> = (0..parts.len())
        .filter(|other| *other != at)
        .filter(|other| {
            *other < at || pairs[*other].is_some_and(|_| !is_always_whole(parts[*other].prefix()))
        })
        .collect();
    let known = pool::stored(tree, &path)?;
    if let (Some(entry), true) = (&known, others.is_empty()) {
        return Ok(Ok(entry.clone()));
    }
    let output = match &known {
        Some(entry) => pool::unpack(tree, entry)?,
        None => match compute(tree, old, at, part)? {
            Ok(output) => output,
            Err(why) => return Ok(Err(why)),
        },
    };
    for other in others {
        let names = Names::of(parts[other].tar(tree)?)
            .with_context(|| format!("cannot read the names of `{}`", parts[other].entry.path))?;
        if let Some(name) = overlap::conflict(&output, &names, other > at)? {
            return Ok(Err(format!(
                "`{name}` is in more than one file of the image"
            )));
        }
    }
    if let Some(entry) = known {
        return Ok(Ok(entry));
    }
    let (source, target) = (tree.side(&old.entry.path)?, tree.side(&part.entry.path)?);
    let side = SideFile::delta(source.as_ref(), target.as_ref());
    pool::store(tree, &path, &output, &side).map(Ok)
}

/// Compares two files of the pool. Returns the uncompressed delta, or why there can be none.
fn compute(
    tree: &Tree,
    old: &Part,
    at: usize,
    part: &Part,
) -> anyhow::Result<Result<File, String>> {
    let mut output = scratch(tree)?;
    // A file laid over others must leave their directories alone.
    let removal = if at == 0 {
        Removal::Trees
    } else {
        Removal::Names
    };
    let options = Options {
        times: tree.config().delta_times,
        removal,
    };
    let summary = match delta(old.tar(tree)?, part.tar(tree)?, options, &mut output) {
        Ok(summary) => summary,
        Err(error) => return Ok(Err(format!("{:#}", anyhow!(error)))),
    };
    if let Some(name) = summary.misread.first() {
        eprintln!(
            "note: old recoveries misread {} names to remove, the first is `{name}`",
            summary.misread.len()
        );
    }
    Ok(Ok(output))
}

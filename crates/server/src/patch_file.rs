//! The patch beside a file of a delta: it makes the delta's archive out of the files that a device with
//! the base has (`docs/formats/patch.md`, section Trees).

use std::fs::File;
use std::io::BufReader;

use anyhow::Context;
use system_image_delta::MemberPath;
use system_image_delta::patch::tree::TreePatch;
use system_image_delta_build::patch::{Effort, Options, make_for_tree};
use system_image_formats::index::{FileEntry, Patch};
use system_image_formats::name::TreePath;
use system_image_formats::side::SideFile;

use crate::input::scratch;
use crate::overlap::Names;
use crate::part::Part;
use crate::pool;
use crate::tree::Tree;

/// Memory that making a patch takes, about, in bytes.
const MEMORY: u64 = 1 << 30;

/// The patch for the delta `file`, which leads from `old`, for devices that give so much memory to
/// applying it; none where it would not be smaller.
///
/// `others` are the base's other files. What they lay over `old` is not there on a device.
pub fn patch(
    tree: &Tree,
    old: &Part,
    others: &[&Part],
    file: &FileEntry,
    memory: u64,
) -> anyhow::Result<Option<Patch>> {
    let path = place(&file.path, memory)?;
    let names = others.iter().map(|other| Names::of(other.tar(tree)?));
    let names = names.collect::<anyhow::Result<Vec<_>>>()?;
    let is_left_out = |path: &MemberPath| names.iter().any(|names| names.has(path));
    let entry = if let Some(entry) = pool::stored(tree, &path)? {
        entry
    } else {
        let mut made = made(tree, old, &is_left_out, file, memory)?;
        // What a device would not take is not kept.
        if made.metadata()?.len() >= file.size {
            return Ok(None);
        }
        let side = tree.side(&file.path)?.unwrap_or_default();
        let side = SideFile {
            generator: Some("patch".into()),
            ..side
        };
        pool::adopt(tree, &path, &mut made, &side)?
    };
    if entry.size >= file.size {
        return Ok(None);
    }
    let data = tree.store().open(&path)?;
    let data = data.with_context(|| format!("`{path}` went away"))?;
    let opened = TreePatch::open(BufReader::new(data));
    let opened = opened.with_context(|| format!("cannot read `{path}`"))?;
    let memory = opened.memory();
    // One that was made when the base's other files had other names in them.
    let fits = opened.files().paths().all(|path| !is_left_out(&path));
    Ok(fits.then_some(Patch {
        file: entry,
        memory,
    }))
}

/// Beside the delta, with the memory in its name: it has a say in what the patch is.
fn place(delta: &TreePath, memory: u64) -> anyhow::Result<TreePath> {
    let name = delta.as_str();
    let stem = name.strip_suffix(".tar.xz").unwrap_or(name);
    let kind = format!(".patch{}-", memory >> 20);
    Ok(format!("{}.patch", stem.replacen(".delta-", &kind, 1)).parse()?)
}

fn made(
    tree: &Tree,
    old: &Part,
    is_left_out: &dyn Fn(&MemberPath) -> bool,
    file: &FileEntry,
    memory: u64,
) -> anyhow::Result<File> {
    let (_, _reserved) = tree.memory().reserve(&[MEMORY]);
    let delta = pool::unpack(tree, file)?;
    let options = Options {
        memory,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        effort: Effort::Default,
        packings: Some(tree.packings()),
    };
    let mut out = std::io::BufWriter::new(scratch(tree)?);
    let base = old.tar(tree)?;
    make_for_tree(base, is_left_out, &delta, options, &mut out)
        .with_context(|| format!("no patch for `{}`", file.path))?;
    let out = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)?;
    Ok(out)
}

//! Looks up files of the base: by path, by what is left of a path when versions change, by size.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::patch::image::{Item, Sort};

/// Ends of the names of files that are packed.
const PACKED: [&[u8]; 3] = [b".gz", b".xz", b".zst"];

/// Files of the base by what they may be asked for.
pub(crate) struct Files {
    pub(crate) items: Vec<Item>,
    /// The pieces of each file that has several, in order, by its path.
    pieces: HashMap<Vec<u8>, Vec<usize>>,
    by_path: HashMap<Vec<u8>, usize>,
    /// By path with each run of digits made equal: versions come and go.
    by_shape: HashMap<Vec<u8>, Vec<usize>>,
    /// By the same of the last part alone.
    by_name: HashMap<Vec<u8>, Vec<usize>>,
    pub(crate) by_size: HashMap<u64, Vec<usize>>,
}

impl Files {
    pub(crate) fn new(items: Vec<Item>) -> Self {
        let mut files = Self {
            items,
            pieces: HashMap::new(),
            by_path: HashMap::new(),
            by_shape: HashMap::new(),
            by_name: HashMap::new(),
            by_size: HashMap::new(),
        };
        for (i, item) in files.items.iter().enumerate() {
            if item.sort == Sort::Area {
                continue;
            }
            if !item.is_whole() {
                files.pieces.entry(item.path.clone()).or_default().push(i);
            }
            if item.len() > 0 {
                files.by_size.entry(item.len()).or_default().push(i);
            }
            // A file in pieces is known by its first one in the image.
            let is_first = |pieces: &Vec<usize>| pieces.len() == 1;
            if !files.pieces.get(&item.path).is_none_or(is_first) {
                continue;
            }
            files.by_path.insert(item.path.clone(), i);
            files.by_shape.entry(shape(&item.path)).or_default().push(i);
            if item.len() > 0 {
                let name = shape(name(&item.path));
                files.by_name.entry(name).or_default().push(i);
            }
        }
        for pieces in files.pieces.values_mut() {
            pieces.sort_by_key(|&i| files.items[i].before);
        }
        files
    }

    /// The item that had the place of this one; one of its pieces if it is in pieces. `size` is
    /// that of the whole file.
    pub(crate) fn counterpart(&self, path: &[u8], size: u64) -> Option<&Item> {
        let closest = |found: &Vec<usize>| {
            let size_of = |i: &usize| self.items[*i].whole().abs_diff(size);
            found.iter().copied().min_by_key(size_of)
        };
        let same = self.by_path.get(path).copied();
        let is_filled = |i: &usize| size == 0 || !self.items[*i].content.is_empty();
        let found = same
            .filter(is_filled)
            .or_else(|| closest(self.by_shape.get(&shape(path))?).filter(is_filled))
            .or_else(|| {
                let found = self.by_name.get(&shape(name(path)))?;
                let rank = |i: &usize| {
                    let item = &self.items[*i];
                    (
                        Reverse(folders(&item.path, path)),
                        item.whole().abs_diff(size),
                    )
                };
                let closest = found.iter().copied().min_by_key(rank);
                closest.filter(|_| size > 0)
            });
        found.map(|i| &self.items[i])
    }

    /// All pieces of the file that an item is a piece of.
    pub(crate) fn pieces<'a>(&'a self, item: &'a Item) -> impl Iterator<Item = &'a Item> {
        let pieces = self.pieces.get(&item.path).filter(|_| !item.is_whole());
        let alone = pieces.is_none().then_some(item);
        let pieces = pieces.into_iter().flatten();
        alone
            .into_iter()
            .chain(pieces.map(|&piece| &self.items[piece]))
    }
}

fn name(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// How many of the last folders two paths have in common.
fn folders(one: &[u8], other: &[u8]) -> usize {
    let parts = |path| <[u8]>::rsplit(path, |&byte| byte == b'/').skip(1);
    let pairs = parts(one).zip(parts(other));
    pairs.take_while(|(one, other)| one == other).count()
}

/// A path with each run of digits made equal, and without what tells that a file is packed.
fn shape(path: &[u8]) -> Vec<u8> {
    let path = PACKED
        .iter()
        .find_map(|&suffix| path.strip_suffix(suffix))
        .unwrap_or(path);
    let mut shape = Vec::with_capacity(path.len());
    for &byte in path {
        let byte = if byte.is_ascii_digit() { b'0' } else { byte };
        if byte != b'0' || shape.last() != Some(&b'0') {
            shape.push(byte);
        }
    }
    shape
}

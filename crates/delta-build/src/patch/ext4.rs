//! Tells where in an image of ext2, ext3 or ext4 each file stands. In: an image, which may be
//! damaged anywhere. Out: for each name a place of its inode, and the runs of blocks that hold its
//! content. Nothing is written, checked against sums or replayed from a journal: what is read wrong
//! makes a patch larger, not wrong.
//!
//! The layout is that of the kernel's "Data Structures and Algorithms" of ext4.

use std::collections::HashSet;
use std::ops::Range;

use system_image_delta::patch::{Codec, crc32c};

use crate::patch::window::Window;

/// What has an inode and a name: a file, a directory, a link, a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its path, without `/` in front; that of a directory ends in `/`. The root's is empty.
    pub(crate) path: Vec<u8>,
    /// Where its inode is.
    pub(crate) inode: Range<u64>,
    /// Where its content is, in order: the place in the file of each run, and that in the image.
    /// Holes are left out.
    pub(crate) runs: Vec<(u64, Range<u64>)>,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// Length of a block: the last run is padded to that.
    pub(crate) block: u64,
}

/// What was found in an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) nodes: Vec<Node>,
    /// Inodes that follow each other, from one that is in use to one that is, if they have checksums.
    pub(crate) tables: Vec<(Range<u64>, Codec)>,
}

/// Longest path that is followed, in bytes: the kernel's limit.
const LONGEST_PATH: usize = 4096;

/// Paths of all files together, in bytes.
const ALL_PATHS: usize = 64 << 20;

/// Deepest tree of extents, as the kernel has it.
const DEEPEST: u16 = 5;

/// Features without which names and places are not where they are looked for: a journal on its own
/// device, groups of descriptors that stand apart.
const UNKNOWN_FEATURES: u32 = 0x8 | 0x10;
const WIDE: u32 = 0x80;
const OWN_SEED: u32 = 0x2000;

/// The feature of checksums, among those that do not matter for reading.
const CHECKSUMS: u32 = 0x400;

const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;

const DIRECTORY: u16 = 0x4000;
const REGULAR: u16 = 0x8000;
const LINK: u16 = 0xa000;

const ROOT: u32 = 2;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

/// Blocks of a file that follow each other both in it and in the image.
struct Extent {
    logical: u64,
    physical: u64,
    blocks: u64,
}

/// Reads the image, or `None` if it is none. Nodes come in the order of their names in directories.
/// Places are those in the file.
pub(crate) fn read(window: Window<'_>) -> Option<FileSystem> {
    let mut image = Image::open(window)?;
    let mut nodes = Vec::new();
    let mut numbers = HashSet::from([ROOT]);
    let mut left = vec![(ROOT, Vec::new())];
    let mut all_paths = 0;
    while let Some((number, path)) = left.pop() {
        let Some((inode, mut node)) = image.node(number, path) else {
            continue;
        };
        if inode.kind() == DIRECTORY {
            let entries = image.entries(&inode, &node.runs);
            if number != ROOT {
                node.path.push(b'/');
            }
            // The last in is the first out.
            for (number, name) in entries.into_iter().rev() {
                let path = [&node.path[..], &name].concat();
                if path.len() <= LONGEST_PATH && numbers.insert(number) {
                    all_paths += path.len();
                    left.push((number, path));
                }
            }
            if all_paths > ALL_PATHS {
                return None;
            }
        }
        nodes.push(node);
    }
    let mut tables = image.runs_of_inodes(numbers);
    for (table, _) in &mut tables {
        *table = window.place(table);
    }
    for node in &mut nodes {
        node.inode = window.place(&node.inode);
        for (_, run) in &mut node.runs {
            *run = window.place(run);
        }
    }
    Some(FileSystem { nodes, tables })
}

struct Image<'a> {
    window: Window<'a>,
    len: u64,
    block: u64,
    inode_len: u64,
    inodes: u32,
    inodes_per_group: u32,
    /// Where each group's inodes begin.
    tables: Vec<u64>,
    /// What checksums begin with, if there are any.
    seed: Option<u32>,
    /// Blocks that were read as parts of trees or directories: none is read twice.
    visited: HashSet<u64>,
    /// Extents that may still come.
    extents_left: u64,
}

struct Inode {
    mode: u16,
    flags: u32,
    size: u64,
    /// What tells where the content is, or the content itself.
    blocks: [u8; 60],
}

impl Inode {
    fn kind(&self) -> u16 {
        self.mode & 0xf000
    }
}

impl<'a> Image<'a> {
    fn open(window: Window<'a>) -> Option<Self> {
        let len = window.len();
        let mut sb = [0; 1024];
        window.read_exact_at(&mut sb, 1024).ok()?;
        let is_known = u16_at(&sb, 0x38) == 0xef53 && u32_at(&sb, 0x60) & UNKNOWN_FEATURES == 0;
        let log = Some(u32_at(&sb, 0x18)).filter(|&log| is_known && log <= 6)?;
        let block = 1024_u64 << log;
        let inode_len = match u32_at(&sb, 0x4c) {
            0 => 128,
            _ => u64::from(u16_at(&sb, 0x58)),
        };
        let (inodes, inodes_per_group) = (u32_at(&sb, 0), u32_at(&sb, 0x28));
        if !(128..=block).contains(&inode_len)
            || inodes_per_group == 0
            || u64::from(inodes) * inode_len > len
        {
            return None;
        }
        let is_wide = u32_at(&sb, 0x60) & WIDE != 0;
        let descriptor = if is_wide {
            usize::from(u16_at(&sb, 0xfe))
        } else {
            32
        };
        if !(32..=1024).contains(&descriptor) || is_wide && descriptor < 64 {
            return None;
        }
        let groups = inodes.div_ceil(inodes_per_group) as usize;
        let start = (u64::from(u32_at(&sb, 0x14)) + 1) * block;
        if (groups as u64) * (descriptor as u64) > len {
            return None;
        }
        let mut descriptors = vec![0; groups * descriptor];
        window.read_exact_at(&mut descriptors, start).ok()?;
        let tables = descriptors.chunks_exact(descriptor).map(|descriptor| {
            let high = if is_wide { u32_at(descriptor, 0x28) } else { 0 };
            (u64::from(high) << 32 | u64::from(u32_at(descriptor, 8))).saturating_mul(block)
        });
        let has_seed = u32_at(&sb, 0x60) & OWN_SEED != 0;
        let seed = if has_seed {
            u32_at(&sb, 0x270)
        } else {
            crc32c(!0, &sb[0x68..0x78])
        };
        Some(Self {
            seed: Some(seed).filter(|_| u32_at(&sb, 0x64) & CHECKSUMS != 0),
            window,
            len,
            block,
            inode_len,
            inodes,
            inodes_per_group,
            tables: tables.collect(),
            visited: HashSet::new(),
            extents_left: len / block,
        })
    }

    /// Where the inode of a number is.
    fn place(&self, number: u32) -> Option<u64> {
        let index = number.checked_sub(1).filter(|_| number <= self.inodes)?;
        let table = self.tables.get((index / self.inodes_per_group) as usize)?;
        table.checked_add(u64::from(index % self.inodes_per_group) * self.inode_len)
    }

    /// Where inodes in use follow each other as their numbers do.
    fn runs_of_inodes(&self, numbers: HashSet<u32>) -> Vec<(Range<u64>, Codec)> {
        let len = u16::try_from(self.inode_len).ok();
        let fits = |len: &u16| len.is_power_of_two() && *len <= 4096;
        let (Some(seed), Some(len)) = (self.seed, len.filter(fits)) else {
            return Vec::new();
        };
        let mut numbers: Vec<u32> = numbers.into_iter().collect();
        numbers.sort_unstable();
        let mut runs: Vec<(Range<u64>, Codec)> = Vec::new();
        let mut first = 0;
        for number in numbers {
            let Some(start) = self.place(number) else {
                continue;
            };
            let end = start.saturating_add(self.inode_len);
            if end > self.len {
                continue;
            }
            let between = u64::from(number - first) * self.inode_len;
            match runs.last_mut() {
                Some((run, _)) if run.start + between == start => run.end = end,
                _ => {
                    first = number;
                    runs.push((start..end, Codec::Ext4Inodes { seed, first, len }));
                }
            }
        }
        runs
    }

    /// An inode by its number, and where its content is.
    fn node(&mut self, number: u32, path: Vec<u8>) -> Option<(Inode, Node)> {
        let start = self.place(number)?;
        let mut bytes = [0; 128];
        self.window.read_exact_at(&mut bytes, start).ok()?;
        let mode = u16_at(&bytes, 0);
        let inode = Inode {
            mode,
            flags: u32_at(&bytes, 0x20),
            size: u64::from(u32_at(&bytes, 0x6c)) << 32 | u64::from(u32_at(&bytes, 4)),
            blocks: bytes[0x28..0x64].try_into().expect("it has 60 bytes"),
        };
        let node = Node {
            path,
            inode: start..start + self.inode_len,
            runs: self.runs(&inode),
            size: inode.size,
            block: self.block,
        };
        Some((inode, node))
    }

    fn runs(&mut self, inode: &Inode) -> Vec<(u64, Range<u64>)> {
        let mut extents = Vec::new();
        let is_short_link = inode.kind() == LINK && inode.size < 60;
        if !matches!(inode.kind(), DIRECTORY | REGULAR | LINK) {
            return Vec::new();
        }
        if inode.flags & EXTENTS != 0 {
            self.extents(&inode.blocks, DEEPEST, &mut extents);
        } else if inode.flags & INLINE == 0 && !is_short_link {
            self.mapped(inode, &mut extents);
        }
        let mut runs: Vec<(u64, Range<u64>)> = Vec::new();
        let end = inode.size.div_ceil(self.block);
        for extent in extents {
            let blocks = extent.blocks.min(end.saturating_sub(extent.logical));
            let start = extent.physical.saturating_mul(self.block);
            let mut stop = start.saturating_add(blocks * self.block);
            if blocks == 0 || stop > self.len {
                continue;
            }
            if extent.logical + blocks == end {
                stop -= end * self.block - inode.size;
            }
            let at = extent.logical * self.block;
            match runs.last_mut() {
                Some((last_at, last))
                    if last.end == start && *last_at + last.end - last.start == at =>
                {
                    last.end = stop;
                }
                _ => runs.push((at, start..stop)),
            }
        }
        runs
    }

    /// A block that is part of a tree; none is read twice.
    fn inner(&mut self, block: u64) -> Option<Vec<u8>> {
        let start = block.checked_mul(self.block)?;
        let end = start.checked_add(self.block)?;
        if block == 0 || end > self.len || !self.visited.insert(block) {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(self.block).ok()?];
        self.window.read_exact_at(&mut bytes, start).ok()?;
        Some(bytes)
    }

    fn extents(&mut self, node: &[u8], most: u16, all: &mut Vec<Extent>) {
        let (magic, count, depth) = (u16_at(node, 0), u16_at(node, 2), u16_at(node, 6));
        if magic != 0xf30a || depth > most {
            return;
        }
        for entry in node[12..].chunks_exact(12).take(usize::from(count)) {
            if depth > 0 {
                let low = u64::from(u32_at(entry, 4));
                let block = u64::from(u16_at(entry, 8)) << 32 | low;
                if let Some(inner) = self.inner(block) {
                    self.extents(&inner, depth - 1, all);
                }
                continue;
            }
            // Longer ones are set aside for the file and hold nothing yet.
            let blocks = u64::from(u16_at(entry, 4));
            if blocks == 0 || blocks > 1 << 15 {
                continue;
            }
            let low = u64::from(u32_at(entry, 8));
            self.add(
                Extent {
                    logical: u64::from(u32_at(entry, 0)),
                    physical: u64::from(u16_at(entry, 6)) << 32 | low,
                    blocks,
                },
                all,
            );
        }
    }

    fn add(&mut self, extent: Extent, all: &mut Vec<Extent>) {
        let expected = all.last().map_or(0, |last| last.logical + last.blocks);
        if extent.logical >= expected && self.extents_left > 0 {
            self.extents_left -= 1;
            all.push(extent);
        }
    }

    /// The blocks of a file of ext2: twelve, then trees of one to three levels.
    fn mapped(&mut self, inode: &Inode, all: &mut Vec<Extent>) {
        let end = inode.size.div_ceil(self.block);
        let mut logical = 0;
        for (i, entry) in inode.blocks.chunks_exact(4).enumerate() {
            let level = u32::try_from(i.saturating_sub(11)).unwrap_or(0);
            self.pointer(u32_at(entry, 0).into(), level, end, &mut logical, all);
        }
    }

    fn pointer(
        &mut self,
        block: u64,
        level: u32,
        end: u64,
        logical: &mut u64,
        all: &mut Vec<Extent>,
    ) {
        if *logical >= end {
            return;
        }
        if level == 0 {
            if block != 0 {
                self.add(
                    Extent {
                        logical: *logical,
                        physical: block,
                        blocks: 1,
                    },
                    all,
                );
            }
            *logical += 1;
            return;
        }
        match self.inner(block) {
            None => *logical += (self.block / 4).pow(level),
            Some(bytes) => {
                for entry in bytes.chunks_exact(4) {
                    self.pointer(u32_at(entry, 0).into(), level - 1, end, logical, all);
                }
            }
        }
    }

    /// What a directory holds: numbers of inodes and names.
    fn entries(&mut self, inode: &Inode, runs: &[(u64, Range<u64>)]) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        if inode.flags & INLINE != 0 {
            // The parent's number comes first.
            entries(&inode.blocks[4..], &mut all);
        }
        for (_, run) in runs {
            for block in run.start / self.block..run.end / self.block {
                if let Some(bytes) = self.inner(block) {
                    entries(&bytes, &mut all);
                }
            }
        }
        all
    }
}

/// The entries of a block of a directory. Those of an index of hashes seem empty, as they shall.
fn entries(mut block: &[u8], all: &mut Vec<(u32, Vec<u8>)>) {
    while let Some(head) = block.get(..8) {
        let (number, len) = (u32_at(head, 0), usize::from(u16_at(head, 4)));
        let Some(entry) = block.get(..len).filter(|_| len >= 8) else {
            return;
        };
        block = &block[len..];
        let Some(name) = entry.get(8..8 + usize::from(head[6])) else {
            continue;
        };
        if number == 0 || matches!(name, b"" | b"." | b"..") {
            continue;
        }
        all.push((number, name.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn run(command: &mut Command) {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code().is_some_and(|code| code < 2), "{said}");
    }

    fn text(seed: u32, len: usize) -> Vec<u8> {
        let lines =
            (seed..).flat_map(|i| format!("{} ", i.wrapping_mul(2_654_435_761)).into_bytes());
        lines.take(len).collect()
    }

    /// A tree with something of everything, and what its files hold.
    fn tree(root: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut add = |path: &str, bytes: Vec<u8>| {
            let full = root.join(path);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, &bytes).unwrap();
            files.insert(path.as_bytes().to_vec(), bytes);
        };
        add("a", text(1, 100_000));
        add("empty", Vec::new());
        add("sub/deep/b", text(2, 5000));
        let mut sparse = text(3, 9000);
        sparse.resize(80_000, 0);
        sparse.extend(text(4, 3000));
        sparse.resize(200_000, 0);
        add("sub/sparse", sparse);
        for i in 0..150 {
            add(&format!("many/a-file-with-a-long-name-{i}"), text(i, 20));
        }
        std::fs::hard_link(root.join("a"), root.join("sub/hard")).unwrap();
        std::os::unix::fs::symlink("a", root.join("short")).unwrap();
        let long = "a/".repeat(40);
        std::os::unix::fs::symlink(&long, root.join("long")).unwrap();
        files
    }

    fn image(root: &Path, kibibytes: u32, options: &[&str]) -> tempfile::NamedTempFile {
        let image = tempfile::NamedTempFile::new().unwrap();
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-I", "256", "-d"])
            .arg(root)
            .args(options)
            .arg(image.path())
            .arg(format!("{kibibytes}k")));
        image
    }

    fn read(image: &File) -> BTreeMap<Vec<u8>, Node> {
        let len = image.metadata().unwrap().len();
        let nodes = super::read(Window::new(image, &(0..len))).unwrap().nodes;
        nodes
            .into_iter()
            .map(|node| (node.path.clone(), node))
            .collect()
    }

    fn content(image: &File, node: &Node) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, run) in &node.runs {
            bytes.resize(usize::try_from(*at).unwrap(), 0);
            let mut piece = vec![0; usize::try_from(run.end - run.start).unwrap()];
            image.read_exact_at(&mut piece, run.start).unwrap();
            bytes.append(&mut piece);
        }
        bytes.resize(usize::try_from(node.size).unwrap(), 0);
        bytes
    }

    fn check(image: &File, files: &BTreeMap<Vec<u8>, Vec<u8>>, what: &str) {
        let nodes = read(image);
        for (path, bytes) in files {
            let shown = String::from_utf8_lossy(path);
            // One of the names of a file is enough.
            let other = nodes.get(&b"sub/hard"[..]).filter(|_| path == b"a");
            let node = nodes.get(path).or(other);
            let node = node.unwrap_or_else(|| panic!("{what}: {shown} is missing"));
            assert!(content(image, node) == *bytes, "{what}: {shown}");
        }
        for path in ["sub/", "sub/deep/", "many/", "short", "long"] {
            assert!(nodes.contains_key(path.as_bytes()), "{what}: {path}");
        }
    }

    #[test]
    fn files_are_found_in_file_systems_of_every_kind() {
        let root = tempfile::tempdir().unwrap();
        let files = tree(root.path());
        for options in [
            &["-b", "4096"][..],
            &["-b", "1024", "-O", "^64bit"],
            &["-b", "2048", "-O", "^metadata_csum,^flex_bg"],
            &["-b", "1024", "-O", "^extent,^64bit"],
            &["-t", "ext2", "-b", "1024", "-O", "^filetype"],
            &["-b", "4096", "-g", "256", "-N", "512"],
        ] {
            let image = image(root.path(), 4096, options);
            check(image.as_file(), &files, &options.join(" "));
        }
    }

    #[test]
    fn small_files_within_inodes_have_no_place() {
        let root = tempfile::tempdir().unwrap();
        let files = tree(root.path());
        let image = image(root.path(), 4096, &["-b", "4096", "-O", "inline_data"]);
        let nodes = read(image.as_file());
        assert!(content(image.as_file(), &nodes[&b"a"[..]]) == files[&b"a"[..]]);
        let inline = nodes.values().filter(|node| node.size == 20);
        assert!(inline.clone().count() > 100);
        assert!(inline.clone().all(|node| node.runs.is_empty()));
    }

    #[test]
    fn directories_with_indices_and_files_in_pieces_are_read() {
        let root = tempfile::tempdir().unwrap();
        let mut files = tree(root.path());
        let image = image(root.path(), 2048, &["-b", "1024", "-O", "^has_journal"]);
        let big = text(77, 400_000);
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), &big).unwrap();
        let mut script = String::new();
        for i in (0..150).step_by(2) {
            let name = format!("many/a-file-with-a-long-name-{i}");
            script += &format!("rm {name}\n");
            files.remove(name.as_bytes());
        }
        script += &format!("write {} big\n", outside.path().display());
        files.insert(b"big".to_vec(), big);
        let mut commands = tempfile::NamedTempFile::new().unwrap();
        commands.write_all(script.as_bytes()).unwrap();
        run(Command::new("debugfs")
            .args(["-w", "-f"])
            .arg(commands.path())
            .arg(image.path()));
        run(Command::new("e2fsck").arg("-fyD").arg(image.path()));
        check(image.as_file(), &files, "in pieces");
        let nodes = read(image.as_file());
        assert!(nodes[&b"big"[..]].runs.len() > 20);
    }

    #[test]
    fn damage_is_survived() {
        let root = tempfile::tempdir().unwrap();
        tree(root.path());
        for options in [
            &["-b", "1024", "-O", "^has_journal"][..],
            &["-t", "ext2", "-b", "1024"],
        ] {
            let image = image(root.path(), 1500, options);
            let bytes = std::fs::read(image.path()).unwrap();
            let damage = proptest::collection::vec((0..1_000_000_usize, any::<u8>()), 1..60);
            let places = prop_oneof![Just(1024..2048), Just(2048..6000), Just(6000..300_000)];
            let mut runner =
                proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
            runner
                .run(&(places, damage), |(places, damage)| {
                    let mut damaged = bytes.clone();
                    for (at, byte) in damage {
                        damaged[places.start + at % places.len()] = byte;
                    }
                    let mut file = tempfile::tempfile().unwrap();
                    file.write_all(&damaged).unwrap();
                    let len = damaged.len() as u64;
                    let found = super::read(Window::new(&file, &(0..len))).unwrap_or_default();
                    prop_assert!(found.tables.iter().all(|(run, _)| run.end <= len));
                    for node in found.nodes {
                        prop_assert!(node.runs.iter().all(|(_, run)| run.end <= len));
                        prop_assert!(node.path.len() <= LONGEST_PATH + 1);
                    }
                    Ok(())
                })
                .unwrap();
        }
    }
}

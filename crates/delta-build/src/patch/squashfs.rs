//! Tells where in a squashfs image each file stands, and its tables. In: an image of version 4 that
//! is packed by Zstandard, which may be damaged anywhere. Out: streams of blocks, each block packed on
//! its own, and fragments: blocks of the ends of files. What is read wrong makes a patch larger, not
//! wrong.
//!
//! The layout is that of the kernel's `Documentation/filesystems/squashfs.rst`.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use system_image_delta::patch::{Codec, Unpacker};

use crate::patch::window::Window;

/// Bytes that are packed as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Block {
    /// Where it is in the image.
    pub(crate) range: Range<u64>,
    /// Whether it is packed; else it stands there as it is.
    pub(crate) is_packed: bool,
    /// Its plain length in bytes.
    pub(crate) plain_len: u64,
}

/// The end of a file within a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) fragment: usize,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// A file, or a table under a name that no file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) path: Vec<u8>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) tail: Option<Tail>,
}

/// An image, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) streams: Vec<Stream>,
    pub(crate) fragments: Vec<Block>,
    /// The level at which all is packed.
    pub(crate) level: u8,
}

impl Stream {
    /// Its length without holes, in bytes.
    pub(crate) fn len(&self) -> u64 {
        let blocks = self.blocks.iter().map(|block| block.plain_len);
        blocks.sum::<u64>() + self.tail.as_ref().map_or(0, |tail| tail.len)
    }
}

/// Plain length of a block of a table, in bytes.
const TABLE_BLOCK: u64 = 8192;

/// Longest table that is read, plain, in bytes.
const LONGEST_TABLE: usize = 256 << 20;

/// Longest path that is followed, and all of them together, in bytes.
const LONGEST_PATH: usize = 4096;
const ALL_PATHS: usize = 64 << 20;

/// The number of Zstandard among the ways of packing.
const ZSTD: u16 = 6;

/// Set in the length of a block that is not packed.
const STORED: u32 = 1 << 24;

/// The number of no fragment.
const NONE: u32 = u32::MAX;

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}

/// The plain bytes of a block.
pub(crate) fn plain(file: &File, block: &Block) -> Option<Vec<u8>> {
    let len = usize::try_from(block.range.end - block.range.start).ok()?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, block.range.start).ok()?;
    let plain_len = usize::try_from(block.plain_len).ok()?;
    if block.is_packed {
        bytes = unpack(&bytes, plain_len)?;
    }
    (bytes.len() == plain_len).then_some(bytes)
}

/// What is packed in `bytes`, if it is no more than `most` bytes.
fn unpack(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut unpacker = Unpacker::new(Codec::ZstdBlock { level: 1 }).ok()?;
    let mut plain = vec![0; most];
    let (mut took, mut made) = (0, 0);
    loop {
        let progress = unpacker.unpack(&bytes[took..], &mut plain[made..]).ok()?;
        took += progress.took;
        made += progress.made;
        if progress.took == 0 && progress.made == 0 || made == most {
            break;
        }
    }
    plain.truncate(made);
    (took == bytes.len()).then_some(plain)
}

/// A table: blocks that each have their length in front.
#[derive(Default)]
struct Table {
    bytes: Vec<u8>,
    blocks: Vec<Block>,
    /// Where each block begins, after the table's start in the image and in the plain bytes.
    starts: Vec<(u64, usize)>,
}

impl Table {
    fn read(window: Window<'_>, place: Range<u64>) -> Option<Self> {
        let mut table = Self::default();
        let mut at = place.start;
        while at < place.end {
            let mut head = [0; 2];
            window.read_exact_at(&mut head, at).ok()?;
            let head = u16::from_le_bytes(head);
            let len = u64::from(head & 0x7fff);
            let mut block = Block {
                range: at + 2..at + 2 + len,
                is_packed: head & 0x8000 == 0,
                plain_len: len,
            };
            if len == 0 || block.range.end > place.end || table.bytes.len() > LONGEST_TABLE {
                return None;
            }
            let mut bytes = vec![0; usize::from(head & 0x7fff)];
            window.read_exact_at(&mut bytes, block.range.start).ok()?;
            if block.is_packed {
                bytes = unpack(&bytes, usize::try_from(TABLE_BLOCK).ok()?)?;
                block.plain_len = bytes.len() as u64;
            }
            table.starts.push((at - place.start, table.bytes.len()));
            table.bytes.append(&mut bytes);
            at = block.range.end;
            table.blocks.push(block);
        }
        Some(table)
    }

    /// A table of so many entries, each of so many bytes, whose blocks are found by an index.
    fn indexed(
        window: Window<'_>,
        index_at: u64,
        (count, entry): (u32, u64),
        len: u64,
    ) -> Option<Self> {
        let size = u64::from(count) * entry;
        let blocks = size.div_ceil(TABLE_BLOCK);
        if blocks * 8 > len {
            return None;
        }
        let mut index = vec![0; usize::try_from(blocks * 8).ok()?];
        window.read_exact_at(&mut index, index_at).ok()?;
        let mut all = Self::default();
        for entry in index.chunks_exact(8) {
            let at = u64_at(entry, 0)?;
            let mut head = [0; 2];
            window.read_exact_at(&mut head, at).ok()?;
            let end = at.checked_add(2 + u64::from(u16::from_le_bytes(head) & 0x7fff))?;
            let mut part = Self::read(window, at..end.min(len))?;
            if all.bytes.len() > LONGEST_TABLE {
                return None;
            }
            all.bytes.append(&mut part.bytes);
            all.blocks.append(&mut part.blocks);
        }
        (all.bytes.len() as u64 == size).then_some(all)
    }

    /// The plain bytes from a place on, that is given as the table's entries do it.
    fn at(&self, block: u64, offset: u16) -> Option<&[u8]> {
        let found = self.starts.binary_search_by_key(&block, |&(at, _)| at);
        let (_, start) = self.starts[found.ok()?];
        self.bytes.get(start + usize::from(offset)..)
    }

    fn stream(self, name: &[u8]) -> Stream {
        Stream {
            path: name.to_vec(),
            blocks: self.blocks,
            tail: None,
        }
    }
}

/// Whether this begins like an image that can be read.
pub(crate) fn is_one(window: Window<'_>) -> bool {
    head(window).is_some()
}

/// The superblock.
fn head(window: Window<'_>) -> Option<[u8; 96]> {
    let mut sb = [0; 96];
    window.read_exact_at(&mut sb, 0).ok()?;
    let is_known = sb.starts_with(b"hsqs")
        && u16_at(&sb, 20)? == ZSTD
        && u16_at(&sb, 28)? == 4
        && (4096..=1 << 20).contains(&u32_at(&sb, 12)?);
    is_known.then_some(sb)
}

/// Reads the image, or `None` if it is none that can be read. Places are those in the file.
pub(crate) fn read(window: Window<'_>) -> Option<Image> {
    let len = window.len();
    let sb = head(window)?;
    let block_len = u32_at(&sb, 12)?;
    let starts = [64, 72, 80].map(|at| u64_at(&sb, at).filter(|&at| at <= len));
    let [Some(inodes_at), Some(directories_at), Some(fragments_at)] = starts else {
        return None;
    };
    let count = u32_at(&sb, 16)?;
    let list = Table::indexed(window, fragments_at, (count, 16), len)?;
    let exports_at = u64_at(&sb, 88)?;
    let exports = if exports_at == u64::MAX {
        Table::default()
    } else {
        Table::indexed(window, exports_at, (u32_at(&sb, 4)?, 8), len)?
    };
    // The table of fragments stands behind that of directories, its index behind it.
    let directories_end = list.blocks.first();
    let directories_end = directories_end.map_or(fragments_at, |block| block.range.start - 2);
    let inodes = Table::read(window, inodes_at..directories_at)?;
    let directories = Table::read(window, directories_at..directories_end)?;
    let entries = list.bytes.chunks_exact(16);
    let fragments: Option<Vec<Block>> = entries
        .map(|entry| block(u64_at(entry, 0)?, u32_at(entry, 8)?, block_len.into(), len))
        .collect();
    let mut fragments = fragments?;
    let walk = Walk {
        inodes: &inodes,
        directories: &directories,
        block_len: block_len.into(),
        len,
        fragments: fragments.len(),
    };
    let mut streams = walk.files(u64_at(&sb, 32)?)?;
    // A packed fragment ends where the last file in it does.
    let mut ends = vec![0; fragments.len()];
    for tail in streams.iter().filter_map(|stream| stream.tail.as_ref()) {
        let end = tail.offset.saturating_add(tail.len).min(block_len.into());
        ends[tail.fragment] = end.max(ends[tail.fragment]);
    }
    for (fragment, end) in fragments.iter_mut().zip(ends) {
        if fragment.is_packed {
            fragment.plain_len = end;
        }
    }
    streams.push(inodes.stream(b"\0inodes"));
    streams.push(directories.stream(b"\0directories"));
    streams.push(list.stream(b"\0fragments"));
    streams.push(exports.stream(b"\0exports"));
    let of_streams = streams.iter_mut().flat_map(|stream| &mut stream.blocks);
    for block in of_streams.chain(&mut fragments) {
        block.range = window.place(&block.range);
    }
    Some(Image {
        streams,
        fragments,
        level: level(window, &sb)?,
    })
}

/// The level, which stands behind the head if it is not the usual one.
fn level(window: Window<'_>, head: &[u8]) -> Option<u8> {
    const USUAL: u8 = 15;
    const HAS_OPTIONS: u16 = 0x400;
    if u16_at(head, 24)? & HAS_OPTIONS == 0 {
        return Some(USUAL);
    }
    let mut level = [0; 4];
    window.read_exact_at(&mut level, 96 + 2).ok()?;
    let level = u8::try_from(u32::from_le_bytes(level)).ok()?;
    (1..=22).contains(&level).then_some(level)
}

/// A block as tables tell of it; `size` has the mark whether it is packed.
fn block(start: u64, size: u32, plain_len: u64, len: u64) -> Option<Block> {
    let end = start.checked_add(u64::from(size & (STORED - 1)))?;
    let is_packed = size & STORED == 0;
    // What does not get smaller is not packed.
    (end <= len && end - start <= plain_len).then_some(Block {
        range: start..end,
        is_packed,
        plain_len: if is_packed { plain_len } else { end - start },
    })
}

struct Walk<'a> {
    inodes: &'a Table,
    directories: &'a Table,
    block_len: u64,
    len: u64,
    fragments: usize,
}

impl Walk<'_> {
    fn files(&self, root: u64) -> Option<Vec<Stream>> {
        let mut streams = Vec::new();
        let mut seen = std::collections::HashSet::from([root]);
        let mut left = vec![(root, Vec::new())];
        let (mut all_paths, mut all_blocks) = (0, 0);
        while let Some((place, path)) = left.pop() {
            let offset = u16::try_from(place & 0xffff).ok()?;
            let Some(inode) = self.inodes.at(place >> 16, offset) else {
                continue;
            };
            match u16_at(inode, 0) {
                Some(1 | 8) => {
                    let entries = self.entries(inode).unwrap_or_default();
                    // The last in is the first out.
                    for (place, name) in entries.into_iter().rev() {
                        let is_root = path.is_empty();
                        let slash: &[u8] = if is_root { b"" } else { b"/" };
                        let path = [&path[..], slash, &name].concat();
                        if path.len() <= LONGEST_PATH && seen.insert(place) {
                            all_paths += path.len();
                            left.push((place, path));
                        }
                    }
                }
                Some(2 | 9) => {
                    if let Some(stream) = self.file(inode, path) {
                        all_blocks += stream.blocks.len();
                        streams.push(stream);
                    }
                }
                _ => {}
            }
            // A block takes four bytes at least in the table.
            if all_paths > ALL_PATHS || all_blocks > self.inodes.bytes.len() {
                return None;
            }
        }
        Some(streams)
    }

    fn file(&self, inode: &[u8], path: Vec<u8>) -> Option<Stream> {
        let (start, size, fragment, offset, list): (u64, u64, u32, u32, usize) =
            if u16_at(inode, 0)? == 2 {
                let size = u64::from(u32_at(inode, 28)?);
                let start = u64::from(u32_at(inode, 16)?);
                (start, size, u32_at(inode, 20)?, u32_at(inode, 24)?, 32)
            } else {
                let (start, size) = (u64_at(inode, 16)?, u64_at(inode, 24)?);
                (start, size, u32_at(inode, 44)?, u32_at(inode, 48)?, 56)
            };
        let has_tail = fragment != NONE;
        let count = if has_tail {
            size / self.block_len
        } else {
            size.div_ceil(self.block_len)
        };
        let count = usize::try_from(count).ok()?;
        let sizes = inode.get(list..list.checked_add(count.checked_mul(4)?)?)?;
        let (mut blocks, mut at, mut left) = (Vec::new(), start, size);
        for bytes in sizes.chunks_exact(4) {
            let plain_len = left.min(self.block_len);
            left -= plain_len;
            let size = u32_at(bytes, 0)?;
            // A hole has no bytes.
            if size == 0 {
                continue;
            }
            let block = block(at, size, plain_len, self.len)?;
            at = block.range.end;
            blocks.push(block);
        }
        let fragment = usize::try_from(fragment).ok()?;
        let tail = Tail {
            fragment,
            offset: offset.into(),
            len: left,
        };
        let is_there = has_tail && left > 0 && fragment < self.fragments;
        Some(Stream {
            path,
            blocks,
            tail: is_there.then_some(tail),
        })
    }

    /// What a directory holds: places of inodes, and names.
    fn entries(&self, inode: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
        let (start, size, offset) = if u16_at(inode, 0)? == 1 {
            let size = u32::from(u16_at(inode, 24)?);
            (u32_at(inode, 16)?, size, u16_at(inode, 26)?)
        } else {
            (u32_at(inode, 24)?, u32_at(inode, 20)?, u16_at(inode, 34)?)
        };
        // The length counts three bytes for names that are not written.
        let size = usize::try_from(size.checked_sub(3)?).ok()?;
        let mut list = self.directories.at(start.into(), offset)?;
        list = list.get(..size)?;
        let mut all = Vec::new();
        while list.len() >= 12 {
            let (count, start) = (u32_at(list, 0)?, u32_at(list, 4)?);
            list = &list[12..];
            for _ in 0..=count.min(255) {
                let (offset, len) = (u16_at(list, 0)?, usize::from(u16_at(list, 6)?) + 1);
                let name = list.get(8..8 + len)?;
                all.push((u64::from(start) << 16 | u64::from(offset), name.to_vec()));
                list = &list[8 + len..];
            }
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::path::Path;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn text(seed: u32, len: usize) -> Vec<u8> {
        let lines =
            (seed..).flat_map(|i| format!("{} ", i.wrapping_mul(2_654_435_761)).into_bytes());
        lines.take(len).collect()
    }

    fn tree(root: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut add = |path: &str, bytes: Vec<u8>| {
            let full = root.join(path);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, &bytes).unwrap();
            files.insert(path.as_bytes().to_vec(), bytes);
        };
        add("a", text(1, 700_000));
        add("empty", Vec::new());
        add("sub/deep/b", text(2, 5000));
        for i in 0..400 {
            add(&format!("many/a-file-with-a-long-name-{i}"), text(i, 20));
        }
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        files
    }

    fn image(root: &Path, options: &[&str]) -> tempfile::NamedTempFile {
        let image = tempfile::NamedTempFile::new().unwrap();
        let output = Command::new("mksquashfs")
            .arg(root)
            .arg(image.path())
            .args([
                "-noappend",
                "-quiet",
                "-no-progress",
                "-all-root",
                "-comp",
                "zstd",
            ])
            .args(options)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        image
    }

    fn content(file: &File, image: &Image, stream: &Stream) -> Vec<u8> {
        let mut bytes = Vec::new();
        for block in &stream.blocks {
            bytes.append(&mut plain(file, block).unwrap());
        }
        if let Some(tail) = &stream.tail {
            let fragment = plain(file, &image.fragments[tail.fragment]).unwrap();
            let start = usize::try_from(tail.offset).unwrap();
            let len = usize::try_from(tail.len).unwrap();
            bytes.extend_from_slice(&fragment[start..start + len]);
        }
        bytes
    }

    #[test]
    fn files_and_tables_are_found() {
        let root = tempfile::tempdir().unwrap();
        let files = tree(root.path());
        for (options, level) in [
            (&[][..], 15),
            (&["-b", "16K", "-Xcompression-level", "3"], 3),
            (&["-no-fragments"], 15),
            (&["-noD", "-noF", "-noI", "-no-exports"], 15),
            (&["-always-use-fragments", "-b", "1M"], 15),
        ] {
            let image = image(root.path(), options);
            let len = image.as_file().metadata().unwrap().len();
            let read = read(Window::new(image.as_file(), &(0..len))).unwrap();
            assert_eq!(read.level, level, "{options:?}");
            let streams: BTreeMap<_, _> = read.streams.iter().map(|s| (&s.path[..], s)).collect();
            for (path, bytes) in &files {
                let shown = String::from_utf8_lossy(path);
                let stream = streams[&path[..]];
                let found = content(image.as_file(), &read, stream);
                assert!(found == *bytes, "{options:?}: {shown}");
            }
            let inodes = content(image.as_file(), &read, streams[&b"\0inodes"[..]]);
            assert!(inodes.len() > 400 * 32, "{options:?}");
        }
    }

    #[test]
    fn damage_is_survived() {
        let root = tempfile::tempdir().unwrap();
        tree(root.path());
        // Tables that are not packed, so that damage reaches what they say.
        let image = image(root.path(), &["-noI", "-noF"]);
        let bytes = std::fs::read(image.path()).unwrap();
        let tables = usize::try_from(u64_at(&bytes, 64).unwrap()).unwrap();
        let places = prop_oneof![Just(4..96), Just(tables..bytes.len())];
        let damage = proptest::collection::vec((0..1_000_000_usize, any::<u8>()), 1..60);
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
        runner
            .run(&(places, damage), |(places, damage)| {
                let mut damaged = bytes.clone();
                for (at, byte) in damage {
                    damaged[places.start + at % places.len()] = byte;
                }
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&damaged).unwrap();
                let len = damaged.len() as u64;
                let Some(image) = read(Window::new(&file, &(0..len))) else {
                    return Ok(());
                };
                let blocks = image.streams.iter().flat_map(|stream| &stream.blocks);
                for block in blocks.chain(&image.fragments) {
                    prop_assert!(block.range.end <= len && block.plain_len <= 1 << 20);
                }
                let tails = image
                    .streams
                    .iter()
                    .filter_map(|stream| stream.tail.as_ref());
                for tail in tails {
                    prop_assert!(tail.fragment < image.fragments.len());
                }
                Ok(())
            })
            .unwrap();
    }
}

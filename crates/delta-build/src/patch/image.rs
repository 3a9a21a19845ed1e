//! Takes images apart: tar archives, file systems also within them, and cpio archives within initial
//! RAM disks.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use system_image_delta::patch::Codec;
use system_image_delta::{Kind, Limits, Reader};

use crate::index::Section;
use crate::patch::window::Window;
use crate::patch::{android, ext4, ramdisk, squashfs};

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// A member or a file, or a piece of one; or what stands between and behind members: then it
    /// has no path and no content.
    File,
    /// A directory or an inode of a file system.
    Table,
    /// What else there is in a file system, free space too. All of it is content; the path is that
    /// of the image, and `before` its place there.
    Area,
    /// An image of blocks that are each packed.
    Blocks,
}

/// A part of an image that is looked at as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) sort: Sort,
    /// Its path, without `./` in front.
    pub(crate) path: Vec<u8>,
    /// Where its head is.
    pub(crate) head: Range<u64>,
    /// Where its content is.
    pub(crate) content: Range<u64>,
    /// Where the next item begins; what is in between is padding.
    pub(crate) end: u64,
    /// How much of its file stands elsewhere or is a hole, in front of this content.
    pub(crate) before: u64,
    /// How much of its file stands elsewhere or is a hole behind it.
    pub(crate) behind: u64,
}

impl Item {
    pub(crate) fn new(path: Vec<u8>, head: Range<u64>, content: Range<u64>) -> Self {
        Self {
            sort: Sort::File,
            path,
            head,
            end: content.end,
            content,
            before: 0,
            behind: 0,
        }
    }

    /// Length of its content in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.content.end - self.content.start
    }

    /// Length of its file in bytes.
    pub(crate) fn whole(&self) -> u64 {
        self.before + self.len() + self.behind
    }

    /// Whether the file stands in one piece.
    pub(crate) fn is_whole(&self) -> bool {
        self.before == 0 && self.behind == 0
    }

    pub(crate) fn start(&self) -> u64 {
        self.head.start.min(self.content.start)
    }
}

/// Where a table of inodes is, and how its checksums are made.
pub(crate) type Table = (Range<u64>, Codec);

/// An image, taken apart.
pub(crate) struct Image {
    /// Its items, in order.
    pub(crate) items: Vec<Item>,
    /// Tables of inodes that can be had without checksums.
    pub(crate) tables: Vec<Table>,
}

impl Image {
    /// Takes a file apart. What is no archive is one item that is all content.
    pub(crate) fn read(file: &File, len: u64) -> Self {
        Self::of(file, tar(file, len).unwrap_or_else(|| vec![whole(len)]))
    }

    /// The items, with those that are images or archives themselves taken apart.
    pub(crate) fn of(file: &File, items: Vec<Item>) -> Self {
        let mut image = Self {
            items: Vec::with_capacity(items.len()),
            tables: Vec::new(),
        };
        for item in items {
            let window = Window::new(file, &item.content);
            if let Some(found) = ext4::read(window) {
                let inner = file_system(found, &item);
                image.within(item, inner);
            } else if let Some(parts) = android::parts(window) {
                let part = |(name, range): (_, Range<u64>)| {
                    Item::new(inside(&item.path, name), range.start..range.start, range)
                };
                let mut inner: Vec<_> = parts.into_iter().map(part).collect();
                for at in 1..inner.len() {
                    inner[at - 1].end = inner[at].content.start;
                }
                image.within(item, (ramdisk::taken_apart(file, inner), Vec::new()));
            } else if squashfs::is_one(window) {
                let sort = Sort::Blocks;
                image.items.push(Item { sort, ..item });
            } else {
                image
                    .items
                    .append(&mut ramdisk::taken_apart(file, vec![item]));
            }
        }
        image
    }

    /// Appends what an item consists of, between its head and its padding.
    fn within(&mut self, item: Item, (mut inner, mut tables): (Vec<Item>, Vec<Table>)) {
        let Range { start, end } = item.content;
        let (behind, padded) = (inner.last().map_or(start, |last| last.end), item.end);
        if !item.head.is_empty() {
            self.items.push(Item {
                content: start..start,
                end: start,
                ..item
            });
        }
        self.items.append(&mut inner);
        self.tables.append(&mut tables);
        if behind < padded {
            self.items.push(Item {
                end: padded,
                ..Item::new(Vec::new(), behind..end, end..end)
            });
        }
    }
}

/// A path within an image.
fn inside(image: &[u8], path: impl AsRef<[u8]>) -> Vec<u8> {
    if image.is_empty() {
        path.as_ref().to_vec()
    } else {
        [image, b"/", path.as_ref()].concat()
    }
}

/// Inodes, directories and files of a file system, and all that is between them.
fn file_system(found: ext4::FileSystem, image: &Item) -> (Vec<Item>, Vec<Table>) {
    let mut items = Vec::new();
    for node in found.nodes {
        let is_directory = matches!(node.path.last(), None | Some(b'/'));
        let path = inside(&image.path, node.path);
        let end = node.inode.end;
        items.push(Item {
            sort: Sort::Table,
            // No file has such a name.
            ..Item::new([b"\0", &path[..]].concat(), node.inode, end..end)
        });
        for (before, run) in node.runs {
            let behind = node.size.saturating_sub(before + run.end - run.start);
            let in_image = run.end - image.content.start;
            items.push(Item {
                sort: if is_directory {
                    Sort::Table
                } else {
                    Sort::File
                },
                end: image.content.start + in_image.next_multiple_of(node.block),
                before,
                behind,
                ..Item::new(path.clone(), run.start..run.start, run)
            });
        }
    }
    (covering(items, image), found.tables)
}

/// The items in their order, with areas of the image between them. Of those that overlap the first is
/// kept.
fn covering(mut items: Vec<Item>, image: &Item) -> Vec<Item> {
    items.sort_by_key(Item::start);
    let mut all: Vec<Item> = Vec::with_capacity(items.len());
    let Range { start, end } = image.content;
    let area = |range: Range<u64>| Item {
        sort: Sort::Area,
        before: range.start - start,
        ..Item::new(image.path.clone(), range.start..range.start, range)
    };
    let mut at = start;
    for item in items {
        if item.start() < at || item.end > end {
            continue;
        }
        if at < item.start() {
            all.push(area(at..item.start()));
        }
        at = item.end;
        all.push(item);
    }
    if at < end {
        all.push(area(at..end));
    }
    all
}

/// One item that is all content.
pub(crate) fn whole(len: u64) -> Item {
    Item::new(Vec::new(), 0..0, 0..len)
}

/// The members of a tar archive, or `None` if it is none that can be read to its end.
fn tar(file: &File, len: u64) -> Option<Vec<Item>> {
    let mut magic = [0; 5];
    if len < 1024 || file.read_exact_at(&mut magic, 257).is_err() || magic != *b"ustar" {
        return None;
    }
    let input = BufReader::with_capacity(8 << 10, Section::new(file, 0));
    let limits = Limits {
        bytes: u64::MAX,
        ..Limits::default()
    };
    let mut reader = Reader::seeking(input, limits);
    let mut items: Vec<Item> = Vec::new();
    loop {
        let header = match reader.next_header() {
            Ok(Some(header)) => header,
            Ok(None) => break,
            Err(_) => return None,
        };
        let span = reader.span();
        let size = match header.kind {
            Kind::File { size } if !reader.is_sparse() => size,
            Kind::File { .. } => return None,
            _ => 0,
        };
        let data = reader.data_offset();
        if data + size > len || span.start > data {
            return None;
        }
        if let Some(last) = items.last_mut() {
            last.end = span.start;
        }
        items.push(Item::new(
            trimmed(&header.path),
            span.start..data,
            data..data + size,
        ));
    }
    if let Some(last) = items.last_mut() {
        let end = last.content.end.next_multiple_of(512).min(len);
        last.end = end;
        items.push(Item::new(Vec::new(), end..len, len..len));
    }
    Some(items)
}

/// The members of a cpio archive in memory, in the form that the kernel reads; one item that is all
/// content if it is none.
pub(crate) fn cpio(bytes: &[u8]) -> Vec<Item> {
    let len = bytes.len() as u64;
    let mut items: Vec<Item> = Vec::new();
    let mut at = 0;
    while let Some(item) = cpio_item(bytes, at) {
        at = usize::try_from(item.end).unwrap_or(usize::MAX);
        items.push(item);
    }
    let end = at as u64;
    if items.is_empty() {
        return vec![whole(len)];
    }
    if end < len {
        items.push(Item::new(Vec::new(), end..len, len..len));
    }
    items
}

/// Length of a cpio header in bytes.
const CPIO_HEADER: usize = 110;

/// The member of a cpio archive that begins at `at`, if there is one.
pub(crate) fn cpio_item(bytes: &[u8], at: usize) -> Option<Item> {
    let header = bytes.get(at..at.checked_add(CPIO_HEADER)?)?;
    if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
        return None;
    }
    let field = |index: usize| {
        let digits = std::str::from_utf8(&header[6 + 8 * index..][..8]).ok()?;
        usize::from_str_radix(digits, 16).ok()
    };
    let (size, name_len) = (field(6)?, field(11)?);
    let name = bytes.get(at + CPIO_HEADER..(at + CPIO_HEADER).checked_add(name_len)?)?;
    let data = (at + CPIO_HEADER + name_len).next_multiple_of(4);
    let end = data.checked_add(size)?;
    if end > bytes.len() {
        return None;
    }
    let next = end.next_multiple_of(4).min(bytes.len());
    Some(Item {
        end: next as u64,
        ..Item::new(
            trimmed(name.strip_suffix(b"\0").unwrap_or(name)),
            at as u64..data as u64,
            data as u64..end as u64,
        )
    })
}

fn trimmed(path: &[u8]) -> Vec<u8> {
    path.strip_prefix(b"./").unwrap_or(path).to_vec()
}

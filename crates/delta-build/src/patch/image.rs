//! Takes images apart: tar archives, and cpio archives within initial RAM disks.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use system_image_delta::{Kind, Limits, Reader};

use crate::index::Section;
use crate::patch::ramdisk;

/// A member, or what stands between and behind members: then it has no path and no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its path, without `./` in front.
    pub(crate) path: Vec<u8>,
    /// Where its head is.
    pub(crate) head: Range<u64>,
    /// Where its content is.
    pub(crate) content: Range<u64>,
    /// Where the next item begins; what is in between is padding.
    pub(crate) end: u64,
}

/// Takes a file apart. What is no archive is one item that is all content.
pub(crate) fn items(file: &File, len: u64) -> Vec<Item> {
    let items = tar(file, len).unwrap_or_else(|| vec![whole(len)]);
    ramdisk::taken_apart(file, items)
}

fn whole(len: u64) -> Item {
    Item {
        path: Vec::new(),
        head: 0..0,
        content: 0..len,
        end: len,
    }
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
        items.push(Item {
            path: trimmed(&header.path),
            head: span.start..data,
            content: data..data + size,
            end: data + size,
        });
    }
    if let Some(last) = items.last_mut() {
        let end = last.content.end.next_multiple_of(512).min(len);
        last.end = end;
        items.push(Item {
            path: Vec::new(),
            head: end..len,
            content: len..len,
            end: len,
        });
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
        items.push(Item {
            path: Vec::new(),
            head: end..len,
            content: len..len,
            end: len,
        });
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
        path: trimmed(name.strip_suffix(b"\0").unwrap_or(name)),
        head: at as u64..data as u64,
        content: data as u64..end as u64,
        end: next as u64,
    })
}

fn trimmed(path: &[u8]) -> Vec<u8> {
    path.strip_prefix(b"./").unwrap_or(path).to_vec()
}

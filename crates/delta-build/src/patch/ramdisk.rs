//! Takes initial RAM disks apart that begin with archives as they are: what is packed anyway, such
//! as kernel modules, comes first and is not packed again; what follows is.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::patch::image::{self, Item};
use crate::patch::plan;

/// Largest file that is looked into, in bytes.
const LARGEST: u64 = 512 << 20;

/// The items, with those that begin with a cpio archive taken apart: first what stands before the
/// content, then the members of its archives, then, by the path of the whole, what follows them.
pub(crate) fn taken_apart(file: &File, items: Vec<Item>) -> Vec<Item> {
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        match members(file, &item.content) {
            Some(mut members) => {
                let last = members.pop();
                all.push(Item {
                    content: item.head.end..item.head.end,
                    end: item.head.end,
                    ..item.clone()
                });
                all.append(&mut members);
                all.extend(last.map(|last| Item {
                    path: item.path,
                    end: item.end,
                    ..last
                }));
            }
            None => all.push(item),
        }
    }
    all
}

/// The members of the archives that a file begins with, and last what follows them, with the zeros
/// in front of it as its head.
fn members(file: &File, content: &Range<u64>) -> Option<Vec<Item>> {
    let mut magic = [0; 6];
    let size = content.end - content.start;
    if size > LARGEST || file.read_exact_at(&mut magic, content.start).is_err() {
        return None;
    }
    if size < magic.len() as u64 || magic != *b"070701" {
        return None;
    }
    let bytes = plan::read(file, content).ok()?;
    let mut items: Vec<Item> = Vec::new();
    let mut at = 0;
    loop {
        while let Some(item) = image::cpio_item(&bytes, at) {
            at = plan::index(&(item.end..item.end)).start;
            items.push(item);
        }
        let zeros = bytes[at..].iter().take_while(|&&byte| byte == 0).count();
        if image::cpio_item(&bytes, at + zeros).is_none() {
            let (head, rest) = (at as u64, (at + zeros) as u64);
            items.push(Item::new(Vec::new(), head..rest, rest..size));
            break;
        }
        // Another archive follows.
        items.last_mut()?.end = (at + zeros) as u64;
        at += zeros;
    }
    for item in &mut items {
        for range in [&mut item.head, &mut item.content] {
            *range = content.start + range.start..content.start + range.end;
        }
        item.end += content.start;
    }
    (items.len() > 1).then_some(items)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive(members: &[(&str, &str)]) -> Vec<u8> {
        let mut cpio = Vec::new();
        for (name, content) in members.iter().chain(&[("TRAILER!!!", "")]) {
            let fields = [0, 0o100_644, 0, 0, 1, 0, content.len(), 0, 0, 0, 0];
            cpio.extend_from_slice(b"070701");
            for field in fields.into_iter().chain([name.len() + 1, 0]) {
                cpio.extend(format!("{field:08X}").bytes());
            }
            for bytes in [format!("{name}\0").as_bytes(), content.as_bytes()] {
                cpio.extend_from_slice(bytes);
                cpio.resize(cpio.len().next_multiple_of(4), 0);
            }
        }
        cpio.resize(cpio.len().next_multiple_of(512), 0);
        cpio
    }

    #[test]
    fn archives_in_front_are_taken_apart_and_nothing_is_lost() {
        let [one, other] = [
            archive(&[("a", "first"), ("b", "second")]),
            archive(&[("c", "third")]),
        ];
        let packed = b"what follows";
        let content = [&one[..], &other, packed].concat();
        let whole = [&b"head"[..], &content, b"padding"].concat();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&whole).unwrap();
        let end = 4 + content.len() as u64;
        let item = Item {
            end: whole.len() as u64,
            ..Item::new(b"boot/initrd".to_vec(), 0..4, 4..end)
        };
        let items = taken_apart(&file, vec![item]);
        let of = |item: &Item| whole[plan::index(&item.content)].to_vec();
        let found: Vec<_> = items
            .iter()
            .filter(|item| !item.content.is_empty())
            .map(|item| (String::from_utf8(item.path.clone()).unwrap(), of(item)))
            .collect();
        let want = [("a", "first"), ("b", "second"), ("c", "third")];
        let want = want.into_iter().chain([("boot/initrd", "what follows")]);
        let want: Vec<_> = want
            .map(|(path, of)| (path.to_owned(), of.into()))
            .collect();
        assert_eq!(found, want);
        let mut at = 0;
        for item in &items {
            assert_eq!(item.head.start, at);
            assert!(item.head.end == item.content.start && item.content.end <= item.end);
            at = item.end;
        }
        assert_eq!(at, whole.len() as u64);
    }
}

//! Plain bytes of packed members that are kept for the next copy, as many as there is memory for.

use std::collections::HashMap;

/// Length of a page in bytes.
pub const PAGE: usize = 1 << 20;

/// A page of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The view.
    pub(crate) view: usize,
    /// Which page of it.
    pub(crate) page: u64,
}

struct Page {
    bytes: Vec<u8>,
    used: u64,
}

/// The pages that are kept; the one that was used least recently goes first.
#[derive(Default)]
pub(crate) struct Pages {
    kept: HashMap<Key, Page>,
    most: usize,
    clock: u64,
    spare: Vec<Vec<u8>>,
}

impl Pages {
    /// Sets for how many pages there is room, which must be one at least where another is put.
    pub(crate) fn limit(&mut self, most: usize) {
        self.most = most;
        while self.kept.len() > self.most {
            self.drop_oldest();
        }
        self.spare.clear();
    }

    pub(crate) fn get(&mut self, key: Key) -> Option<&[u8]> {
        self.clock += 1;
        let page = self.kept.get_mut(&key)?;
        page.used = self.clock;
        Some(&page.bytes)
    }

    /// Room for a page, emptied.
    pub(crate) fn room(&mut self) -> Vec<u8> {
        while !self.kept.is_empty() && self.kept.len() >= self.most {
            self.drop_oldest();
        }
        self.spare.pop().unwrap_or_default()
    }

    pub(crate) fn put(&mut self, key: Key, bytes: Vec<u8>) {
        self.clock += 1;
        let used = self.clock;
        self.kept.insert(key, Page { bytes, used });
    }

    fn drop_oldest(&mut self) {
        let oldest = self.kept.iter().min_by_key(|(_, page)| page.used);
        if let Some((&key, _)) = oldest
            && let Some(mut page) = self.kept.remove(&key)
        {
            page.bytes.clear();
            self.spare.push(page.bytes);
        }
    }
}

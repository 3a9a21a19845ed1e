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
    /// Empty while nothing has been read from it.
    bytes: Vec<u8>,
    /// When it was put here, and when it was used last.
    put: u64,
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
        let (put, used) = (self.clock, self.clock);
        self.kept.insert(key, Page { bytes, put, used });
    }

    /// Puts a page without its bytes.
    pub(crate) fn put_empty(&mut self, key: Key) {
        drop(self.room());
        self.put(key, Vec::new());
    }

    /// The views that have pages without their bytes, each with the last of them; first the one that
    /// had a page put here longest ago.
    pub(crate) fn empty(&self) -> Vec<Key> {
        let mut views: HashMap<usize, (u64, u64)> = HashMap::new();
        for (key, page) in self.kept.iter().filter(|(_, page)| page.bytes.is_empty()) {
            let (put, last) = views.entry(key.view).or_default();
            *put = page.put.max(*put);
            *last = key.page.max(*last);
        }
        let mut views: Vec<_> = views.into_iter().collect();
        views.sort_unstable_by_key(|&(_, (put, _))| put);
        let keys = views
            .into_iter()
            .map(|(view, (_, page))| Key { view, page });
        keys.collect()
    }

    /// Gives a page its bytes if it is here without them.
    pub(crate) fn fill(&mut self, key: Key, bytes: &mut Vec<u8>) {
        if let Some(page) = self.kept.get_mut(&key)
            && page.bytes.is_empty()
        {
            page.bytes = std::mem::take(bytes);
        }
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

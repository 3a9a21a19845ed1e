//! What a content is known by: that its counterpart holds the same, or its digest. To find it out takes
//! reading all of both images, and is work for all threads before anything is decided.

use std::io;

use sha2::{Digest, Sha256};

use super::{Content, Planner, SHORTEST_FOUND, read};
use crate::parallel;
use crate::patch::image::{Item, Sort};

/// What a content of the target is known by.
#[derive(Clone, Copy)]
pub(super) enum Known {
    /// Its counterpart in the base has the same content, which begins here.
    Same(u64),
    /// Its counterpart has another one; what it is known by, if it is long enough to be searched
    /// for.
    Other(Option<Content>),
}

impl Planner<'_> {
    /// What each of these items of the target is known by.
    pub(super) fn compare(&self, items: &[Item], threads: usize) -> io::Result<Vec<Known>> {
        let known = parallel::each(threads, items, |item| {
            if matches!(item.sort, Sort::Area | Sort::Blocks) || item.len() == 0 {
                return Ok(Known::Other(None));
            }
            let old = self.files.counterpart(&item.path, item.whole());
            let old = old.map(|first| self.piece(item, first));
            self.known(&read(self.target, &item.content)?, old.as_ref())
        });
        known.into_iter().collect()
    }

    /// What these bytes are known by.
    pub(super) fn known(&self, bytes: &[u8], old: Option<&Item>) -> io::Result<Known> {
        let size = bytes.len() as u64;
        if let Some(old) = old
            && old.len() == size
            && read(self.base, &old.content)? == bytes
        {
            return Ok(Known::Same(old.content.start));
        }
        let digest = || (size, Sha256::digest(bytes).into());
        Ok(Known::Other((size >= SHORTEST_FOUND).then(digest)))
    }
}

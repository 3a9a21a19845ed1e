//! All that can be copied, in one line of addresses: the base, and behind it each view that the
//! patch has opened, in its plain form.

use crate::patch::apply::ApplyError;
use crate::patch::base::{Base, at_once};
use crate::patch::blocks::Blocks;
use crate::patch::codec::Codec;
use crate::patch::pages::{Key, PAGE, Pages};
use crate::patch::unpack::Unpacker;
use crate::patch::view::{Cursor, Origin, View};

/// What views have for pages and an unpacker at least while pointers take memory, in bytes.
pub const LEAST_FOR_VIEWS: u64 = 3 << 20;

/// Most views that a patch can open.
const MOST_VIEWS: usize = 1 << 16;

/// The base and the views.
pub(crate) struct Space<'a> {
    base: Base<'a>,
    views: Vec<View>,
    end: u64,
    pages: Pages,
    cursor: Option<(usize, Cursor)>,
    /// Bytes that were unpacked so far, packed and plain.
    work: u64,
    most_work: u64,
    /// Memory for pages and an unpacker together, in bytes.
    memory: u64,
}

impl<'a> Space<'a> {
    pub(crate) fn new(base: Base<'a>, most_work: u64) -> Self {
        Self {
            end: base.len(),
            base,
            views: Vec::new(),
            pages: Pages::default(),
            cursor: None,
            work: 0,
            most_work,
            memory: 0,
        }
    }

    /// How many bytes were unpacked, packed and plain.
    pub(crate) fn work(&self) -> u64 {
        self.work
    }

    /// Sets how much memory there is until the next call, in bytes.
    pub(crate) fn remember(&mut self, memory: u64) {
        if memory < self.memory {
            self.cursor = None;
        }
        self.memory = memory;
        self.limit_pages();
    }

    fn limit_pages(&mut self) {
        let codec = self
            .cursor
            .as_ref()
            .map(|(view, _)| self.views[*view].codec);
        let unpacker = codec.map_or(0, Unpacker::memory);
        let pages = self.memory.saturating_sub(unpacker) / PAGE as u64;
        self.pages
            .limit(usize::try_from(pages).unwrap_or(usize::MAX));
    }

    /// Opens a view behind all that there is.
    pub(crate) fn open(
        &mut self,
        origin: Origin,
        (offset, packed_len): (u64, u64),
        codec: Codec,
        plain_len: u64,
    ) -> Result<(), ApplyError> {
        let end = self.end.checked_add(plain_len);
        let Some(end) = end.filter(|_| self.views.len() < MOST_VIEWS) else {
            return Err(ApplyError::damaged("it opens too many views"));
        };
        if offset.checked_add(packed_len).is_none()
            || codec == Codec::Stored && packed_len != plain_len
        {
            return Err(ApplyError::damaged("a view's length"));
        }
        self.views.push(View {
            start: self.end,
            plain_len,
            origin,
            offset,
            packed_len,
            codec,
        });
        self.end = end;
        Ok(())
    }

    /// Length of the base in bytes.
    pub(crate) fn base_len(&self) -> u64 {
        self.base.len()
    }

    /// Fills `buffer` from the base alone.
    pub(crate) fn read_base(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), ApplyError> {
        self.base.read(buffer, offset)
    }

    /// Fills `buffer` from an address on.
    pub(crate) fn read(
        &mut self,
        mut buffer: &mut [u8],
        mut address: u64,
        target: &Blocks<'_>,
    ) -> Result<(), ApplyError> {
        if address < self.base.len() {
            let left = self.base.len() - address;
            let len = at_once(left, buffer.len());
            let (here, rest) = buffer.split_at_mut(len);
            self.base.read(here, address)?;
            buffer = rest;
            address += len as u64;
        }
        while !buffer.is_empty() {
            let found = self
                .views
                .partition_point(|view| view.start + view.plain_len <= address);
            let Some(view) = self.views.get(found).copied() else {
                return Err(ApplyError::damaged("it copies from nowhere"));
            };
            let at = address - view.start;
            let left = view.plain_len - at;
            let len = at_once(left, buffer.len());
            let len = if view.codec == Codec::Stored {
                self.packed(&view, &mut buffer[..len], view.offset + at, target)?;
                len
            } else {
                self.paged(found, &view, &mut buffer[..len], at, target)?
            };
            buffer = &mut buffer[len..];
            address += len as u64;
        }
        Ok(())
    }

    /// Copies from the page that has the plain byte `at`; how many bytes.
    fn paged(
        &mut self,
        index: usize,
        view: &View,
        buffer: &mut [u8],
        at: u64,
        target: &Blocks<'_>,
    ) -> Result<usize, ApplyError> {
        let key = Key {
            view: index,
            page: at / PAGE as u64,
        };
        if self.pages.get(key).is_none() {
            self.unpack_to(key, view, target)?;
        }
        let page = self.pages.get(key).expect("it was just put there");
        let from = usize::try_from(at % PAGE as u64).expect("it is below a page's length");
        let len = buffer.len().min(page.len() - from);
        buffer[..len].copy_from_slice(&page[from..from + len]);
        Ok(len)
    }

    /// Begins to unpack, if there is memory for that and for a page.
    fn begin(&mut self, codec: Codec) -> Result<Cursor, ApplyError> {
        self.cursor = None;
        let pages = self.memory.saturating_sub(Unpacker::memory(codec)) / PAGE as u64;
        if pages == 0 {
            return Err(ApplyError::damaged("it needs more memory than it says"));
        }
        self.pages
            .limit(usize::try_from(pages).unwrap_or(usize::MAX));
        Cursor::new(codec)
    }

    /// Unpacks a view up to a page, from where it was left or from the beginning.
    fn unpack_to(&mut self, key: Key, view: &View, target: &Blocks<'_>) -> Result<(), ApplyError> {
        let wanted = key.page * PAGE as u64;
        let goes_on =
            matches!(&self.cursor, Some((of, cursor)) if *of == key.view && cursor.at() <= wanted);
        let mut cursor = match self.cursor.take_if(|_| goes_on) {
            Some((_, cursor)) => cursor,
            None => self.begin(view.codec)?,
        };
        loop {
            let page = cursor.at() / PAGE as u64;
            let left = view.plain_len - cursor.at();
            let len = at_once(left, PAGE);
            self.spend(len)?;
            let mut bytes = self.pages.room();
            bytes.resize(len, 0);
            cursor.fill(view, &mut bytes, |buffer, offset| {
                // A packed member may hold next to nothing.
                self.spend(buffer.len())?;
                self.packed(view, buffer, offset, target)
            })?;
            self.pages.put(Key { page, ..key }, bytes);
            if page == key.page {
                break;
            }
        }
        self.cursor = Some((key.view, cursor));
        self.limit_pages();
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), ApplyError> {
        self.work = self.work.saturating_add(bytes as u64);
        if self.work > self.most_work {
            return Err(ApplyError::damaged("it unpacks more than it says"));
        }
        Ok(())
    }

    fn packed(
        &mut self,
        view: &View,
        buffer: &mut [u8],
        offset: u64,
        target: &Blocks<'_>,
    ) -> Result<(), ApplyError> {
        match view.origin {
            Origin::Base => self.base.read(buffer, offset),
            Origin::Target => target.read(buffer, offset),
        }
    }
}

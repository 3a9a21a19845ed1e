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
    /// Whether there are pages without their bytes.
    has_empty_pages: bool,
    place: Option<Place>,
    /// Bytes that a run from the front has unpacked so far, the plain ones alone.
    counted: u64,
    /// Bytes that were unpacked so far, packed and plain, and what beginning to pack comes to.
    work: u64,
    most_work: u64,
    /// Memory for pages and an unpacker together, in bytes.
    memory: u64,
}

/// How far the view is unpacked that was last read beyond its pages.
struct Place {
    view: usize,
    /// Plain bytes so far.
    at: u64,
    /// What unpacks it. A run that passed over that has none.
    cursor: Option<Cursor>,
}

impl<'a> Space<'a> {
    pub(crate) fn new(base: Base<'a>, most_work: u64) -> Self {
        Self {
            end: base.len(),
            base,
            views: Vec::new(),
            pages: Pages::default(),
            has_empty_pages: false,
            place: None,
            counted: 0,
            work: 0,
            most_work,
            memory: 0,
        }
    }

    /// How much work was done, in bytes that are unpacked.
    pub(crate) fn work(&self) -> u64 {
        self.work
    }

    /// Sets how much memory there is until the next call, in bytes.
    pub(crate) fn remember(&mut self, memory: u64) {
        if memory < self.memory {
            self.place = None;
        }
        self.memory = memory;
        let place = self.place.as_ref();
        let codec = place.map(|place| self.views[place.view].codec);
        self.limit_pages(codec.map_or(0, Unpacker::memory));
    }

    /// Limits pages to what is left beside an unpacker; how many find room.
    fn limit_pages(&mut self, unpacker: u64) -> u64 {
        let pages = self.memory.saturating_sub(unpacker) / PAGE as u64;
        self.pages
            .limit(usize::try_from(pages).unwrap_or(usize::MAX));
        pages
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
            let (found, view) = self.view(address)?;
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

    /// Passes over `len` bytes from an address on. Nothing is read, but pages are kept and dropped as
    /// if it were: what follows takes no more work than if this had been read.
    pub(crate) fn pass(&mut self, mut address: u64, mut len: u64) -> Result<(), ApplyError> {
        let in_base = self.base.len().saturating_sub(address).min(len);
        address += in_base;
        len -= in_base;
        while len > 0 {
            let (found, view) = self.view(address)?;
            let at = address - view.start;
            let mut now = len.min(view.plain_len - at);
            if view.codec != Codec::Stored {
                let key = Key {
                    view: found,
                    page: at / PAGE as u64,
                };
                if self.pages.get(key).is_none() {
                    self.pass_to(key, &view)?;
                }
                now = now.min(PAGE as u64 - at % PAGE as u64);
            }
            address += now;
            len -= now;
        }
        Ok(())
    }

    /// Gives the pages their bytes that were passed over and are still kept.
    ///
    /// A view's pages are filled while it is unpacked from its beginning. A run from the front has done
    /// that as well, with no fewer pages and the same unpacker, so this takes neither more work nor more
    /// memory: views come in the order in which the last of their pages came.
    pub(crate) fn fill_pages(&mut self, target: &Blocks<'_>) -> Result<(), ApplyError> {
        if !std::mem::take(&mut self.has_empty_pages) {
            return Ok(());
        }
        for last in self.pages.empty() {
            let view = self.views[last.view];
            let mut cursor = Cursor::new(view.codec)?;
            let mut bytes = Vec::new();
            for page in 0..=last.page {
                let left = view.plain_len - page * PAGE as u64;
                bytes.resize(at_once(left, PAGE), 0);
                self.unpack(&mut cursor, &view, &mut bytes, target)?;
                self.pages.fill(Key { page, ..last }, &mut bytes);
            }
            if let Some(place) = &mut self.place
                && place.view == last.view
                && place.at.div_ceil(PAGE as u64) == last.page + 1
            {
                place.cursor = Some(cursor);
            }
        }
        Ok(())
    }

    /// The view that has an address.
    fn view(&self, address: u64) -> Result<(usize, View), ApplyError> {
        let found = self
            .views
            .partition_point(|view| view.start + view.plain_len <= address);
        let view = self.views.get(found).copied();
        let view = view.ok_or(ApplyError::damaged("it copies from nowhere"))?;
        Ok((found, view))
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
        self.fill_pages(target)?;
        if self.pages.get(key).is_none() {
            self.unpack_to(key, view, target)?;
        }
        let page = self.pages.get(key).expect("it was just put there");
        let from = usize::try_from(at % PAGE as u64).expect("it is below a page's length");
        let len = buffer.len().min(page.len() - from);
        buffer[..len].copy_from_slice(&page[from..from + len]);
        Ok(len)
    }

    /// Makes room for an unpacker, if there is memory for it and for a page.
    fn make_room(&mut self, codec: Codec) -> Result<(), ApplyError> {
        if self.limit_pages(Unpacker::memory(codec)) == 0 {
            return Err(ApplyError::damaged("it needs more memory than it says"));
        }
        Ok(())
    }

    /// Where unpacking goes on for a page of a view: where it was left, or at the beginning.
    fn place(&mut self, key: Key) -> Place {
        let wanted = key.page * PAGE as u64;
        let place = self.place.take();
        place
            .filter(|place| place.view == key.view && place.at <= wanted)
            .unwrap_or(Place {
                view: key.view,
                at: 0,
                cursor: None,
            })
    }

    /// The next page of a view, and its length in bytes.
    fn next(&mut self, place: &mut Place, view: &View) -> Result<(Key, usize), ApplyError> {
        let key = Key {
            view: place.view,
            page: place.at / PAGE as u64,
        };
        let len = at_once(view.plain_len - place.at, PAGE);
        place.at += len as u64;
        self.counted += len as u64;
        self.is_allowed(self.counted)?;
        Ok((key, len))
    }

    /// Does so much work, if it is allowed.
    pub(crate) fn spend(&mut self, work: u64) -> Result<(), ApplyError> {
        self.work = self.work.saturating_add(work);
        self.is_allowed(self.work)
    }

    fn is_allowed(&self, work: u64) -> Result<(), ApplyError> {
        if work > self.most_work {
            return Err(ApplyError::damaged("it unpacks more than it says"));
        }
        Ok(())
    }

    /// Unpacks a view up to a page, from where it was left or from the beginning. Pages on the way are
    /// not kept: they would drive out those that are in use.
    fn unpack_to(
        &mut self,
        wanted: Key,
        view: &View,
        target: &Blocks<'_>,
    ) -> Result<(), ApplyError> {
        let mut place = self.place(wanted);
        self.make_room(view.codec)?;
        let mut bytes = self.pages.room();
        loop {
            let mut cursor = match place.cursor.take() {
                Some(cursor) => cursor,
                None => self.cursor_at(place.at, view, &mut bytes, target)?,
            };
            let (key, len) = self.next(&mut place, view)?;
            bytes.resize(len, 0);
            self.unpack(&mut cursor, view, &mut bytes, target)?;
            place.cursor = Some(cursor);
            if key == wanted {
                break;
            }
        }
        self.pages.put(wanted, bytes);
        self.place = Some(place);
        Ok(())
    }

    /// The same without any bytes.
    fn pass_to(&mut self, wanted: Key, view: &View) -> Result<(), ApplyError> {
        let mut place = self.place(wanted);
        place.cursor = None;
        self.make_room(view.codec)?;
        self.has_empty_pages = true;
        while self.next(&mut place, view)?.0 != wanted {}
        self.pages.put_empty(wanted);
        self.place = Some(place);
        Ok(())
    }

    /// Unpacks a view from its beginning to the plain byte `at`, through a buffer.
    fn cursor_at(
        &mut self,
        at: u64,
        view: &View,
        buffer: &mut Vec<u8>,
        target: &Blocks<'_>,
    ) -> Result<Cursor, ApplyError> {
        let mut cursor = Cursor::new(view.codec)?;
        let mut left = at;
        while left > 0 {
            buffer.resize(at_once(left, PAGE), 0);
            self.unpack(&mut cursor, view, buffer, target)?;
            left -= buffer.len() as u64;
        }
        Ok(cursor)
    }

    fn unpack(
        &mut self,
        cursor: &mut Cursor,
        view: &View,
        bytes: &mut [u8],
        target: &Blocks<'_>,
    ) -> Result<(), ApplyError> {
        self.spend(bytes.len() as u64)?;
        cursor.fill(view, bytes, |buffer, offset| {
            // A packed member may hold next to nothing.
            self.spend(buffer.len() as u64)?;
            self.packed(view, buffer, offset, target)
        })
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

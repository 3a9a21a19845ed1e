//! Decides for each piece of the target where it comes from. In: the two images, taken apart. Out:
//! parts in the order of the target, each a list of segments. Nothing is compared approximately
//! here: that is work for all processors, and comes next.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};
use system_image_delta::patch::Codec;

use crate::patch::area::Areas;
use crate::patch::files::Files;
use crate::patch::image::{Image, Item, Sort, Table};
use crate::patch::packed::{Packings, Remade};
use crate::patch::view::{Shown, View};

mod blocks;
mod known;
mod members;
mod pieces;
mod tables;

use known::Known;
pub(crate) use pieces::Whole;

/// Shortest file that is searched for by its content, in bytes: a copy of less costs as much.
const SHORTEST_FOUND: u64 = 32;

/// Most ranges that views show beside packed members: an applier opens no more than 65536.
const MOST_SHOWN: usize = 60_000;

/// Bytes that can be copied from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    /// The base itself.
    Base,
    /// A view, by its number in [`Plan::views`].
    View(usize),
}

/// A place in one of the spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) space: Space,
    pub(crate) offset: u64,
}

/// Which image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Base,
    Target,
}

/// Where a segment comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// All of it is there.
    Copy(Place),
    /// It has the same length and most of its bytes, each in its place.
    Aligned(Place),
    /// It is made from this, approximately.
    Like(Place, u64),
    /// Nothing like it is known.
    New,
}

/// A run of bytes of a part.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Where its bytes are in what the part makes.
    pub(crate) new: Range<u64>,
    pub(crate) kind: u8,
    pub(crate) source: Source,
}

/// A run of bytes of the target.
pub(crate) struct Part {
    /// The view that has its plain bytes, if it is packed; the target itself otherwise.
    pub(crate) view: Option<usize>,
    pub(crate) segments: Vec<Segment>,
}

/// Everything that was decided.
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    pub(crate) views: Vec<View>,
    /// Programs of the target that stand in pieces.
    pub(crate) programs: Vec<Whole>,
    /// Which of them a segment of the target makes a portion of, and where in it that begins; by where the
    /// segment begins.
    pub(crate) portions: HashMap<u64, (usize, u64)>,
}

/// Kinds of content: each has literals and residues of its own.
pub(crate) mod kind {
    /// Headers of archives, tables of file systems, padding.
    pub(crate) const META: u8 = 0;
    /// Programs.
    pub(crate) const CODE: u8 = 1;
    /// All else.
    pub(crate) const OTHER: u8 = 2;
}

/// Where a content of the target was seen.
#[derive(Clone, Copy)]
enum Seen {
    Target(u64),
    Place(Place),
}

/// A content by its length and SHA-256.
pub(crate) type Content = (u64, [u8; 32]);

/// What came of a search for a content.
#[derive(Clone, Copy)]
enum Found {
    /// All of it is there.
    At(Place),
    /// It is nowhere yet; what it is known by, if it is long enough to be searched for.
    Nowhere(Option<Content>),
}

struct Planner<'a> {
    base: &'a File,
    target: &'a File,
    files: Files,
    digests: HashMap<usize, [u8; 32]>,
    seen: HashMap<Content, Seen>,
    plan: Plan,
    areas: Areas<'a>,
    /// Views of files of the base that stand in pieces, by path.
    joined: HashMap<Vec<u8>, Option<usize>>,
    /// How many ranges views show, packed members left out.
    shown: usize,
    /// Tables of inodes of the base, with the views that show them.
    tables: Vec<(Table, Option<usize>)>,
    /// Files of the target.
    target_files: Files,
    /// Where files of the target that stand in pieces were seen whole.
    seen_wholes: HashMap<Vec<u8>, Option<Place>>,
    /// Programs of the target that stand in pieces, by path.
    programs: HashMap<Vec<u8>, Option<usize>>,
    /// Members of the base's packed members, by the view that shows them.
    inner: HashMap<usize, Files>,
    /// Packed members that can be made again, by the content that they are in.
    remade: HashMap<Content, Vec<Remade>>,
    packings: &'a Packings,
    /// Whether a packed member may be made again, by what that takes.
    allowed: &'a (dyn Fn(Codec, u64) -> bool + Sync),
}

/// Reads a range of a file.
pub(crate) fn read(file: &File, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

/// A range of bytes in memory.
pub(crate) fn index(range: &Range<u64>) -> Range<usize> {
    let to = |at| usize::try_from(at).expect("it is in memory");
    to(range.start)..to(range.end)
}

/// Decides for all of the target; `old` is the base, taken apart.
pub(crate) fn plan(
    (base, old): (&File, Image),
    (target, target_len): (&File, u64),
    (packings, allowed): (&Packings, &(dyn Fn(Codec, u64) -> bool + Sync)),
    threads: usize,
) -> io::Result<Plan> {
    let Image { items, tables } = old;
    let new = Image::read(target, target_len);
    let mut planner = Planner {
        base,
        target,
        areas: Areas::new(base, &items)?,
        joined: HashMap::new(),
        shown: 0,
        target_files: Files::new(new.items),
        tables: tables.into_iter().map(|table| (table, None)).collect(),
        seen_wholes: HashMap::new(),
        files: Files::new(items),
        digests: HashMap::new(),
        seen: HashMap::new(),
        plan: Plan {
            parts: Vec::new(),
            views: Vec::new(),
            programs: Vec::new(),
            portions: HashMap::new(),
        },
        programs: HashMap::new(),
        inner: HashMap::new(),
        remade: HashMap::new(),
        packings,
        allowed,
    };
    let items = planner.target_files.items.clone();
    let known = planner.compare(&items, threads)?;
    planner.remake(&items, &known, threads)?;
    let mut at = 0;
    while let Some(item) = items.get(at) {
        at += match planner.table(&items[at..], &new.tables)? {
            0 => {
                planner.item(item, known[at])?;
                1
            }
            items => items,
        };
    }
    Ok(planner.plan)
}

impl Planner<'_> {
    /// An item of the target itself.
    fn item(&mut self, item: &Item, known: Known) -> io::Result<()> {
        if item.sort == Sort::Area {
            let views = &mut self.plan.views;
            let segments = self.areas.segments(self.target, item, views)?;
            self.plain(segments);
            return Ok(());
        }
        let mut segments = Vec::new();
        let size = item.len();
        let first = self.files.counterpart(&item.path, item.whole()).cloned();
        let old = first.as_ref().map(|first| self.piece(item, first));
        Self::head(item, old.as_ref(), Space::Base, &mut segments);
        if item.sort == Sort::Blocks
            && let Some(old) = old.as_ref().filter(|old| old.sort == Sort::Blocks)
            && let Some((old, new)) = self.both(&old.content, &item.content)
        {
            self.plain(segments);
            self.blocks(old, &new, &item.content)?;
            let mut segments = Vec::new();
            Self::padding(item, None, Space::Base, false, &mut segments);
            self.plain(segments);
            return Ok(());
        }
        if size == 0 {
            Self::padding(item, old.as_ref(), Space::Base, false, &mut segments);
            self.plain(segments);
            return Ok(());
        }
        let found = match self.seen_whole(item)? {
            Some(place) => Found::At(Place {
                offset: place.offset + item.before,
                ..place
            }),
            None => self.found(known, old.as_ref())?,
        };
        let is_new = matches!(found, Found::Nowhere(_));
        if let Found::Nowhere(Some(content)) = found
            && item.is_whole()
        {
            let members = self.remade.remove(&content).unwrap_or_default();
            if !members.is_empty() {
                let seen = Seen::Target(item.content.start);
                self.seen.entry(content).or_insert(seen);
                self.plain(segments);
                self.packed(item, old.as_ref(), members)?;
                let mut segments = Vec::new();
                Self::padding(item, old.as_ref(), Space::Base, false, &mut segments);
                self.plain(segments);
                return Ok(());
            }
        }
        let like = first.filter(|_| is_new).map(|first| self.like(&first));
        let (like, space) = like.unzip();
        let space = space.unwrap_or(Space::Base);
        let seen = Seen::Target(item.content.start);
        let mut source = self.source(found, like.as_ref(), space, seen);
        if let (Sort::Table, Some(old)) = (item.sort, &old)
            && is_new
            && old.len() == size
            && is_mostly(
                &read(self.base, &old.content)?,
                &read(self.target, &item.content)?,
            )
        {
            source = Source::Aligned(Place {
                space: Space::Base,
                offset: old.content.start,
            });
        }
        let is_copy = matches!(source, Source::Copy(_));
        let kind = match item.sort {
            _ if is_copy => kind::META,
            Sort::Table => kind::META,
            _ => self.kind(item)?,
        };
        if kind == kind::CODE && matches!(source, Source::Like(..)) {
            self.portion(item);
        }
        segments.push(Segment {
            new: item.content.clone(),
            kind,
            source,
        });
        Self::padding(item, old.as_ref(), Space::Base, is_copy, &mut segments);
        self.plain(segments);
        Ok(())
    }

    /// Where content comes from that was not found whole; remembers it.
    fn source(&mut self, found: Found, old: Option<&Item>, old_space: Space, seen: Seen) -> Source {
        match found {
            Found::At(place) => return Source::Copy(place),
            Found::Nowhere(Some(content)) => {
                self.seen.entry(content).or_insert(seen);
            }
            Found::Nowhere(None) => {}
        }
        match old.filter(|old| !old.content.is_empty()) {
            Some(old) => Source::Like(
                Place {
                    space: old_space,
                    offset: old.content.start,
                },
                old.content.end - old.content.start,
            ),
            None => Source::New,
        }
    }

    /// Where exactly a content is already, by what it is known by and its counterpart.
    fn found(&mut self, known: Known, old: Option<&Item>) -> io::Result<Found> {
        let content = match known {
            Known::Same(offset) => {
                return Ok(Found::At(Place {
                    space: Space::Base,
                    offset,
                }));
            }
            Known::Other(None) => return Ok(Found::Nowhere(None)),
            Known::Other(Some(content)) => content,
        };
        if let Some(old) = old
            && old.whole() == content.0
            && let Some(view) = self.joined(old)
            && self.plan.views[view].plain_len == content.0
            && Sha256::digest(self.plan.views[view].bytes(self.base, &(0..content.0))?)[..]
                == content.1
        {
            return Ok(Found::At(Place {
                space: Space::View(view),
                offset: 0,
            }));
        }
        self.found_content(content)
    }

    /// Where exactly what is known by this is already.
    fn found_content(&mut self, content: Content) -> io::Result<Found> {
        let size = content.0;
        for &i in self.files.by_size.get(&size).into_iter().flatten() {
            let range = &self.files.items[i].content;
            let known = match self.digests.entry(i) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => *new.insert(Sha256::digest(read(self.base, range)?).into()),
            };
            if known == content.1 {
                return Ok(Found::At(Place {
                    space: Space::Base,
                    offset: range.start,
                }));
            }
        }
        Ok(match self.seen.get(&content).copied() {
            None => Found::Nowhere(Some(content)),
            Some(Seen::Place(place)) => Found::At(place),
            Some(Seen::Target(start)) => {
                let range = start..start + size;
                let place = self.view(Side::Target, range, Codec::Stored, Vec::new(), size);
                self.seen.insert(content, Seen::Place(place));
                Found::At(place)
            }
        })
    }

    fn view(
        &mut self,
        side: Side,
        range: Range<u64>,
        codec: Codec,
        plain: Vec<u8>,
        plain_len: u64,
    ) -> Place {
        self.plan.views.push(View {
            side,
            range,
            rest: Vec::new(),
            codec,
            plain,
            plain_len,
            proved: None,
        });
        Place {
            space: Space::View(self.plan.views.len() - 1),
            offset: 0,
        }
    }

    /// A view of several ranges of the base as one, or nothing if there are too many already.
    fn showing(&mut self, mut all: Vec<Shown>) -> Option<usize> {
        if all.is_empty() || self.shown + all.len() > MOST_SHOWN {
            return None;
        }
        self.shown += all.len();
        let len = all.iter().map(|shown| shown.plain_len).sum();
        let first = all.remove(0);
        let view = self.plan.views.len();
        self.view(Side::Base, first.range, first.codec, Vec::new(), len);
        self.plan.views[view].rest = all;
        Some(view)
    }

    /// The head of an item: that of its counterpart, with some bytes changed, if it has the length.
    fn head(item: &Item, old: Option<&Item>, old_space: Space, segments: &mut Vec<Segment>) {
        let len = item.head.end - item.head.start;
        if len == 0 {
            return;
        }
        let fits = |old: &&Item| old.head.end - old.head.start == len;
        let source = old.filter(fits).map_or(Source::New, |old| {
            Source::Aligned(Place {
                space: old_space,
                offset: old.head.start,
            })
        });
        segments.push(Segment {
            new: item.head.clone(),
            kind: kind::META,
            source,
        });
    }

    /// What follows the content: zeros. Behind a copy, those of the old item go on with it.
    fn padding(
        item: &Item,
        old: Option<&Item>,
        old_space: Space,
        is_copy: bool,
        segments: &mut Vec<Segment>,
    ) {
        let len = item.end - item.content.end;
        if len == 0 {
            return;
        }
        let fits = |old: &&Item| is_copy && old.end - old.content.end == len;
        let source = old.filter(fits).map_or(Source::New, |old| {
            Source::Aligned(Place {
                space: old_space,
                offset: old.content.end,
            })
        });
        segments.push(Segment {
            new: item.content.end..item.end,
            kind: kind::META,
            source,
        });
    }

    /// Appends to the part of the target that is not packed.
    fn plain(&mut self, mut segments: Vec<Segment>) {
        match self.plan.parts.last_mut() {
            Some(Part {
                view: None,
                segments: before,
            }) => before.append(&mut segments),
            _ => self.plan.parts.push(Part {
                view: None,
                segments,
            }),
        }
    }
}

/// Whether most bytes are the same, each in its place.
pub(crate) fn is_mostly(one: &[u8], other: &[u8]) -> bool {
    let same = one.iter().zip(other).filter(|(one, other)| one == other);
    same.count() * 2 >= other.len()
}

/// What kind of content this is.
pub(crate) fn kind_of(bytes: &[u8]) -> u8 {
    if bytes.starts_with(b"\x7fELF") {
        kind::CODE
    } else {
        kind::OTHER
    }
}

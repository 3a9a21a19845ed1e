//! Decides for each piece of the target where it comes from. In: the two images, taken apart. Out:
//! parts in the order of the target, each a list of segments. Nothing is compared approximately
//! here: that is work for all processors, and comes next.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};
use system_image_delta::patch::Codec;

use crate::parallel;
use crate::patch::image::{self, Item};
use crate::patch::packed::{self, Member};

/// Shortest file that is searched for by its content, in bytes: a copy of less costs as much.
const SHORTEST_FOUND: u64 = 32;

/// Shortest file that is looked into, in bytes.
const SHORTEST_PACKED: u64 = 256;

/// Ends of the names of files that are packed.
const PACKED: [&[u8]; 3] = [b".gz", b".xz", b".zst"];

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

/// A view that copies come from.
pub(crate) struct View {
    pub(crate) side: Side,
    pub(crate) range: Range<u64>,
    pub(crate) codec: Codec,
    /// Its plain bytes; empty where it is stored, since then they are the image's own.
    pub(crate) plain: Vec<u8>,
    pub(crate) plain_len: u64,
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
}

/// Kinds of content: each has literals and residues of its own.
pub(crate) mod kind {
    /// Headers of archives and padding.
    pub(crate) const META: u8 = 0;
    /// Programs.
    pub(crate) const CODE: u8 = 1;
    /// All else.
    pub(crate) const OTHER: u8 = 2;
}

/// Files of the base by what they may be asked for.
struct Files {
    items: Vec<Item>,
    by_path: HashMap<Vec<u8>, usize>,
    /// By path with each run of digits made equal: versions come and go.
    by_shape: HashMap<Vec<u8>, Vec<usize>>,
    /// By the same of the last part alone.
    by_name: HashMap<Vec<u8>, Vec<usize>>,
    by_size: HashMap<u64, Vec<usize>>,
}

impl Files {
    fn new(items: Vec<Item>) -> Self {
        let mut files = Self {
            items,
            by_path: HashMap::new(),
            by_shape: HashMap::new(),
            by_name: HashMap::new(),
            by_size: HashMap::new(),
        };
        for (i, item) in files.items.iter().enumerate() {
            files.by_path.insert(item.path.clone(), i);
            files.by_shape.entry(shape(&item.path)).or_default().push(i);
            let size = item.content.end - item.content.start;
            if size > 0 {
                let name = shape(name(&item.path));
                files.by_name.entry(name).or_default().push(i);
                files.by_size.entry(size).or_default().push(i);
            }
        }
        files
    }

    /// The item that had the place of this one.
    fn counterpart(&self, path: &[u8], size: u64) -> Option<&Item> {
        let closest = |found: &Vec<usize>| {
            let size_of = |i: &usize| {
                let content = &self.items[*i].content;
                (content.end - content.start).abs_diff(size)
            };
            found.iter().copied().min_by_key(size_of)
        };
        let same = self.by_path.get(path).copied();
        let is_filled = |i: &usize| size == 0 || !self.items[*i].content.is_empty();
        let found = same
            .filter(is_filled)
            .or_else(|| closest(self.by_shape.get(&shape(path))?).filter(is_filled))
            .or_else(|| {
                let found = self.by_name.get(&shape(name(path)))?;
                let rank = |i: &usize| {
                    let item = &self.items[*i];
                    let size_of = item.content.end - item.content.start;
                    (Reverse(folders(&item.path, path)), size_of.abs_diff(size))
                };
                let closest = found.iter().copied().min_by_key(rank);
                closest.filter(|_| size > 0)
            });
        found.map(|i| &self.items[i])
    }
}

fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// How many of the last folders two paths have in common.
fn folders(one: &[u8], other: &[u8]) -> usize {
    let parts = |path| <[u8]>::rsplit(path, |&byte| byte == b'/').skip(1);
    let pairs = parts(one).zip(parts(other));
    pairs.take_while(|(one, other)| one == other).count()
}

/// A path with each run of digits made equal, and without what tells that a file is packed.
fn shape(path: &[u8]) -> Vec<u8> {
    let path = PACKED
        .iter()
        .find_map(|&suffix| path.strip_suffix(suffix))
        .unwrap_or(path);
    let mut shape = Vec::with_capacity(path.len());
    for &byte in path {
        let byte = if byte.is_ascii_digit() { b'0' } else { byte };
        if byte != b'0' || shape.last() != Some(&b'0') {
            shape.push(byte);
        }
    }
    shape
}

/// Where a content of the target was seen.
#[derive(Clone, Copy)]
enum Seen {
    Target(u64),
    Place(Place),
}

/// A content by its length and SHA-256.
type Content = (u64, [u8; 32]);

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
    /// Members of the base's packed members, by the view that shows them.
    inner: HashMap<usize, Files>,
    /// Packed members that can be made again, by the content that they are in.
    remade: HashMap<Content, Vec<Member>>,
    /// Whether a packed member may be made again, by what that takes.
    allowed: &'a dyn Fn(Codec, u64) -> bool,
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

/// Decides for all of the target.
pub(crate) fn plan(
    (base, base_len): (&File, u64),
    (target, target_len): (&File, u64),
    allowed: &dyn Fn(Codec, u64) -> bool,
    threads: usize,
) -> io::Result<Plan> {
    let mut planner = Planner {
        base,
        target,
        files: Files::new(image::items(base, base_len)),
        digests: HashMap::new(),
        seen: HashMap::new(),
        plan: Plan {
            parts: Vec::new(),
            views: Vec::new(),
        },
        inner: HashMap::new(),
        remade: HashMap::new(),
        allowed,
    };
    let items = image::items(target, target_len);
    planner.remake(&items, threads)?;
    for item in &items {
        planner.item(item)?;
    }
    Ok(planner.plan)
}

impl Planner<'_> {
    /// Looks for packed members in all that is new. To find how they were packed takes much work, for
    /// all threads.
    fn remake(&mut self, items: &[Item], threads: usize) -> io::Result<()> {
        let mut jobs = Vec::new();
        let mut known = HashSet::new();
        for item in items {
            let size = item.content.end - item.content.start;
            if size < SHORTEST_PACKED {
                continue;
            }
            let head = item.content.start..item.content.end.min(item.content.start + packed::HEAD);
            if !packed::may_be(&read(self.target, &head)?) {
                continue;
            }
            let bytes = read(self.target, &item.content)?;
            let old = self.files.counterpart(&item.path, size).cloned();
            if let Found::Nowhere(Some(content)) = self.found(&bytes, old.as_ref())?
                && known.insert(content)
            {
                jobs.push((content, item.content.clone()));
            }
        }
        jobs.sort_by_key(|(content, range)| (Reverse(content.0), range.start));
        let target = self.target;
        let found = parallel::each(threads, &jobs, |(content, range)| {
            let members = packed::remade(&read(target, range)?);
            Ok::<_, io::Error>((*content, members))
        });
        for found in found {
            let (content, mut members) = found?;
            members.retain(|member| (self.allowed)(member.codec, member.plain.len() as u64));
            self.remade.insert(content, members);
        }
        Ok(())
    }

    /// An item of the target itself.
    fn item(&mut self, item: &Item) -> io::Result<()> {
        let mut segments = Vec::new();
        let size = item.content.end - item.content.start;
        let old = self.files.counterpart(&item.path, size).cloned();
        Self::head(item, old.as_ref(), Space::Base, &mut segments);
        if size == 0 {
            self.plain(segments);
            return Ok(());
        }
        let bytes = read(self.target, &item.content)?;
        let found = self.found(&bytes, old.as_ref())?;
        if let Found::Nowhere(Some(content)) = found {
            let members = self.remade.remove(&content).unwrap_or_default();
            if !members.is_empty() {
                let seen = Seen::Target(item.content.start);
                self.seen.entry(content).or_insert(seen);
                self.plain(segments);
                self.packed(item, old.as_ref(), members, &bytes)?;
                let mut segments = Vec::new();
                Self::padding(item, old.as_ref(), Space::Base, false, &mut segments);
                self.plain(segments);
                return Ok(());
            }
        }
        let source = self.source(
            found,
            old.as_ref(),
            Space::Base,
            Seen::Target(item.content.start),
        );
        let is_copy = matches!(source, Source::Copy(_));
        segments.push(Segment {
            new: item.content.clone(),
            kind: if is_copy { kind::META } else { kind_of(&bytes) },
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

    /// Where exactly this content is already.
    fn found(&mut self, bytes: &[u8], old: Option<&Item>) -> io::Result<Found> {
        let size = bytes.len() as u64;
        let at = |content: &Range<u64>| {
            Found::At(Place {
                space: Space::Base,
                offset: content.start,
            })
        };
        if let Some(old) = old
            && old.content.end - old.content.start == size
            && read(self.base, &old.content)? == bytes
        {
            return Ok(at(&old.content));
        }
        if size < SHORTEST_FOUND {
            return Ok(Found::Nowhere(None));
        }
        let content = (size, Sha256::digest(bytes).into());
        for &i in self.files.by_size.get(&size).into_iter().flatten() {
            let range = &self.files.items[i].content;
            let known = match self.digests.entry(i) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => *new.insert(Sha256::digest(read(self.base, range)?).into()),
            };
            if known == content.1 {
                return Ok(at(range));
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
            codec,
            plain,
            plain_len,
        });
        Place {
            space: Space::View(self.plan.views.len() - 1),
            offset: 0,
        }
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

    /// A file with packed members, all of which can be made again.
    fn packed(
        &mut self,
        item: &Item,
        old: Option<&Item>,
        members: Vec<Member>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let old_bytes = old.map(|old| read(self.base, &old.content)).transpose()?;
        let old_members = old_bytes
            .as_deref()
            .map(packed::members)
            .unwrap_or_default();
        let old_start = old.map_or(0, |old| old.content.start);
        let mut old_views = Vec::new();
        for member in old_members {
            let range = old_start + member.range.start as u64..old_start + member.range.end as u64;
            let len = member.plain.len() as u64;
            let place = self.view(Side::Base, range.clone(), member.codec, member.plain, len);
            old_views.push((place, range, len));
        }
        // What was not packed before may be so now.
        if let (Some(old), true) = (old, old_views.is_empty()) {
            let place = Place {
                space: Space::Base,
                offset: old_start,
            };
            let len = old.content.end - old_start;
            old_views.push((place, old.content.clone(), len));
        }
        // What stands between the members is searched for between those of the old file.
        let mut at = 0;
        let mut old_at = old_start;
        for (i, member) in members.into_iter().enumerate() {
            let range = member.range.clone();
            let old_view = old_views.get(i).cloned();
            let old_end = old_view
                .as_ref()
                .map_or(old_at, |(_, range, _)| range.start);
            self.between(item, at..range.start, bytes, old_at..old_end);
            old_at = old_view.as_ref().map_or(old_at, |(_, range, _)| range.end);
            at = range.end;
            let start = item.content.start;
            let target = start + range.start as u64..start + range.end as u64;
            self.member(member, target, old_view.map(|(place, _, len)| (place, len)))?;
        }
        let old_end = old.map_or(0, |old| old.content.end);
        self.between(item, at..bytes.len(), bytes, old_at..old_end);
        Ok(())
    }

    fn between(&mut self, item: &Item, new: Range<usize>, bytes: &[u8], old: Range<u64>) {
        if new.is_empty() {
            return;
        }
        let source = if old.is_empty() {
            Source::New
        } else {
            let place = Place {
                space: Space::Base,
                offset: old.start,
            };
            Source::Like(place, old.end - old.start)
        };
        let start = item.content.start;
        self.plain(vec![Segment {
            new: start + new.start as u64..start + new.end as u64,
            kind: kind_of(&bytes[new]),
            source,
        }]);
    }

    fn member(
        &mut self,
        member: Member,
        range: Range<u64>,
        old: Option<(Place, u64)>,
    ) -> io::Result<()> {
        let items = image::cpio(&member.plain);
        let len = member.plain.len() as u64;
        let old_view = old.and_then(|(place, _)| match place.space {
            Space::View(view) => Some(view),
            Space::Base => None,
        });
        if let Some(view) = old_view
            && !self.inner.contains_key(&view)
        {
            let files = Files::new(image::cpio(&self.plan.views[view].plain));
            self.inner.insert(view, files);
        }
        let is_archive = items.len() > 1;
        // Its own view comes last, so that none of its parts is taken for seen too early.
        let view = self.plan.views.len();
        self.view(Side::Target, range, member.codec, Vec::new(), len);
        let mut segments = Vec::new();
        let mut later = Vec::new();
        for item in &items {
            let size = item.content.end - item.content.start;
            let inner = match old_view {
                Some(view) => {
                    let files = self.inner.get(&view);
                    files.and_then(|files| files.counterpart(&item.path, size).cloned())
                }
                None => old.filter(|_| !is_archive).map(|(place, len)| Item {
                    path: Vec::new(),
                    head: place.offset..place.offset,
                    content: place.offset..place.offset + len,
                    end: place.offset + len,
                }),
            };
            let space = old_view.map_or(Space::Base, Space::View);
            Self::head(item, inner.as_ref(), space, &mut segments);
            let mut is_copy = false;
            if size > 0 {
                let bytes = &member.plain[index(&item.content)];
                let seen = Seen::Place(Place {
                    space: Space::View(view),
                    offset: item.content.start,
                });
                // Members of a RAM disk are mostly files of the system.
                let outer = is_archive
                    .then(|| self.files.counterpart(&item.path, size).cloned())
                    .flatten();
                let mut found = self.found(bytes, outer.as_ref())?;
                // Nothing can be copied out of this member before all of it is made.
                if let Found::Nowhere(content) = &mut found {
                    later.extend(content.take().map(|content| (content, seen)));
                }
                let source = match (&outer, &inner) {
                    (Some(_), _) => self.source(found, outer.as_ref(), Space::Base, seen),
                    _ => self.source(found, inner.as_ref(), space, seen),
                };
                is_copy = matches!(source, Source::Copy(_));
                segments.push(Segment {
                    new: item.content.clone(),
                    kind: if is_copy { kind::META } else { kind_of(bytes) },
                    source,
                });
            }
            Self::padding(item, inner.as_ref(), space, is_copy, &mut segments);
        }
        for (content, seen) in later {
            self.seen.entry(content).or_insert(seen);
        }
        self.plan.views[view].plain = member.plain;
        self.plan.parts.push(Part {
            view: Some(view),
            segments,
        });
        Ok(())
    }
}

/// What kind of content this is.
fn kind_of(bytes: &[u8]) -> u8 {
    if bytes.starts_with(b"\x7fELF") {
        kind::CODE
    } else {
        kind::OTHER
    }
}

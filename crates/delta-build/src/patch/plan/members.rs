//! Decides for files with packed members that can be made again: what they hold is looked at as if it
//! stood in the image itself.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::io;
use std::ops::Range;

use system_image_delta::patch::Codec;

use super::{
    Found, Known, Part, Place, Planner, SHORTEST_FOUND, Seen, Segment, Side, Source, Space, index,
    kind, kind_of, read,
};
use crate::parallel;
use crate::patch::files::Files;
use crate::patch::image::{self, Item, Sort};
use crate::patch::packed::{self, Remade};

/// Shortest file that is looked into, in bytes.
const SHORTEST_PACKED: u64 = 256;

impl Planner<'_> {
    /// Looks for packed members in all that is new. To find how they were packed takes much work, for
    /// all threads.
    pub(super) fn remake(
        &mut self,
        items: &[Item],
        known: &[Known],
        threads: usize,
    ) -> io::Result<()> {
        let mut jobs = Vec::new();
        let mut contents = HashSet::new();
        for (item, known) in items.iter().zip(known) {
            if item.sort != Sort::File || !item.is_whole() || item.len() < SHORTEST_PACKED {
                continue;
            }
            let head = item.content.start..item.content.end.min(item.content.start + packed::HEAD);
            if matches!(known, Known::Same(_)) || !packed::may_be(&read(self.target, &head)?) {
                continue;
            }
            let old = self.files.counterpart(&item.path, item.len()).cloned();
            let old = old.as_ref().map(|old| self.piece(item, old));
            if let Found::Nowhere(Some(content)) = self.found(*known, old.as_ref())?
                && contents.insert(content)
            {
                jobs.push((content, item.content.clone()));
            }
        }
        jobs.sort_by_key(|(content, range)| (Reverse(content.0), range.start));
        let (target, packings, allowed) = (self.target, self.packings, self.allowed);
        let found = parallel::each(threads, &jobs, |(content, range)| {
            let members = packings.remade(*content, &read(target, range)?, allowed);
            Ok::<_, io::Error>((*content, members))
        });
        for found in found {
            let (content, members) = found?;
            self.remade.insert(content, members);
        }
        Ok(())
    }

    /// A file with packed members, all of which can be made again.
    pub(super) fn packed(
        &mut self,
        item: &Item,
        old: Option<&Item>,
        members: Vec<Remade>,
    ) -> io::Result<()> {
        let bytes = &read(self.target, &item.content)?;
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
            let codec = member.codec;
            let blocks = match codec {
                Codec::Lz4Legacy { .. } => {
                    let frame = &old_bytes.as_deref().unwrap_or_default()[member.range.clone()];
                    packed::lz4_blocks(frame, range.start)
                }
                _ => None,
            };
            let shown = blocks.and_then(|blocks| self.showing(blocks));
            let place = match shown {
                Some(view) => Place {
                    space: Space::View(view),
                    offset: 0,
                },
                None => self.view(Side::Base, range.clone(), codec, member.archive(), len),
            };
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
        member: Remade,
        range: Range<u64>,
        old: Option<(Place, u64)>,
    ) -> io::Result<()> {
        let len = member.content.0;
        let items = items_of(&member.plain, len);
        let old_view = old.and_then(|(place, _)| match place.space {
            Space::View(view) => Some(view),
            Space::Base => None,
        });
        if let Some(view) = old_view
            && !self.inner.contains_key(&view)
        {
            let shown = &self.plan.views[view];
            let files = Files::new(items_of(&shown.plain, shown.plain_len));
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
                None => old.filter(|_| !is_archive).map(|(place, len)| {
                    let (start, end) = (place.offset, place.offset + len);
                    Item::new(Vec::new(), start..start, start..end)
                }),
            };
            let space = old_view.map_or(Space::Base, Space::View);
            Self::head(item, inner.as_ref(), space, &mut segments);
            let mut is_copy = false;
            if size > 0 {
                let seen = Seen::Place(Place {
                    space: Space::View(view),
                    offset: item.content.start,
                });
                // Members of a RAM disk are mostly files of the system.
                let outer = is_archive
                    .then(|| self.files.counterpart(&item.path, size).cloned())
                    .flatten();
                let (mut found, kind) = if is_archive {
                    let bytes = &member.plain[index(&item.content)];
                    {
                        let known = self.known(bytes, outer.as_ref())?;
                        (self.found(known, outer.as_ref())?, kind_of(bytes))
                    }
                } else if len < SHORTEST_FOUND {
                    (Found::Nowhere(None), member.kind)
                } else {
                    (self.found_content(member.content)?, member.kind)
                };
                // Nothing can be copied out of this member before all of it is made.
                if let Found::Nowhere(content) = &mut found {
                    later.extend(content.take().map(|content| (content, seen)));
                }
                let source = match &outer {
                    Some(outer) => {
                        let (like, space) = self.like(outer);
                        self.source(found, Some(&like), space, seen)
                    }
                    None => self.source(found, inner.as_ref(), space, seen),
                };
                is_copy = matches!(source, Source::Copy(_));
                segments.push(Segment {
                    new: item.content.clone(),
                    kind: if is_copy { kind::META } else { kind },
                    source,
                });
            }
            Self::padding(item, inner.as_ref(), space, is_copy, &mut segments);
        }
        for (content, seen) in later {
            self.seen.entry(content).or_insert(seen);
        }
        self.plan.views[view].plain = member.plain;
        self.plan.views[view].proved = Some(member.content.1);
        self.plan.parts.push(Part {
            view: Some(view),
            segments,
        });
        Ok(())
    }
}

/// The members of an archive; all as one if it is none, and nothing is held of it.
fn items_of(plain: &[u8], len: u64) -> Vec<Item> {
    if plain.is_empty() {
        vec![image::whole(len)]
    } else {
        image::cpio(plain)
    }
}

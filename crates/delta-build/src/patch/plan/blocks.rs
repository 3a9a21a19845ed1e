//! Decides for images of packed blocks: what is the same is copied as it stands, what changed is
//! searched for in its plain form and packed again.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;

use sha2::{Digest, Sha256};
use system_image_delta::patch::Codec;

use super::{Content, Part, Place, Planner, Segment, Side, Source, Space, kind, kind_of, read};
use crate::patch::files::Files;
use crate::patch::image::Item;
use crate::patch::packed;
use crate::patch::squashfs::{self, Block, Image, Stream};
use crate::patch::view::Shown;
use crate::patch::window::Window;

/// A part of a plain block: which stream it belongs to.
struct Span {
    new: Range<u64>,
    stream: usize,
    /// Where in the stream it stands.
    offset: u64,
}

/// The base, and what was found in it.
pub(super) struct Blocks {
    image: Image,
    files: Files,
    by_path: HashMap<Vec<u8>, usize>,
    /// Where packed blocks stand.
    packed: HashMap<Content, Range<u64>>,
    /// Ends of files by their content, within fragments.
    tails: HashMap<Content, (usize, u64)>,
    /// The views of fragments and of whole streams.
    fragment_views: HashMap<usize, usize>,
    stream_views: HashMap<usize, Option<usize>>,
}

fn content(bytes: &[u8]) -> Content {
    (bytes.len() as u64, Sha256::digest(bytes).into())
}

impl Blocks {
    fn new(base: &File, image: Image) -> io::Result<Self> {
        let (mut packed, mut tails) = (HashMap::new(), HashMap::new());
        let of_streams = image.streams.iter().flat_map(|stream| &stream.blocks);
        for block in of_streams.chain(&image.fragments) {
            let content = content(&read(base, &block.range)?);
            packed.entry(content).or_insert_with(|| block.range.clone());
        }
        let by_fragment = tails_of(&image);
        for (i, fragment) in image.fragments.iter().enumerate() {
            let Some(plain) = squashfs::plain(base, fragment) else {
                continue;
            };
            for span in by_fragment.get(&i).into_iter().flatten() {
                if let Some(bytes) = plain.get(super::index(&span.new)) {
                    tails.entry(content(bytes)).or_insert((i, span.new.start));
                }
            }
        }
        let item = |stream: &Stream| Item::new(stream.path.clone(), 0..0, 0..stream.len());
        let paths = image.streams.iter().enumerate();
        Ok(Self {
            files: Files::new(image.streams.iter().map(item).collect()),
            by_path: paths.map(|(i, stream)| (stream.path.clone(), i)).collect(),
            image,
            packed,
            tails,
            fragment_views: HashMap::new(),
            stream_views: HashMap::new(),
        })
    }
}

/// The ends of files in each fragment, in order.
fn tails_of(image: &Image) -> HashMap<usize, Vec<Span>> {
    let mut all: HashMap<usize, Vec<Span>> = HashMap::new();
    for (stream, of) in image.streams.iter().enumerate() {
        if let Some(tail) = &of.tail {
            all.entry(tail.fragment).or_default().push(Span {
                new: tail.offset..tail.offset + tail.len,
                stream,
                offset: of.len() - tail.len,
            });
        }
    }
    for spans in all.values_mut() {
        spans.sort_by_key(|span| (span.new.start, span.new.end));
    }
    all
}

/// All blocks of an image in order, each with what it holds. Of those that overlap one is kept.
fn in_order(image: &Image) -> Vec<(Block, Vec<Span>)> {
    let mut all = Vec::new();
    for (stream, of) in image.streams.iter().enumerate() {
        let mut offset = 0;
        for block in &of.blocks {
            let new = 0..block.plain_len;
            all.push((
                block.clone(),
                vec![Span {
                    new,
                    stream,
                    offset,
                }],
            ));
            offset += block.plain_len;
        }
    }
    let mut tails = tails_of(image);
    for (i, fragment) in image.fragments.iter().enumerate() {
        all.push((fragment.clone(), tails.remove(&i).unwrap_or_default()));
    }
    all.sort_by_key(|(block, _)| block.range.start);
    let mut at = 0;
    all.retain(|(block, _)| {
        let is_next = block.range.start >= at && !block.range.is_empty();
        at = if is_next { block.range.end } else { at };
        is_next
    });
    all
}

impl Planner<'_> {
    /// Two images of blocks, one of the base and one of the target, that stand there.
    pub(super) fn both(&self, old: &Range<u64>, new: &Range<u64>) -> Option<(Image, Image)> {
        let old = squashfs::read(Window::new(self.base, old))?;
        Some((old, squashfs::read(Window::new(self.target, new))?))
    }

    /// Decides for all of an image of blocks, which stands at `place` in the target.
    pub(super) fn blocks(
        &mut self,
        base: Image,
        new: &Image,
        place: &Range<u64>,
    ) -> io::Result<()> {
        let mut blocks = Blocks::new(self.base, base)?;
        let mut at = place.start;
        for (block, spans) in in_order(new) {
            self.between_blocks(at..block.range.start);
            at = block.range.end;
            self.block(&mut blocks, new, &block, &spans)?;
        }
        self.between_blocks(at..place.end);
        Ok(())
    }

    /// Lengths and indices between blocks.
    fn between_blocks(&mut self, new: Range<u64>) {
        if !new.is_empty() {
            self.plain(vec![Segment {
                new,
                kind: kind::META,
                source: Source::New,
            }]);
        }
    }

    fn block(
        &mut self,
        blocks: &mut Blocks,
        new: &Image,
        block: &Block,
        spans: &[Span],
    ) -> io::Result<()> {
        let bytes = read(self.target, &block.range)?;
        if let Some(old) = blocks.packed.get(&content(&bytes)) {
            let offset = old.start;
            self.plain(vec![Segment {
                new: block.range.clone(),
                kind: kind::META,
                source: Source::Copy(Place {
                    space: Space::Base,
                    offset,
                }),
            }]);
            return Ok(());
        }
        let codec = Codec::ZstdBlock { level: new.level };
        let plain = squashfs::plain(self.target, block)
            .filter(|plain| !block.is_packed || self.is_remade(codec, plain, &bytes));
        let Some(plain) = plain else {
            self.plain(vec![Segment {
                new: block.range.clone(),
                kind: kind::OTHER,
                source: Source::New,
            }]);
            return Ok(());
        };
        let mut segments = self.spans(blocks, new, spans, &plain);
        if !block.is_packed {
            for segment in &mut segments {
                segment.new.start += block.range.start;
                segment.new.end += block.range.start;
            }
            self.plain(segments);
            return Ok(());
        }
        let len = plain.len() as u64;
        let view = self.plan.views.len();
        self.view(Side::Target, block.range.clone(), codec, Vec::new(), len);
        self.plan.views[view].proved = Some(Sha256::digest(&plain).into());
        self.plan.parts.push(Part {
            view: Some(view),
            segments,
        });
        Ok(())
    }

    fn is_remade(&self, codec: Codec, plain: &[u8], bytes: &[u8]) -> bool {
        (self.allowed)(codec, plain.len() as u64) && packed::makes(codec, plain, bytes)
    }

    /// Where each part of a plain block comes from.
    fn spans(
        &mut self,
        blocks: &mut Blocks,
        new: &Image,
        spans: &[Span],
        plain: &[u8],
    ) -> Vec<Segment> {
        let len = plain.len() as u64;
        let mut segments = Vec::new();
        let unknown = |segments: &mut Vec<Segment>, new: Range<u64>| {
            if !new.is_empty() {
                segments.push(Segment {
                    new,
                    kind: kind::OTHER,
                    source: Source::New,
                });
            }
        };
        let mut at = 0;
        for span in spans {
            if span.new.start < at || span.new.end > len || span.new.is_empty() {
                continue;
            }
            unknown(&mut segments, at..span.new.start);
            at = span.new.end;
            let bytes = &plain[super::index(&span.new)];
            let stream = &new.streams[span.stream];
            let source = self.block_source(blocks, stream, bytes);
            let kind = match &source {
                Source::Copy(_) => kind::META,
                _ => self.block_kind(stream, span, bytes),
            };
            segments.push(Segment {
                new: span.new.clone(),
                kind,
                source,
            });
        }
        unknown(&mut segments, at..len);
        segments
    }

    fn block_kind(&self, stream: &Stream, span: &Span, bytes: &[u8]) -> u8 {
        if stream.path.starts_with(b"\0") {
            return kind::META;
        }
        let first = stream.blocks.first().filter(|_| span.offset > 0);
        match first.and_then(|first| squashfs::plain(self.target, first)) {
            Some(first) => kind_of(&first),
            None => kind_of(bytes),
        }
    }

    fn block_source(&mut self, blocks: &mut Blocks, stream: &Stream, bytes: &[u8]) -> Source {
        if let Some(&(fragment, offset)) = blocks.tails.get(&content(bytes))
            && let Some(view) = self.fragment_view(blocks, fragment)
        {
            let space = Space::View(view);
            return Source::Copy(Place { space, offset });
        }
        let old = blocks.files.counterpart(&stream.path, stream.len());
        let Some(&old) = old.and_then(|old| blocks.by_path.get(&old.path)) else {
            return Source::New;
        };
        let place = match &blocks.image.streams[old].tail {
            Some(tail) if blocks.image.streams[old].blocks.is_empty() => {
                let (fragment, offset, len) = (tail.fragment, tail.offset, tail.len);
                let end = blocks.image.fragments[fragment].plain_len;
                self.fragment_view(blocks, fragment)
                    .map(|view| (view, offset.min(end), len.min(end - offset.min(end))))
            }
            _ => self
                .stream_view(blocks, old)
                .map(|view| (view, 0, self.plan.views[view].plain_len)),
        };
        match place {
            Some((view, offset, len)) if len > 0 => {
                let space = Space::View(view);
                Source::Like(Place { space, offset }, len)
            }
            _ => Source::New,
        }
    }

    fn fragment_view(&mut self, blocks: &mut Blocks, fragment: usize) -> Option<usize> {
        if let Some(&view) = blocks.fragment_views.get(&fragment) {
            return Some(view);
        }
        let all = self.sound([&blocks.image.fragments[fragment]])?;
        let view = self.showing(all)?;
        blocks.fragment_views.insert(fragment, view);
        Some(view)
    }

    /// The view of all blocks of a stream, and of the fragment that its end is in.
    fn stream_view(&mut self, blocks: &mut Blocks, stream: usize) -> Option<usize> {
        if let Some(&view) = blocks.stream_views.get(&stream) {
            return view;
        }
        let of = &blocks.image.streams[stream];
        let tail = of.tail.as_ref();
        let tail = tail.map(|tail| &blocks.image.fragments[tail.fragment]);
        let all = self.sound(of.blocks.iter().chain(tail));
        let view = all.and_then(|all| self.showing(all));
        blocks.stream_views.insert(stream, view);
        view
    }

    /// Blocks of the base as a view shows them, or nothing if one of them is damaged.
    fn sound<'b>(&self, blocks: impl IntoIterator<Item = &'b Block>) -> Option<Vec<Shown>> {
        let sound = |block| squashfs::plain(self.base, block).map(|_| shown(block));
        blocks.into_iter().map(sound).collect()
    }
}

fn shown(block: &Block) -> Shown {
    Shown {
        range: block.range.clone(),
        codec: if block.is_packed {
            Codec::ZstdBlock { level: 1 }
        } else {
            Codec::Stored
        },
        plain_len: block.plain_len,
    }
}

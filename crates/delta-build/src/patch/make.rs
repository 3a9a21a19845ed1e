//! Makes a patch of a plan, and proves it by applying it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::iter::Peekable;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};
use system_image_delta::MemberPath;
use system_image_delta::patch::header::DIGEST;
use system_image_delta::patch::{
    ApplyError, Codec, CodecError, Header, Identity, Limits, MEMORY_OF_POINTERS, Output, POINTERS,
    Patch, ReadAt, Remaker,
};

use crate::delta::DeltaError;
use crate::parallel;
use crate::patch::body::Packed;
use crate::patch::emit::{self, Ops, Written};
use crate::patch::image::Image;
use crate::patch::kept::{Kept, Tree};
use crate::patch::matcher::Matcher;
use crate::patch::plan::{self, Part, Place, Plan, Side, Source, Space};
use crate::patch::program;
use crate::patch::view::{Shown, View};

/// Length of a block of the base, as a power of two: read as a whole to check it.
const BASE_BLOCK: u32 = 22;

/// Length of a block of the target, as a power of two: kept in memory until it is checked.
const TARGET_BLOCK: u32 = 21;

/// Memory for pages and unpackers that is always asked for, in bytes.
const LEAST_PAGES: u64 = 3 << 20;

/// Longest piece that is searched as a whole, in bytes: the search takes six times as much.
const LONGEST_SEARCHED: u64 = 128 << 20;

/// How a patch is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most memory that applying it may take, in bytes.
    pub memory: u64,
    /// Threads to work on.
    pub threads: usize,
}

/// What a patch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Length of the patch in bytes.
    pub bytes: u64,
    /// Memory that applying it takes, in bytes.
    pub memory: u64,
    /// Bytes that are unpacked in applying it.
    pub work: u64,
    /// Plain and packed length of each stream, by its number.
    pub streams: Vec<(u64, u64)>,
}

/// Why there is no patch.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// One of the images cannot be read.
    #[error("cannot read the images")]
    Read(#[source] io::Error),
    /// The base is no canonical archive.
    #[error("the base does not lead to a tree")]
    Base(#[source] DeltaError),
    /// The patch cannot be written.
    #[error("cannot write the patch")]
    Write(#[source] io::Error),
    /// The patch did not lead to the target: a fault in this program, or an image that changed.
    #[error("the patch does not do what it should; did an image change meanwhile?")]
    Proof(#[source] ApplyError),
}

/// Writes the patch that makes `target` of `base` to `out`.
pub fn make(
    base: &File,
    target: &File,
    options: Options,
    out: &mut impl Write,
) -> Result<Summary, MakeError> {
    made(base, None, target, options, out)
}

/// Writes the patch that makes `target` of the files of a tree to `out`.
///
/// `base` is the canonical archive that leads to the tree. Its files below `system/` are used, but
/// for those that are left out: other archives may have put something else in their place.
pub fn make_for_tree(
    base: &File,
    is_left_out: &dyn Fn(&MemberPath) -> bool,
    target: &File,
    options: Options,
    out: &mut impl Write,
) -> Result<Summary, MakeError> {
    let tree = Tree::read(base, is_left_out).map_err(MakeError::Base)?;
    made(base, Some(&tree), target, options, out)
}

fn made(
    base: &File,
    tree: Option<&Tree>,
    target: &File,
    mut options: Options,
    out: &mut impl Write,
) -> Result<Summary, MakeError> {
    let base_len = base.metadata().map_err(MakeError::Read)?.len();
    let target_len = target.metadata().map_err(MakeError::Read)?.len();
    let list = tree.map_or(0, Tree::memory);
    options.memory = options.memory.saturating_sub(list);
    let spare = options
        .memory
        .saturating_sub(LEAST_PAGES + fixed(target_len));
    let allowed = |codec: Codec, len: u64| Remaker::memory(codec, len) <= spare;
    // The files are read for their digests while it is found out what is in them.
    let (plan, target_digests, whole) = std::thread::scope(|scope| {
        let digests = scope.spawn(|| {
            let whole = match tree {
                None => Some(digests(base, base_len, BASE_BLOCK)?),
                Some(_) => None,
            };
            Ok::<_, io::Error>((digests(target, target_len, TARGET_BLOCK)?, whole))
        });
        let image = tree.map_or_else(|| Image::read(base, base_len), |tree| tree.image(base));
        let (base, target) = ((base, base_len, image), (target, target_len));
        let plan = plan::plan(base, target, &allowed, options.threads);
        let digests = digests.join().expect("it does not panic");
        plan.and_then(|plan| {
            let (target, base) = digests?;
            Ok((plan, target, base))
        })
    })
    .map_err(MakeError::Read)?;
    let opened = order(&plan);
    let (kept, files) = match tree {
        None => (Kept::all(base_len), None),
        Some(tree) => {
            let (kept, files) = tree.used(used(&plan, &opened));
            (kept, Some(files))
        }
    };
    let old = kept.of(base);
    let base_digests = match whole {
        Some(digests) => digests,
        None => digests(&old, kept.len(), BASE_BLOCK).map_err(MakeError::Read)?,
    };
    let maker = Maker {
        base,
        kept: &kept,
        target,
        plan: &plan,
        starts: starts(&plan, &opened, kept.len()),
        opened,
        spare,
    };
    let written = maker.written(options.threads).map_err(MakeError::Read)?;
    let has_pointers = written.iter().any(Written::has_pointers);
    let body = emit::write(written);
    let lens = (kept.len(), target_len);
    let mut header = header(lens, (base_digests, target_digests), &plan, has_pointers);
    let encoder = encoder(&plan);
    let is_packed = plan.views.iter().any(|view| view.codec != Codec::Stored);
    let remade = remade(&plan);
    // What packed members hold is no longer needed, and packing takes memory, too.
    drop(plan);
    let pointers = if has_pointers { MEMORY_OF_POINTERS } else { 0 };
    let beside = Patch::<&[u8]>::fixed_memory(&header) + encoder + LEAST_PAGES;
    let packed = body
        .pack(options.threads, options.memory.saturating_sub(beside))
        .map_err(MakeError::Write)?;
    header.dictionaries.clone_from(&packed.dictionaries);
    // All that is allowed is used for pages, where there is something to unpack.
    header.memory = if is_packed {
        options.memory
    } else {
        Patch::<&[u8]>::fixed_memory(&header) + encoder + pointers
    };
    let header = prove(header, &packed, &old, target, &remade)?;
    let mut front = match files {
        Some(files) => files.to_bytes().map_err(MakeError::Write)?,
        None => Vec::new(),
    };
    front.append(&mut header.to_bytes());
    out.write_all(&front)
        .and_then(|()| out.write_all(&packed.bytes))
        .map_err(MakeError::Write)?;
    Ok(Summary {
        bytes: (front.len() + packed.bytes.len()) as u64,
        memory: header.memory + list,
        work: header.work,
        streams: packed.lengths,
    })
}

/// What applying takes beside pages and encoders, about: some streams are large, most are small.
fn fixed(target_len: u64) -> u64 {
    const STREAMS: u64 = 9 * ((1 << 20) + (128 << 10));
    STREAMS + 2 * target_len.min(1 << TARGET_BLOCK)
}

/// Where each view begins in the applier's line of addresses, in the order in which they open.
fn starts(plan: &Plan, order: &[usize], base_len: u64) -> Vec<u64> {
    let mut starts = vec![0; plan.views.len()];
    let mut end = base_len;
    for &i in order {
        starts[i] = end;
        end += plan.views[i].plain_len;
    }
    starts
}

/// The views that something is copied from, in the order in which they open.
fn order(plan: &Plan) -> Vec<usize> {
    let mut used = vec![false; plan.views.len()];
    for segment in plan.parts.iter().flat_map(|part| &part.segments) {
        if let Source::Copy(place) | Source::Aligned(place) | Source::Like(place, _) =
            segment.source
            && let Space::View(view) = place.space
        {
            used[view] = true;
        }
    }
    let mut order: Vec<usize> = (0..used.len()).filter(|&i| used[i]).collect();
    order.sort_by_key(|&i| opens(plan, i));
    order
}

/// The ranges of the base that something comes from.
fn used(plan: &Plan, opened: &[usize]) -> Vec<Range<u64>> {
    let mut used = Vec::new();
    for segment in plan.parts.iter().flat_map(|part| &part.segments) {
        let (place, len) = match segment.source {
            Source::Copy(place) | Source::Aligned(place) => {
                (place, segment.new.end - segment.new.start)
            }
            Source::Like(place, len) => (place, len),
            Source::New => continue,
        };
        if place.space == Space::Base {
            used.push(place.offset..place.offset + len);
        }
    }
    let views = opened.iter().map(|&view| &plan.views[view]);
    let of_base = views.filter(|view| view.side == Side::Base);
    used.extend(of_base.flat_map(View::shown).map(|shown| shown.range));
    used
}

/// When a view opens: those of the base first, then those of the target as they end.
fn opens(plan: &Plan, view: usize) -> (bool, u64, u64, usize) {
    let view_ = &plan.views[view];
    match view_.side {
        Side::Base => (false, 0, 0, view),
        Side::Target => (true, view_.range.end, view_.range.start, view),
    }
}

/// Segments that are searched for in the same old bytes, by part and segment.
type Job = Vec<(usize, usize)>;

struct Maker<'a> {
    base: &'a File,
    kept: &'a Kept,
    target: &'a File,
    plan: &'a Plan,
    /// The views that are opened, in order.
    opened: Vec<usize>,
    starts: Vec<u64>,
    /// Memory for encoders and pointers, in bytes.
    spare: u64,
}

impl Maker<'_> {
    fn address(&self, place: Place) -> u64 {
        match place.space {
            Space::Base => self.kept.place(place.offset),
            Space::View(view) => self.starts[view] + place.offset,
        }
    }

    /// The bytes from a place on.
    fn old(&self, place: Place, len: u64) -> io::Result<Vec<u8>> {
        let range = place.offset..place.offset + len;
        match place.space {
            Space::Base => plan::read(self.base, &range),
            Space::View(view) => {
                let view = &self.plan.views[view];
                let file = match view.side {
                    Side::Base => self.base,
                    Side::Target => self.target,
                };
                view.bytes(file, &range)
            }
        }
    }

    /// The bytes of a part that are to be made.
    fn wanted(&self, part: &Part, range: &Range<u64>) -> io::Result<Vec<u8>> {
        match part.view {
            None => plan::read(self.target, range),
            Some(view) => self.plan.views[view].bytes(self.target, range),
        }
    }

    /// Whether there is memory for pointers while a part is made.
    fn has_room(&self, part: &Part) -> bool {
        let encoder = part.view.map_or(0, |view| {
            let view = &self.plan.views[view];
            Remaker::memory(view.codec, view.plain_len)
        });
        encoder + MEMORY_OF_POINTERS <= self.spare
    }

    /// All ops of a segment.
    fn ops(&self, at: (usize, usize)) -> io::Result<Ops> {
        let part = &self.plan.parts[at.0];
        let segment = &part.segments[at.1];
        let mut ops = Ops::default();
        let len = segment.new.end - segment.new.start;
        match segment.source {
            Source::Copy(place) => ops.copied(self.address(place), len),
            Source::Aligned(place) => {
                let (old, new) = (self.old(place, len)?, self.wanted(part, &segment.new)?);
                ops.copy(self.address(place), &old, &new);
            }
            Source::New => ops.literal(&self.wanted(part, &segment.new)?),
            Source::Like(place, old_len) => {
                let mut searched = self.search(place, old_len, &[at])?;
                ops.append(searched.remove(0));
            }
        }
        Ok(ops)
    }

    /// The ops of all segments that have to be searched for, by part and segment: work for all
    /// threads, the longest first, or one thread ends long after the others.
    fn searched(&self, threads: usize) -> io::Result<HashMap<(usize, usize), Ops>> {
        // What is searched for in the same bytes is one job: they are made ready only once.
        let mut jobs: HashMap<(Place, u64), (u64, Job)> = HashMap::new();
        for (i, part) in self.plan.parts.iter().enumerate() {
            for (k, segment) in part.segments.iter().enumerate() {
                if let Source::Like(place, len) = segment.source {
                    let (weight, job) = jobs.entry((place, len)).or_insert((len, Vec::new()));
                    *weight += segment.new.end - segment.new.start;
                    job.push((i, k));
                }
            }
        }
        let mut jobs: Vec<_> = jobs.into_iter().collect();
        jobs.sort_by_key(|(_, (weight, job))| (std::cmp::Reverse(*weight), job[0]));
        let results = parallel::each(threads, &jobs, |&((place, len), (_, ref job))| {
            let mut ops = self.search(place, len, job)?;
            ops.iter_mut().for_each(Ops::shrink);
            Ok::<_, io::Error>(ops)
        });
        let mut all = HashMap::new();
        for ((_, (_, job)), ops) in jobs.into_iter().zip(results) {
            all.extend(job.into_iter().zip(ops?));
        }
        Ok(all)
    }

    /// The ops of segments that are searched for in the same old bytes.
    fn search(&self, place: Place, len: u64, job: &[(usize, usize)]) -> io::Result<Vec<Ops>> {
        let old = if len <= LONGEST_SEARCHED {
            self.old(place, len)?
        } else {
            Vec::new()
        };
        let address = self.address(place);
        let mut matcher = None;
        let ops = job.iter().map(|&(i, k)| {
            let part = &self.plan.parts[i];
            let new = self.wanted(part, &part.segments[k].new)?;
            let mut ops = Ops::default();
            if len.max(new.len() as u64) > LONGEST_SEARCHED {
                ops.literal(&new);
                return Ok(ops);
            }
            if let Some(Ok(made)) = program::search(&old, &new, self.has_room(part)) {
                return Ok(Ops::program(address, made, &new));
            }
            match matcher.get_or_insert_with(|| Matcher::new(&old).ok()) {
                Some(matcher) => search(&mut ops, address, matcher, &old, &new),
                None => ops.literal(&new),
            }
            Ok(ops)
        });
        ops.collect()
    }

    /// Everything, in order.
    fn written(&self, threads: usize) -> io::Result<Vec<Written>> {
        let mut searched = self.searched(threads)?;
        let mut views = self.opened.iter().copied().peekable();
        let mut all = Vec::new();
        let mut made = 0;
        for (i, part) in self.plan.parts.iter().enumerate() {
            let mut run: Option<(u8, Ops)> = None;
            let packed = part.view.map(|view| &self.plan.views[view]);
            if let Some(view) = packed {
                self.open(&mut views, made, &mut all);
                let mut control = vec![2, view.plain_len];
                control.extend(view.codec.numbers());
                all.push(Written::Control(control));
            }
            for (k, segment) in part.segments.iter().enumerate() {
                if packed.is_none() && views.peek().is_some_and(|&next| self.is_there(next, made)) {
                    flush(&mut run, false, &mut all);
                    self.open(&mut views, made, &mut all);
                }
                let ops = match searched.remove(&(i, k)) {
                    Some(ops) => ops,
                    None => self.ops((i, k))?,
                };
                match &mut run {
                    // Copies without residues are of every kind.
                    Some((kind, run))
                        if run.pointers.is_none()
                            && ops.pointers.is_none()
                            && (*kind == segment.kind || ops.are_bare()) =>
                    {
                        run.append(ops);
                    }
                    _ => {
                        flush(&mut run, packed.is_some(), &mut all);
                        run = Some((segment.kind, ops));
                    }
                }
                if packed.is_none() {
                    made = segment.new.end;
                }
            }
            flush(&mut run, packed.is_some(), &mut all);
            if let Some(view) = packed {
                made = view.range.end;
            }
        }
        Ok(all)
    }

    /// Opens the next views, as far as what they show is there.
    fn open(
        &self,
        views: &mut Peekable<impl Iterator<Item = usize>>,
        made: u64,
        all: &mut Vec<Written>,
    ) {
        while let Some(next) = views.next_if(|&next| self.is_there(next, made)) {
            let view = &self.plan.views[next];
            let openings = view.shown().into_iter().map(|shown| {
                let start = match view.side {
                    Side::Base => self.kept.place(shown.range.start),
                    Side::Target => shown.range.start,
                };
                opening(view.side, start, &shown)
            });
            all.extend(openings.map(Written::Control));
        }
    }

    /// Whether all that a view shows is made already.
    fn is_there(&self, view: usize, made: u64) -> bool {
        let view = &self.plan.views[view];
        view.side == Side::Base || view.range.end <= made
    }
}

/// The control numbers that open a range of a view.
fn opening(side: Side, start: u64, shown: &Shown) -> Vec<u64> {
    let mut control = vec![
        3,
        u64::from(side == Side::Target),
        start,
        shown.range.end - shown.range.start,
        shown.plain_len,
    ];
    control.extend(shown.codec.numbers());
    control
}

fn flush(run: &mut Option<(u8, Ops)>, is_packed: bool, all: &mut Vec<Written>) {
    if let Some((kind, ops)) = run.take()
        && ops.len > 0
    {
        if !is_packed {
            all.push(Written::Control(vec![1]));
        }
        all.push(Written::Run { kind, ops });
    }
}

/// Appends what makes `new` of `old`, which stands at `address`.
fn search(ops: &mut Ops, address: u64, matcher: &Matcher<'_>, old: &[u8], new: &[u8]) {
    let mut at = 0;
    for step in matcher.steps(new) {
        if step.literal > 0 {
            ops.literal(&new[at..at + step.literal]);
            at += step.literal;
        }
        let end = at + step.copy;
        let from = &old[step.old..step.old + step.copy];
        ops.copy(address + step.old as u64, from, &new[at..end]);
        at = end;
    }
}

/// The digest of a file, and of each of its blocks.
type Digests = ([u8; 32], Vec<[u8; DIGEST]>);

fn header(
    (base_len, target_len): (u64, u64),
    ((base_digest, base_digests), (target_digest, target_digests)): (Digests, Digests),
    plan: &Plan,
    has_pointers: bool,
) -> Header {
    let features = remade_views(plan).filter_map(|view| view.codec.feature());
    let features = features.chain(has_pointers.then_some(POINTERS));
    let required: BTreeSet<&str> = features.collect();
    Header {
        required: required.into_iter().map(str::to_owned).collect(),
        optional: Vec::new(),
        base: Identity {
            len: base_len,
            sha256: base_digest,
        },
        target: Identity {
            len: target_len,
            sha256: target_digest,
        },
        base_block: BASE_BLOCK,
        target_block: TARGET_BLOCK,
        memory: 0,
        work: u64::MAX,
        dictionaries: Vec::new(),
        base_digests: base_digests.into_iter().map(Some).collect(),
        target_digests,
    }
}

/// What the packed parts hold, in order.
fn remade_views(plan: &Plan) -> impl Iterator<Item = &View> {
    let views = plan.parts.iter().filter_map(|part| part.view);
    views.map(|view| &plan.views[view])
}

/// What the largest encoder of the packed parts takes in memory, in bytes.
fn encoder(plan: &Plan) -> u64 {
    let each = remade_views(plan).map(|view| Remaker::memory(view.codec, view.plain_len));
    each.max().unwrap_or(0)
}

fn digests(bytes: &dyn ReadAt, len: u64, block: u32) -> io::Result<Digests> {
    let mut whole = Sha256::new();
    let mut blocks = Vec::new();
    let mut buffer = vec![0; 1 << block];
    // Much of a file system is empty.
    let empty: [u8; 32] = Sha256::digest(&buffer).into();
    let is_empty = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    for start in (0..len).step_by(1 << block) {
        let size = (len - start).min(1 << block);
        let piece = &mut buffer[..usize::try_from(size).expect("it is a block at most")];
        bytes.read_exact_at(piece, start)?;
        whole.update(&*piece);
        let digest: [u8; 32] = if size == 1 << block && is_empty(piece) {
            empty
        } else {
            Sha256::digest(&*piece).into()
        };
        blocks.push(digest[..DIGEST].try_into().expect("it has 32 bytes"));
    }
    Ok((whole.finalize().into(), blocks))
}

/// A packed part whose packing is proved already: the digest of what it holds, and where it is in
/// the target.
type Known = ([u8; 32], Range<u64>);

/// The packed parts, in order; nothing for those whose packing is not proved.
fn remade(plan: &Plan) -> Vec<Option<Known>> {
    let known = |view: &View| Some((view.proved?, view.range.clone()));
    remade_views(plan).map(known).collect()
}

/// Applies the patch, and notes in its header what that took. Members whose
/// packing is proved are not packed once more: what they hold is compared.
fn prove(
    mut header: Header,
    packed: &Packed,
    base: &dyn ReadAt,
    target: &File,
    remade: &[Option<Known>],
) -> Result<Header, MakeError> {
    let front = header.to_bytes();
    let input = io::Read::chain(&front[..], &packed.bytes[..]);
    let patch = Patch::open(input).map_err(|error| MakeError::Write(io::Error::other(error)))?;
    let limits = Limits {
        memory: u64::MAX,
        work: u64::MAX,
    };
    let watched = Watched {
        base,
        used: header.base_digests.iter().map(|_| false.into()).collect(),
    };
    let mut remade = remade.iter();
    let mut known = |codec, len, memory| {
        let Some((digest, range)) = remade.next().ok_or(CodecError::Unknown)? else {
            return Remaker::new(codec, len, memory);
        };
        let packed = plan::read(target, range).map_err(CodecError::Read)?;
        Ok(Remaker::known(*digest, packed))
    };
    let applied = patch
        .apply_with(&watched, &mut Compared { target }, limits, &mut known)
        .map_err(MakeError::Proof)?;
    header.work = applied.work;
    for (digest, used) in header.base_digests.iter_mut().zip(watched.used) {
        if !used.into_inner() {
            *digest = None;
        }
    }
    Ok(header)
}

/// A base that notes which of its blocks are read.
struct Watched<'a> {
    base: &'a dyn ReadAt,
    used: Vec<AtomicBool>,
}

impl ReadAt for Watched<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        for block in offset >> BASE_BLOCK..end.div_ceil(1 << BASE_BLOCK) {
            if let Some(used) = usize::try_from(block).ok().and_then(|at| self.used.get(at)) {
                used.store(true, Ordering::Relaxed);
            }
        }
        self.base.read_exact_at(buffer, offset)
    }
}

/// Where a proof goes: the target, which is there already. The digests tell whether it is the same.
struct Compared<'a> {
    target: &'a File,
}

impl ReadAt for Compared<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        ReadAt::read_exact_at(self.target, buffer, offset)
    }
}

impl Output for Compared<'_> {
    fn write_all_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
}

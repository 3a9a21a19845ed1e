//! Makes a patch of a plan, and proves it by applying it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::thread::{self, ScopedJoinHandle};

use sha2::{Digest, Sha256};
use system_image_delta::MemberPath;
use system_image_delta::patch::header::DIGEST;
use system_image_delta::patch::{
    ApplyError, Codec, Header, Identity, LEAST_FOR_VIEWS, POINTERS, Patch, ReadAt,
};

use crate::delta::DeltaError;
use crate::patch::body::{Body, Packed};
use crate::patch::effort::Effort;
use crate::patch::emit::{self, Written};
use crate::patch::image::Image;
use crate::patch::kept::{Kept, Tree};
use crate::patch::maker::Maker;
use crate::patch::packed::Packings;
use crate::patch::plan::{self, Plan, Side, Source, Space};
use crate::patch::proof::{Stamp, prove, remade};
use crate::patch::room;
use crate::patch::view::View;

/// Length of a block of the base, as a power of two: read as a whole to check it.
pub(super) const BASE_BLOCK: u32 = 22;

/// Length of a block of the target, as a power of two, for an applier that may take so much memory: two
/// are kept until they are checked.
fn target_block(memory: u64) -> u32 {
    const LITTLE: u64 = 48 << 20;
    if memory < LITTLE { 19 } else { 21 }
}

/// How a patch is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Most memory that applying it may take, in bytes.
    pub memory: u64,
    /// Threads to work on.
    pub threads: usize,
    /// How hard to try.
    pub effort: Effort,
    /// What other patches found out. Those that are made with the same spare each other work.
    pub packings: Option<&'a Packings>,
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
    /// One of the images was written to meanwhile.
    #[error("an image changed while the patch was made")]
    Changed,
    /// The patch did not lead to the target: a fault in this program.
    #[error("the patch does not do what it should")]
    Proof(#[source] ApplyError),
}

/// Writes the patch that makes `target` of `base` to `out`.
pub fn make(
    base: &File,
    target: &File,
    options: Options<'_>,
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
    options: Options<'_>,
    out: &mut impl Write,
) -> Result<Summary, MakeError> {
    let tree = Tree::read(base, is_left_out).map_err(MakeError::Base)?;
    made(base, Some(&tree), target, options, out)
}

fn made(
    base: &File,
    tree: Option<&Tree>,
    target: &File,
    mut options: Options<'_>,
    out: &mut impl Write,
) -> Result<Summary, MakeError> {
    let stamps = || Ok([Stamp::of(base)?, Stamp::of(target)?]);
    let before = stamps().map_err(MakeError::Read)?;
    let base_len = base.metadata().map_err(MakeError::Read)?.len();
    let target_len = target.metadata().map_err(MakeError::Read)?.len();
    let for_list = tree.map_or(0, Tree::memory);
    options.memory = options.memory.saturating_sub(for_list);
    let target_block = target_block(options.memory);
    let spare = options
        .memory
        .saturating_sub(LEAST_FOR_VIEWS + fixed(options.memory, target_len.min(1 << target_block)));
    let beside_types = room::beside_types(spare);
    let (spare, has_types) = (beside_types.unwrap_or(spare), beside_types.is_some());
    // Nothing but the end waits for digests: they are taken while processors have little else to do.
    let made = thread::scope(|scope| {
        let of_files = scope.spawn(|| {
            let of_base = tree.is_none().then(|| digests(base, base_len, BASE_BLOCK));
            Ok((
                of_base.transpose()?,
                digests(target, target_len, target_block)?,
            ))
        });
        let plan = planned((base, base_len, tree), (target, target_len), spare, options)?;
        let opened = order(&plan);
        let (kept, files) = match tree {
            None => (Kept::all(base_len), None),
            Some(tree) => {
                let (kept, files) = tree.used(used(&plan, &opened));
                (kept, Some(files))
            }
        };
        let old = kept.of(base);
        let lens = (kept.len(), (target_len, target_block));
        let remade = remade(&plan);
        let body = Unpacked::new(
            (plan, opened),
            (base, &kept, target),
            lens,
            (spare, has_types, options),
        )?;
        thread::scope(|scope| {
            let of_kept = tree.map(|_| scope.spawn(|| digests(&old, kept.len(), BASE_BLOCK)));
            let (mut header, packed) = body.pack(options)?;
            let proof = prove(&header, &packed, &old, target, &remade)?;
            let (of_base, of_target) = joined(of_files)?;
            let of_base = match of_kept {
                Some(of_kept) => Some(joined(of_kept)?),
                None => of_base,
            };
            let of_base = of_base.expect("they are those of the file or of what is kept of it");
            header.base.sha256 = of_base.0;
            header.target.sha256 = of_target.0;
            let of_base = of_base.1.into_iter().zip(proof.used);
            let of_base = of_base.map(|(digest, is_used)| is_used.then_some(digest));
            header.base_digests = of_base.collect();
            header.target_digests = of_target.1;
            header.work = proof.work;
            Ok((header, files, packed))
        })
    });
    if stamps().map_err(MakeError::Read)? != before {
        return Err(MakeError::Changed);
    }
    let (header, files, packed) = made?;
    let list = files.map(|files| files.to_bytes()).transpose();
    let mut front = list.map_err(MakeError::Write)?.unwrap_or_default();
    front.append(&mut header.to_bytes());
    out.write_all(&front)
        .and_then(|()| out.write_all(&packed.bytes))
        .map_err(MakeError::Write)?;
    Ok(Summary {
        bytes: (front.len() + packed.bytes.len()) as u64,
        memory: header.memory + for_list,
        work: header.work,
        streams: packed.lengths,
    })
}

/// Finds out what the target is made from.
fn planned(
    (base, base_len, tree): (&File, u64, Option<&Tree>),
    target: (&File, u64),
    spare: u64,
    options: Options<'_>,
) -> Result<Plan, MakeError> {
    let fresh = Packings::default();
    let packings = options.packings.unwrap_or(&fresh);
    let allowed = |codec: Codec, len: u64| room::may_be_remade(codec, len, spare);
    let image = tree.map_or_else(|| Image::read(base, base_len), |tree| tree.image(base));
    let base = (base, image);
    let plan = plan::plan(base, target, (packings, &allowed), options.threads);
    let mut plan = plan.map_err(MakeError::Read)?;
    room::leave_out(&mut plan, spare);
    Ok(plan)
}

/// What came of reading on a thread.
fn joined<T>(thread: ScopedJoinHandle<'_, io::Result<T>>) -> Result<T, MakeError> {
    let read = thread.join().expect("it does not panic");
    read.map_err(MakeError::Read)
}

/// A patch that is not packed yet.
struct Unpacked {
    /// Without digests, and without what packing and a proof tell.
    header: Header,
    body: Body,
    /// Memory in bytes that applying it takes beside what the header and streams do.
    beside: u64,
    /// Whether there is something to unpack.
    is_packed: bool,
}

impl Unpacked {
    /// Writes a plan down.
    fn new(
        (plan, opened): (Plan, Vec<usize>),
        (base, kept, target): (&File, &Kept, &File),
        (base_len, (target_len, target_block)): (u64, (u64, u32)),
        (spare, has_types, options): (u64, bool, Options<'_>),
    ) -> Result<Self, MakeError> {
        let mut maker = Maker {
            base,
            kept,
            target,
            plan: &plan,
            starts: starts(&plan, &opened, base_len),
            opened,
            spare,
            effort: options.effort,
            has_types,
            numberings: None,
        };
        let written = maker.written(options.threads).map_err(MakeError::Read)?;
        let needed: BTreeSet<_> = written.iter().flat_map(Written::features).collect();
        let has_pointers = needed.contains(POINTERS);
        let required = features(&plan, &maker.opened).chain(needed).collect();
        Ok(Self {
            header: header(base_len, (target_len, target_block), required),
            body: emit::write(written),
            beside: room::beside_streams(&plan, has_pointers, spare),
            is_packed: plan.views.iter().any(|view| view.codec != Codec::Stored),
        })
    }

    fn pack(self, options: Options<'_>) -> Result<(Header, Packed), MakeError> {
        let mut header = self.header;
        let taken = |header: &Header| Patch::<&[u8]>::fixed_memory(header) + self.beside;
        let left = options.memory.saturating_sub(taken(&header));
        let usual = streams(options.memory);
        let for_streams = match (self.is_packed, self.body.is_mostly_new()) {
            (false, _) => left,
            (true, false) => left.min(usual),
            (true, true) => left.min(usual.max(left.saturating_sub(PAGES_ENOUGH))),
        };
        let packed = self
            .body
            .pack(options.threads, for_streams, options.effort)
            .map_err(MakeError::Write)?;
        header.dictionaries.clone_from(&packed.dictionaries);
        // All that is allowed is used for pages, where there is something to unpack.
        header.memory = if self.is_packed {
            options.memory
        } else {
            taken(&header)
        };
        Ok((header, packed))
    }
}

/// What applying takes of so much memory beside pages and encoders, about, with blocks of the target of
/// that length.
fn fixed(memory: u64, target_block: u64) -> u64 {
    streams(memory) + 2 * target_block
}

/// Memory in bytes for pages where much is new, and little comes out of packed members: what is left goes
/// to dictionaries. Elsewhere it all is for pages, as it was planned: with fewer, members would be unpacked
/// again and again.
const PAGES_ENOUGH: u64 = 16 << 20;

/// What streams take of so much memory: one or two are long, most are short, and all get smaller
/// dictionaries where the memory is not there.
fn streams(memory: u64) -> u64 {
    const ENOUGH: u64 = 7 << 20;
    ENOUGH.min(memory / 8)
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

/// The digest of a file, and of each of its blocks.
type Digests = ([u8; 32], Vec<[u8; DIGEST]>);

/// A header in which digests are yet to be filled in, and what only a proof tells.
fn header(
    base_len: u64,
    (target_len, target_block): (u64, u32),
    required: BTreeSet<&'static str>,
) -> Header {
    let unknown = |len| Identity {
        len,
        sha256: [0; 32],
    };
    let count = |len: u64, block: u32| {
        let count = len.div_ceil(1 << block);
        usize::try_from(count).expect("blocks are long")
    };
    Header {
        required: required.into_iter().map(str::to_owned).collect(),
        optional: Vec::new(),
        base: unknown(base_len),
        target: unknown(target_len),
        base_block: BASE_BLOCK,
        target_block,
        memory: 0,
        work: u64::MAX,
        dictionaries: Vec::new(),
        base_digests: vec![Some([0; DIGEST]); count(base_len, BASE_BLOCK)],
        target_digests: vec![[0; DIGEST]; count(target_len, target_block)],
    }
}

/// What an applier must be able to do for packing members, and for showing what it can only show.
fn features(plan: &Plan, opened: &[usize]) -> impl Iterator<Item = &'static str> {
    let shown = opened.iter().map(|&view| plan.views[view].codec);
    let shown = shown.filter(|codec| *codec == Codec::Lz4Block);
    let packed = remade_views(plan).map(|view| view.codec);
    shown.chain(packed).filter_map(Codec::feature)
}

/// What the packed parts hold, in order.
pub(super) fn remade_views(plan: &Plan) -> impl Iterator<Item = &View> {
    let views = plan.parts.iter().filter_map(|part| part.view);
    views.map(|view| &plan.views[view])
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

//! Makes what a patch holds of a plan: the ops of each segment, those that have to be searched for on all
//! threads, and everything in the order in which it is written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::iter::Peekable;
use std::ops::Range;

use system_image_delta::patch::{Codec, PAGE, POINTERS_OF_BTF};

use crate::parallel;
use crate::patch::effort::Effort;
use crate::patch::emit::{Ops, Written};
use crate::patch::kept::Kept;
use crate::patch::matcher::{Matcher, Reach};
use crate::patch::plan::{self, Part, Place, Plan, Side, Source, Space};
use crate::patch::program::{self, Made, Numberings};
use crate::patch::room;
use crate::patch::view::Shown;

/// Longest piece that is searched as a whole, in bytes: the search takes six times as much.
const LONGEST_SEARCHED: u64 = 128 << 20;

/// Shortest program that may have types of its own, in bytes.
const SHORTEST_WITH_TYPES: u64 = 4 << 20;

/// Programs that stand in pieces, by their number, each with what it is made from if that was found.
type Wholes = HashMap<usize, Option<(Vec<u8>, Made)>>;

/// Segments that are searched for in the same old bytes, by part and segment.
type Job = Vec<(usize, usize)>;

pub(super) struct Maker<'a> {
    pub(super) base: &'a File,
    pub(super) kept: &'a Kept,
    pub(super) target: &'a File,
    pub(super) plan: &'a Plan,
    /// The views that are opened, in order.
    pub(super) opened: Vec<usize>,
    pub(super) starts: Vec<u64>,
    /// Memory for encoders and pointers, in bytes.
    pub(super) spare: u64,
    pub(super) effort: Effort,
    /// Whether there is room for numbers of types.
    pub(super) has_types: bool,
    /// What became of the types of a kernel.
    pub(super) numberings: Option<Numberings>,
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
        room::has_pointers(self.plan, part, self.spare)
    }

    /// Which copies from old bytes are worth it while a part is made, if it is not all the same.
    fn reach(&self, part: &Part, place: Place) -> Option<Reach> {
        let Space::View(view) = place.space else {
            return None;
        };
        let needed = self.plan.views[view].plain_len.div_ceil(PAGE as u64);
        let pages = room::pages(self.plan, part, view, self.spare);
        let is_packed = self.plan.views[view].codec != Codec::Stored;
        (is_packed && needed > pages.max(1)).then(|| {
            let start = usize::try_from(place.offset).expect("it is in memory");
            Reach::new(start, usize::try_from(pages).expect("they are few"))
        })
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
        let mut wholes = Wholes::default();
        let ops = job.iter().map(|&(i, k)| {
            let part = &self.plan.parts[i];
            let portion = self.portion(part, &part.segments[k].new);
            if let Some((program, range)) = portion
                && len <= LONGEST_SEARCHED
                && self.has_room(part)
                && let Some((whole, made)) = self.whole(program, &old, &mut wholes)?
            {
                return Ok(Ops::portion(address, made, (&old, whole), range));
            }
            let new = self.wanted(part, &part.segments[k].new)?;
            let mut ops = Ops::default();
            if len.max(new.len() as u64) > LONGEST_SEARCHED {
                ops.literal(&new);
                return Ok(ops);
            }
            let reach = || self.reach(part, place);
            let has_room = self.has_room(part);
            if let Some(Ok(made)) = program::search(
                &old,
                &new,
                has_room,
                self.numberings.as_ref(),
                reach(),
                self.effort,
            ) {
                return Ok(Ops::program(address, made, &new, 0..new.len()));
            }
            match matcher.get_or_insert_with(|| Matcher::new(&old, self.effort).ok()) {
                Some(matcher) => search(&mut ops, address, matcher, reach(), &old, &new),
                None => ops.literal(&new),
            }
            Ok(ops)
        });
        ops.collect()
    }

    /// Which program a segment makes a portion of, by its number, and which portion.
    fn portion(&self, part: &Part, new: &Range<u64>) -> Option<(usize, Range<usize>)> {
        if part.view.is_some() {
            return None;
        }
        let &(program, before) = self.plan.portions.get(&new.start)?;
        let range = before..before + (new.end - new.start);
        Some((program, plan::index(&range)))
    }

    /// A program that stands in pieces, and what it is made from; nothing if that is not found.
    fn whole<'a>(
        &self,
        program: usize,
        old: &[u8],
        wholes: &'a mut Wholes,
    ) -> io::Result<Option<(&'a [u8], &'a Made)>> {
        let found = match wholes.entry(program) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(found) => {
                let new = self.plan.programs[program].bytes(self.target)?;
                let made =
                    program::search(old, &new, true, self.numberings.as_ref(), None, self.effort);
                found.insert(made.and_then(Result::ok).map(|made| (new, made)))
            }
        };
        Ok(found.as_ref().map(|(new, made)| (&new[..], made)))
    }

    /// What became of the types of the largest program that has types of its own.
    fn types(&self) -> io::Result<Option<Numberings>> {
        let parts = self.plan.parts.iter();
        let segments = parts.flat_map(|part| part.segments.iter().map(move |one| (part, one)));
        let likely = segments.filter_map(|(part, segment)| match segment.source {
            Source::Like(place, old_len) => {
                let len = segment.new.end - segment.new.start;
                let lens = SHORTEST_WITH_TYPES..=LONGEST_SEARCHED;
                let is_likely = lens.contains(&len) && lens.contains(&old_len);
                is_likely.then_some((len, part, segment, (place, old_len)))
            }
            _ => None,
        });
        let mut likely: Vec<_> = likely.collect();
        likely.sort_by_key(|&(len, ..)| std::cmp::Reverse(len));
        for (_, part, segment, (place, old_len)) in likely {
            let start = segment.new.start;
            if !program::may_be(&self.wanted(part, &(start..start + program::HEAD))?) {
                continue;
            }
            let (old, new) = (self.old(place, old_len)?, self.wanted(part, &segment.new)?);
            let found = program::numberings(&old, &new);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Everything, in order.
    pub(super) fn written(&mut self, threads: usize) -> io::Result<Vec<Written>> {
        if self.has_types {
            self.numberings = self.types()?;
        }
        let mut all = self.told(threads)?;
        if let Some(numberings) = &self.numberings
            && all
                .iter()
                .flat_map(Written::features)
                .any(|feature| feature == POINTERS_OF_BTF)
        {
            all.splice(0..0, numberings.written().map(Written::Control));
        }
        Ok(all)
    }

    /// What all parts are made from, in order.
    fn told(&self, threads: usize) -> io::Result<Vec<Written>> {
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
fn search(
    ops: &mut Ops,
    address: u64,
    matcher: &Matcher<'_>,
    reach: Option<Reach>,
    old: &[u8],
    new: &[u8],
) {
    let mut steps = matcher.steps(new);
    if let Some(reach) = reach {
        steps = reach.steps(steps);
    }
    let mut at = 0;
    for step in steps {
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

//! Writes a plan down: parts, lengths, places, residues and literals, in the order in which the
//! applier asks for them.

use std::ops::Range;

use system_image_delta::patch::pointers::Pointers;
use system_image_delta::patch::{IN_PIECES, PIECES, POINTERS, Stream, WITH_POINTERS, varint};

use crate::patch::body::Body;
use crate::patch::program::Made;

/// Zeros between two residues that are cheaper as residues than as an end and a beginning.
const CHEAP_ZEROS: usize = 24;

/// A literal and then a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Op {
    /// Length of the literal in bytes.
    pub(crate) literal: u64,
    pub(crate) address: u64,
    /// Length of the copy in bytes.
    pub(crate) copy: u64,
}

/// Ops that follow each other; neighbours that go on with each other become one. There are millions
/// of them between two releases of a system, so that all they hold stands together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ops {
    pub(crate) all: Vec<Op>,
    /// Bytes that they make.
    pub(crate) len: u64,
    /// The pointers that are changed, if there are some.
    pub(crate) pointers: Option<Changed>,
    literals: Vec<u8>,
    /// Varints, two for each run of residues: the copied bytes in front of it, counted from the end of
    /// the run before, and its length.
    runs: Vec<u8>,
    residues: Vec<u8>,
    /// Copied bytes behind the last run of residues.
    tail: u64,
}

/// Pointers that are changed.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    /// Where the old file begins.
    origin: u64,
    pointers: Pointers,
    /// The new file, if the ops make only a portion of it.
    whole: Option<Whole>,
}

/// A file of which a portion is made.
#[derive(Clone, Debug)]
struct Whole {
    all: Vec<Op>,
    /// Its length in bytes.
    len: u64,
    /// Where the portion begins.
    start: u64,
}

impl Ops {
    /// Appends bytes that are new.
    pub(crate) fn literal(&mut self, bytes: &[u8]) {
        self.literals.extend_from_slice(bytes);
        self.skip(bytes.len() as u64);
    }

    /// Appends the length of a literal.
    fn skip(&mut self, literal: u64) {
        if literal == 0 {
            return;
        }
        self.len += literal;
        match self.all.last_mut() {
            Some(last) if last.copy == 0 => last.literal += literal,
            _ => self.all.push(Op {
                literal,
                ..Op::default()
            }),
        }
    }

    /// Appends a copy of `old`, which stands at `address`, that is to become `new`.
    pub(crate) fn copy(&mut self, address: u64, old: &[u8], new: &[u8]) {
        self.span(address, new.len() as u64);
        self.residues(old, new);
    }

    /// Appends a copy of what needs no change.
    pub(crate) fn copied(&mut self, address: u64, len: u64) {
        self.span(address, len);
        self.tail += len;
    }

    /// Appends the place and the length of a copy.
    fn span(&mut self, address: u64, copy: u64) {
        if copy == 0 {
            return;
        }
        self.len += copy;
        match self.all.last_mut() {
            Some(last) if last.copy == 0 => {
                last.address = address;
                last.copy = copy;
            }
            Some(last) if last.address + last.copy == address => last.copy += copy,
            _ => self.all.push(Op {
                literal: 0,
                address,
                copy,
            }),
        }
    }

    /// Appends what must be added to `old` to get `new`.
    fn residues(&mut self, old: &[u8], new: &[u8]) {
        // Where the last run begins and ends.
        let (mut start, mut end) = (0, 0);
        let mut at = 0;
        while at < new.len() {
            let same = crate::patch::matcher::common(&old[at..], &new[at..]);
            at += same;
            if at >= new.len() {
                break;
            }
            if end > start && same < CHEAP_ZEROS {
                self.residues.resize(self.residues.len() + same, 0);
            } else {
                self.end_run(end - start);
                self.tail += (at - end) as u64;
                start = at;
            }
            while at < new.len() && old[at] != new[at] {
                self.residues.push(new[at].wrapping_sub(old[at]));
                at += 1;
            }
            end = at;
        }
        self.end_run(end - start);
        self.tail += (new.len() - end) as u64;
    }

    /// Ends a run of residues of this length, if there is one.
    fn end_run(&mut self, len: usize) {
        if len > 0 {
            varint::put(&mut self.runs, std::mem::take(&mut self.tail));
            varint::put(&mut self.runs, len as u64);
        }
    }

    /// What a range of a program is made from; its old file stands at `address`.
    pub(crate) fn program(address: u64, made: Made, new: &[u8], range: Range<usize>) -> Self {
        let mut ops = Self::default();
        let mut at = range.start;
        for (copy, predicted) in made.copies.iter().zip(&made.predicted) {
            ops.literal(&new[at..copy.new]);
            at = copy.new + copy.len;
            ops.copy(address + copy.old as u64, predicted, &new[copy.new..at]);
        }
        ops.literal(&new[at..range.end]);
        if !made.pointers.ranges.is_empty() {
            ops.pointers = Some(Changed {
                origin: address,
                pointers: made.pointers,
                whole: None,
            });
        }
        ops
    }

    /// The same where the pointers of that range are found by what the whole program is made from.
    pub(crate) fn portion(
        address: u64,
        whole: &Made,
        (old, new): (&[u8], &[u8]),
        range: Range<usize>,
    ) -> Self {
        let start = range.start as u64;
        let mut ops = Self::program(address, whole.within(old, &range), new, range);
        if let Some(changed) = &mut ops.pointers {
            let mut all = Self::default();
            let mut at = 0;
            for copy in &whole.copies {
                all.skip((copy.new - at) as u64);
                all.span(address + copy.old as u64, copy.len as u64);
                at = copy.new + copy.len;
            }
            all.skip((new.len() - at) as u64);
            let (all, len) = (all.all, all.len);
            changed.whole = Some(Whole { all, len, start });
        }
        ops
    }

    /// Whether there are only copies of what needs no change.
    pub(crate) fn are_bare(&self) -> bool {
        self.pointers.is_none() && self.literals.is_empty() && self.runs.is_empty()
    }

    /// Gives back what was set aside for more of them.
    pub(crate) fn shrink(&mut self) {
        self.all.shrink_to_fit();
        self.literals.shrink_to_fit();
        self.runs.shrink_to_fit();
        self.residues.shrink_to_fit();
    }

    /// Appends what another one has.
    pub(crate) fn append(&mut self, mut other: Self) {
        for op in other.all {
            self.skip(op.literal);
            self.span(op.address, op.copy);
        }
        self.literals.append(&mut other.literals);
        self.residues.append(&mut other.residues);
        let mut runs = Runs(&other.runs);
        let Some((gap, len)) = runs.next() else {
            self.tail += other.tail;
            return;
        };
        varint::put(&mut self.runs, self.tail + gap);
        varint::put(&mut self.runs, len);
        self.runs.extend_from_slice(runs.0);
        self.tail = other.tail;
    }

    /// How many bytes are copied before the next run of residues, if `behind` are behind them all.
    fn ahead(&self, behind: u64) -> u64 {
        match Runs(&self.runs).next() {
            Some((gap, _)) => gap,
            None => self.tail + behind,
        }
    }
}

/// Runs of residues: the copied bytes in front of each, and its length.
struct Runs<'a>(&'a [u8]);

impl Iterator for Runs<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        if self.0.is_empty() {
            return None;
        }
        let mut number = || varint::read(&mut self.0).expect("they are whole");
        Some((number(), number()))
    }
}

/// A part, or a view that is opened between parts.
pub(crate) enum Written {
    /// Control numbers alone.
    Control(Vec<u64>),
    /// A run of one kind.
    Run { kind: u8, ops: Ops },
}

/// Writes all of it, and gives each part's memory back when it is written.
pub(crate) fn write(all: Vec<Written>) -> Body {
    let mut body = Body::new();
    // Copied bytes before the next run of residues, behind each.
    let mut behind = Vec::with_capacity(all.len());
    let mut ahead = 0;
    for written in all.iter().rev() {
        behind.push(ahead);
        if let Written::Run { ops, .. } = written {
            ahead = ops.ahead(ahead);
        }
    }
    let mut gap = Gap::default();
    // A literal mostly stands for as many bytes of the base.
    let mut position = 0_u64;
    for written in all {
        let behind = behind.pop().expect("there is one for each");
        let (kind, run) = match written {
            Written::Control(control) => {
                for number in control {
                    body.number(Stream::Control, number);
                }
                continue;
            }
            Written::Run { kind, ops } => (kind, ops),
        };
        for number in head(kind, &run, position) {
            body.number(Stream::Control, number);
        }
        body.hold(Stream::Literal(kind), run.literals);
        body.hold(Stream::Residue(kind), run.residues);
        let mut residues = Residues {
            kind,
            runs: Runs(&run.runs),
            tail: run.tail + behind,
        };
        let Some(changed) = &run.pointers else {
            for op in &run.all {
                body.number(Stream::Literals, op.literal);
                body.ask(Stream::Literal(kind), op.literal);
                copy(op, &mut position, &mut body);
                residues.write(op.copy, &mut gap, &mut body);
            }
            continue;
        };
        // Where the copies go must be known before the first pointer is changed.
        for op in changed.told(&run.all) {
            body.number(Stream::Literals, op.literal);
            copy(op, &mut position, &mut body);
        }
        for op in &run.all {
            body.ask(Stream::Literal(kind), op.literal);
            residues.write(op.copy, &mut gap, &mut body);
        }
    }
    body.number(Stream::Control, 0);
    body
}

/// Tells of an op's copy, and moves the position over the op.
fn copy(op: &Op, position: &mut u64, body: &mut Body) {
    *position += op.literal;
    if op.copy > 0 {
        body.number(Stream::Copies, op.copy);
        let by = op.address.wrapping_sub(*position).cast_signed();
        body.number(Stream::Positions, varint::fold(by));
        *position = op.address + op.copy;
    }
}

/// The numbers in front of a run: its kind, its length, and its pointers.
fn head(kind: u8, run: &Ops, position: u64) -> Vec<u64> {
    let kind = u64::from(kind);
    let Some(changed) = &run.pointers else {
        return vec![kind, run.len];
    };
    let mut numbers = match &changed.whole {
        None => vec![kind | WITH_POINTERS, run.len],
        Some(whole) => {
            let kind = kind | WITH_POINTERS | IN_PIECES;
            vec![kind, run.len, whole.len, whole.start]
        }
    };
    let told = changed.told(&run.all).iter();
    numbers.push(told.filter(|op| op.copy > 0).count() as u64);
    let by = changed.origin.wrapping_sub(position).cast_signed();
    numbers.push(varint::fold(by));
    changed.pointers.put(&mut numbers);
    numbers
}

/// The gap before the next run of residues.
#[derive(Default)]
struct Gap {
    /// Whether it was told already.
    is_told: bool,
    /// What is left of it.
    left: u64,
}

/// Residues that are yet to be written.
struct Residues<'a> {
    kind: u8,
    runs: Runs<'a>,
    /// The gap behind the last run.
    tail: u64,
}

impl Residues<'_> {
    /// Writes those of a copy, and the gaps between them.
    fn write(&mut self, mut copy: u64, gap: &mut Gap, body: &mut Body) {
        while copy > 0 {
            if !gap.is_told {
                let next = Runs(self.runs.0).next();
                gap.left = next.map_or(self.tail, |(gap, _)| gap);
                gap.is_told = true;
                body.number(Stream::Gaps, gap.left);
            }
            if gap.left >= copy {
                gap.left -= copy;
                return;
            }
            copy -= gap.left;
            let (_, len) = self.runs.next().expect("a run follows the gap");
            body.number(Stream::Runs, len);
            body.ask(Stream::Residue(self.kind), len);
            gap.is_told = false;
            copy -= len;
        }
    }
}

impl Changed {
    /// All that is told of a run that makes this.
    fn told<'a>(&'a self, made: &'a [Op]) -> &'a [Op] {
        self.whole.as_ref().map_or(made, |whole| &whole.all)
    }
}

impl Written {
    /// What an applier must be able to do for it.
    pub(crate) fn features(&self) -> impl Iterator<Item = &'static str> {
        let changed = match self {
            Self::Run { ops, .. } => ops.pointers.as_ref(),
            Self::Control(_) => None,
        };
        let is_portion = changed.is_some_and(|changed| changed.whole.is_some());
        let pointers = changed.is_some().then_some(POINTERS);
        let pieces = is_portion.then_some(PIECES);
        let ranges = changed
            .into_iter()
            .flat_map(|changed| &changed.pointers.ranges);
        let forms = ranges.filter_map(|range| range.form.feature());
        pointers.into_iter().chain(pieces).chain(forms)
    }
}

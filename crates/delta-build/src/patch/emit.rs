//! Writes a plan down: parts, lengths, places, residues and literals, in the order in which the
//! applier asks for them.

use system_image_delta::patch::pointers::Pointers;
use system_image_delta::patch::{Stream, WITH_POINTERS, varint};

use crate::patch::body::Body;
use crate::patch::program::Made;

/// Zeros between two residues that are cheaper as residues than as an end and a beginning.
const CHEAP_ZEROS: usize = 24;

/// A literal and then a copy with residues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) literal: Vec<u8>,
    pub(crate) address: u64,
    pub(crate) copy: u64,
    /// Runs of residues, by their place in the copy.
    pub(crate) residues: Vec<(u64, Vec<u8>)>,
}

/// Ops that follow each other; neighbours that go on with each other become one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ops {
    pub(crate) all: Vec<Op>,
    /// Bytes that they make.
    pub(crate) len: u64,
    /// Where the old file begins, and its pointers, if they are changed.
    pub(crate) pointers: Option<(u64, Pointers)>,
}

impl Ops {
    /// Appends bytes that are new.
    pub(crate) fn literal(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        match self.all.last_mut() {
            Some(last) if last.copy == 0 => last.literal.extend_from_slice(bytes),
            _ => self.all.push(Op {
                literal: bytes.to_vec(),
                ..Op::default()
            }),
        }
    }

    /// Appends a copy of `old`, which stands at `address`, that is to become `new`.
    pub(crate) fn copy(&mut self, address: u64, old: &[u8], new: &[u8]) {
        self.copied(address, new.len() as u64, residues(old, new));
    }

    /// Appends a copy.
    pub(crate) fn copied(&mut self, address: u64, len: u64, residues: Vec<(u64, Vec<u8>)>) {
        if len == 0 {
            return;
        }
        self.len += len;
        match self.all.last_mut() {
            Some(last) if last.copy == 0 => {
                last.address = address;
                last.copy = len;
                last.residues = residues;
            }
            Some(last) if last.address + last.copy == address => {
                let shifted = residues.into_iter().map(|(at, run)| (last.copy + at, run));
                last.residues.extend(shifted);
                last.copy += len;
            }
            _ => self.all.push(Op {
                address,
                copy: len,
                residues,
                ..Op::default()
            }),
        }
    }

    /// What a program is made from; its old file stands at `address`.
    pub(crate) fn program(address: u64, made: Made, new: &[u8]) -> Self {
        let mut ops = Self::default();
        let mut at = 0;
        for (copy, predicted) in made.copies.iter().zip(&made.predicted) {
            if at < copy.new {
                ops.literal(&new[at..copy.new]);
            }
            at = copy.new + copy.len;
            ops.copy(address + copy.old as u64, predicted, &new[copy.new..at]);
        }
        if at < new.len() {
            ops.literal(&new[at..]);
        }
        if !made.pointers.ranges.is_empty() {
            ops.pointers = Some((address, made.pointers));
        }
        ops
    }

    /// Whether there are only copies of what needs no change.
    pub(crate) fn are_bare(&self) -> bool {
        let is_bare = |op: &Op| op.literal.is_empty() && op.residues.is_empty();
        self.pointers.is_none() && self.all.iter().all(is_bare)
    }

    /// Appends what another one has.
    pub(crate) fn append(&mut self, other: Self) {
        for op in other.all {
            if !op.literal.is_empty() {
                self.literal(&op.literal);
            }
            self.copied(op.address, op.copy, op.residues);
        }
    }
}

/// What must be added to `old` to get `new`, as runs with their places.
pub(crate) fn residues(old: &[u8], new: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut at = 0;
    while at < new.len() {
        let same = crate::patch::matcher::common(&old[at..], &new[at..]);
        at += same;
        if at >= new.len() {
            break;
        }
        if let Some((_, run)) = runs.last_mut()
            && same < CHEAP_ZEROS
        {
            run.resize(run.len() + same, 0);
        } else {
            runs.push((at as u64, Vec::new()));
        }
        let (_, run) = runs.last_mut().expect("one was just there");
        while at < new.len() && old[at] != new[at] {
            run.push(new[at].wrapping_sub(old[at]));
            at += 1;
        }
    }
    runs
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
    // Copied bytes before each run of residues, counted from the end of the run before.
    let mut gaps = Vec::new();
    let mut gap = 0;
    for op in all.iter().flat_map(Written::ops) {
        let mut at = 0;
        for (place, run) in &op.residues {
            gaps.push(gap + place - at);
            gap = 0;
            at = place + run.len() as u64;
        }
        gap += op.copy - at;
    }
    gaps.push(gap);
    let mut gaps = gaps.into_iter();
    let mut needs_gap = true;
    // A literal mostly stands for as many bytes of the base.
    let mut position = 0_u64;
    for written in all {
        let (kind, run) = match &written {
            Written::Control(control) => {
                for &number in control {
                    body.number(Stream::Control, number);
                }
                continue;
            }
            Written::Run { kind, ops } => (*kind, ops),
        };
        for number in head(kind, run, position) {
            body.number(Stream::Control, number);
        }
        // Where the copies go must be known before the first pointer is moved.
        let step = if run.pointers.is_some() {
            run.all.len()
        } else {
            1
        };
        for ops in run.all.chunks(step.max(1)) {
            for op in ops {
                body.number(Stream::Literals, op.literal.len() as u64);
                if run.pointers.is_none() {
                    body.put(Stream::Literal(kind), &op.literal);
                }
                position += op.literal.len() as u64;
                if op.copy > 0 {
                    body.number(Stream::Copies, op.copy);
                    let by = op.address.wrapping_sub(position).cast_signed();
                    body.number(Stream::Positions, varint::fold(by));
                    position = op.address + op.copy;
                }
            }
            for op in ops {
                if run.pointers.is_some() {
                    body.put(Stream::Literal(kind), &op.literal);
                }
                op.residues(kind, &mut gaps, &mut needs_gap, &mut body);
            }
        }
    }
    body.number(Stream::Control, 0);
    body
}

/// The numbers in front of a run: its kind, its length, and its pointers.
fn head(kind: u8, run: &Ops, position: u64) -> Vec<u64> {
    let Some((origin, pointers)) = &run.pointers else {
        return vec![u64::from(kind), run.len];
    };
    let copies = run.all.iter().filter(|op| op.copy > 0).count();
    let by = origin.wrapping_sub(position).cast_signed();
    let mut numbers = vec![
        u64::from(kind) | WITH_POINTERS,
        run.len,
        copies as u64,
        varint::fold(by),
    ];
    pointers.put(&mut numbers);
    numbers
}

impl Op {
    /// Writes the residues of a copy, and the gaps between them.
    fn residues(
        &self,
        kind: u8,
        gaps: &mut impl Iterator<Item = u64>,
        needs_gap: &mut bool,
        body: &mut Body,
    ) {
        let mut at = 0;
        for (place, run) in &self.residues {
            if std::mem::take(needs_gap) {
                let gap = gaps.next().expect("there is one before each run");
                body.number(Stream::Gaps, gap);
            }
            body.number(Stream::Runs, run.len() as u64);
            body.put(Stream::Residue(kind), run);
            *needs_gap = true;
            at = place + run.len() as u64;
        }
        if at < self.copy && std::mem::take(needs_gap) {
            let gap = gaps.next().expect("there is one behind the last run");
            body.number(Stream::Gaps, gap);
        }
    }
}

impl Written {
    /// Whether it has pointers that are changed.
    pub(crate) fn has_pointers(&self) -> bool {
        matches!(self, Self::Run { ops, .. } if ops.pointers.is_some())
    }

    fn ops(&self) -> &[Op] {
        match self {
            Self::Control(_) => &[],
            Self::Run { ops, .. } => &ops.all,
        }
    }
}

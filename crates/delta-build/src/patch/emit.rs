//! Writes a plan down: parts, lengths, places, residues and literals, in the order in which the
//! applier asks for them.

use system_image_delta::patch::{Stream, varint};

use crate::patch::body::Body;

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
    pub(crate) ops: Vec<Op>,
    /// Bytes that they make.
    pub(crate) len: u64,
}

impl Ops {
    /// Appends bytes that are new.
    pub(crate) fn literal(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        match self.ops.last_mut() {
            Some(last) if last.copy == 0 => last.literal.extend_from_slice(bytes),
            _ => self.ops.push(Op {
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
        match self.ops.last_mut() {
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
            _ => self.ops.push(Op {
                address,
                copy: len,
                residues,
                ..Op::default()
            }),
        }
    }

    /// Whether there are only copies without residues.
    pub(crate) fn are_bare(&self) -> bool {
        let is_bare = |op: &Op| op.literal.is_empty() && op.residues.is_empty();
        self.ops.iter().all(is_bare)
    }

    /// Appends what another one has.
    pub(crate) fn append(&mut self, other: Self) {
        for op in other.ops {
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
    /// A run of one kind: control numbers, then ops.
    Run {
        control: Vec<u64>,
        kind: u8,
        ops: Ops,
    },
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
        let (Written::Control(control) | Written::Run { control, .. }) = &written;
        for &number in control {
            body.number(Stream::Control, number);
        }
        let Written::Run { kind, .. } = &written else {
            continue;
        };
        for op in written.ops() {
            body.number(Stream::Literals, op.literal.len() as u64);
            body.put(Stream::Literal(*kind), &op.literal);
            position += op.literal.len() as u64;
            if op.copy == 0 {
                continue;
            }
            body.number(Stream::Copies, op.copy);
            let by = op.address.wrapping_sub(position).cast_signed();
            body.number(Stream::Positions, varint::fold(by));
            position = op.address + op.copy;
            let mut at = 0;
            for (place, run) in &op.residues {
                if std::mem::take(&mut needs_gap) {
                    let gap = gaps.next().expect("there is one before each run");
                    body.number(Stream::Gaps, gap);
                }
                body.number(Stream::Runs, run.len() as u64);
                body.put(Stream::Residue(*kind), run);
                needs_gap = true;
                at = place + run.len() as u64;
            }
            if at < op.copy && std::mem::take(&mut needs_gap) {
                let gap = gaps.next().expect("there is one behind the last run");
                body.number(Stream::Gaps, gap);
            }
        }
    }
    body.number(Stream::Control, 0);
    body
}

impl Written {
    fn ops(&self) -> &[Op] {
        match self {
            Self::Control(_) => &[],
            Self::Run { ops, .. } => &ops.ops,
        }
    }
}

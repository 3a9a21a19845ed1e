//! What became of the types of a kernel. Each time that one is built they are in another order, and so have
//! other numbers, by which its modules tell of them, too.

mod pairs;
mod types;

use std::ops::Range as Span;
use std::sync::Arc;

use system_image_delta::patch::pointers::{Form, Numbering, Word};
use system_image_delta::patch::{Move, Projection};

use crate::patch::program::Piece;
use pairs::{Pairs, add};
use types::Shared;

pub(super) use types::Types;

/// Most entries that are told of a kernel, and of a module of each kind: an applier allows 65536 together.
const MOST_TOLD: usize = 48 << 10;
const MOST_OWN: usize = 8 << 10;

/// What became of the types of a kernel, and of their names.
pub(crate) struct Numberings {
    names: Numbering,
    types: Numbering,
    /// What modules share with the old kernel and with the new one.
    shared: [Shared; 2],
    /// Where these have their types, and what the new ones are copied from.
    spans: [Span<usize>; 2],
    copies: Vec<Piece>,
}

/// What the types of a program are made from.
pub(super) struct Made {
    /// What became of them.
    pub(super) form: Form,
    /// What the new ones are copied from.
    pub(super) copies: Vec<Piece>,
}

impl Numberings {
    /// Those of an old kernel that became a new one; nothing if they are too many to be told.
    pub(super) fn new(old: &Types<'_>, new: &Types<'_>) -> Option<Self> {
        let pairs = Pairs::find(old, new);
        let none = Projection::default();
        let (mut names, mut types) = (pairs.names(&none), pairs.types(&none));
        let shared = [old, new].map(Types::to_share);
        // Those of modules follow.
        let [before, now] = shared;
        add(&mut names, &none, before.strings, now.strings);
        add(&mut types, &none, before.types + 1, now.types + 1);
        let numbering = |number, entries| Numbering {
            number,
            went: Arc::new(Projection::new(entries)),
            own: Arc::default(),
        };
        (names.len() + types.len() <= MOST_TOLD).then(|| Self {
            names: numbering(0, names),
            types: numbering(1, types),
            shared,
            spans: [old, new].map(|types| types.span.clone()),
            copies: pairs.copies(),
        })
    }

    /// How a patch tells of them, in the order of their numbers.
    pub(crate) fn written(&self) -> impl Iterator<Item = Vec<u64>> {
        [&self.names, &self.types].into_iter().map(|numbering| {
            let mut numbers = vec![4];
            numbering.went.put(&mut numbers);
            numbers
        })
    }

    /// What the types of a program are made from: of the kernel itself, or of a module.
    pub(super) fn made(&self, mut old: Types<'_>, mut new: Types<'_>) -> Made {
        let (mut names, mut types) = (self.names.clone(), self.types.clone());
        let is_kernel = [&old, &new].map(Types::to_share) == self.shared
            && [&old, &new].map(|types| types.span.clone()) == self.spans;
        if is_kernel {
            let form = Form::Btf { names, types };
            let copies = self.copies.clone();
            return Made { form, copies };
        }
        let [before, now] = self.shared;
        old.share(before);
        new.share(now);
        old.renumber(now, |number, what| match what {
            Word::Name => names.project(number),
            Word::Type => types.project(number),
            Word::Other => None,
        });
        let pairs = Pairs::find(&old, &new);
        let own = |entries: Vec<Move>| {
            let is_few = entries.len() <= MOST_OWN;
            Arc::new(Projection::new(if is_few { entries } else { Vec::new() }))
        };
        names.own = own(pairs.names(&names.went));
        types.own = own(pairs.types(&types.went));
        let copies = pairs.copies();
        let form = Form::Btf { names, types };
        Made { form, copies }
    }
}

//! Which old type is which new one.

use std::collections::HashMap;
use std::hash::Hash;

use system_image_delta::patch::pointers::Word;
use system_image_delta::patch::{Move, Projection};

use super::types::{Types, strings};
use crate::patch::program::Piece;

/// Kinds of which each member tells of a type, as the highest byte of a record's second word has them.
const STRUCTURES: [u32; 2] = [4, 5];

/// Words of their members.
const MEMBER: usize = 3;

/// A type of the old file and one of the new file.
pub(super) struct Pairs<'a> {
    old: &'a Types<'a>,
    new: &'a Types<'a>,
    keys: [Vec<u64>; 2],
    /// The new number of each old one, and the old number of each new one; 0 for none.
    went: Vec<usize>,
    came: Vec<usize>,
    /// Those of which what they tell of was not looked at.
    fresh: Vec<(usize, usize)>,
}

/// Words that two records have in common: where they begin in either, and how many they are.
type Common = (usize, usize, usize);

impl<'a> Pairs<'a> {
    /// Finds those that are the only ones that are so, those of the same name, and what these tell of in the
    /// same place; then what tells of these, and what stands beside.
    pub(super) fn find(old: &'a Types<'a>, new: &'a Types<'a>) -> Self {
        let mut pairs = Self {
            keys: [old.keys(), new.keys()],
            went: vec![0; old.count() + 1],
            came: vec![0; new.count() + 1],
            fresh: Vec::new(),
            old,
            new,
        };
        let keys = pairs.keys.clone();
        let key = |side: usize| {
            let keys = &keys[side];
            move |number: usize| Some(keys[number - 1])
        };
        pairs.only(key(0), key(1));
        pairs.only(|number| old.name(number), |number| new.name(number));
        pairs.only_about();
        for number in 2..=old.count() {
            let before = pairs.went[number - 1];
            if before > 0 {
                pairs.take_alike(number, before + 1);
                pairs.spread();
            }
        }
        for number in (1..old.count()).rev() {
            let behind = pairs.went[number + 1];
            if behind > 1 {
                pairs.take_alike(number, behind - 1);
                pairs.spread();
            }
        }
        pairs.only_about();
        pairs
    }

    /// Takes those that are the only ones left in both files that are so.
    fn only<K: Hash + Eq>(
        &mut self,
        of_old: impl Fn(usize) -> Option<K>,
        of_new: impl Fn(usize) -> Option<K>,
    ) {
        // 0 if there are more.
        let mut all: HashMap<K, [Option<usize>; 2]> = HashMap::new();
        let mut add = |key, side: usize, number| {
            let only = &mut all.entry(key).or_default()[side];
            *only = Some(only.map_or(number, |_| 0));
        };
        for number in 1..=self.new.count() {
            if let (0, Some(key)) = (self.came[number], of_new(number)) {
                add(key, 1, number);
            }
        }
        for number in 1..=self.old.count() {
            if let (0, Some(key)) = (self.went[number], of_old(number)) {
                add(key, 0, number);
            }
        }
        let mut pairs: Vec<_> = all
            .into_values()
            .filter_map(|[old, new]| old.zip(new))
            .collect();
        pairs.sort_unstable();
        for (old, new) in pairs {
            self.take(old, new);
        }
        self.spread();
    }

    /// Takes those that are the only ones that tell of certain types, as long as there are some.
    fn only_about(&mut self) {
        let about = |types: &Types<'_>, key: u64, number: usize, now: &dyn Fn(usize) -> usize| {
            let told = types.record(number).iter();
            let told = told.filter(|word| word.1 == Word::Type);
            let own = told.filter_map(|word| types.own(word.0)).map(now);
            let own: Vec<usize> = own.collect();
            (!own.contains(&0)).then_some((key, own))
        };
        loop {
            let before = self.went.iter().filter(|&&new| new > 0).count();
            let [of_old, of_new] = self.keys.clone();
            let (went, came) = (self.went.clone(), self.came.clone());
            let (old, new) = (self.old, self.new);
            let is_known = |number: usize| if came[number] > 0 { number } else { 0 };
            self.only(
                |number| about(old, of_old[number - 1], number, &|number| went[number]),
                |number| about(new, of_new[number - 1], number, &is_known),
            );
            if self.went.iter().filter(|&&new| new > 0).count() == before {
                return;
            }
        }
    }

    fn take(&mut self, old: usize, new: usize) {
        let is_free = self.went.get(old) == Some(&0) && self.came.get(new) == Some(&0);
        if is_free && old > 0 && new > 0 {
            self.went[old] = new;
            self.came[new] = old;
            self.fresh.push((old, new));
        }
    }

    /// Takes two if they are alike.
    fn take_alike(&mut self, old: usize, new: usize) {
        let key = |side: usize, number: usize| self.keys[side].get(number - 1);
        if key(0, old).is_some_and(|old| key(1, new) == Some(old)) {
            self.take(old, new);
        }
    }

    /// Takes what pairs tell of.
    fn spread(&mut self) {
        while let Some((old, new)) = self.fresh.pop() {
            for (at, new_at, len) in self.common(old, new) {
                let from = &self.old.record(old)[at..at + len];
                let to = &self.new.record(new)[new_at..new_at + len];
                for (from, to) in from.iter().zip(to) {
                    if from.1 == Word::Type
                        && let (Some(from), Some(to)) = (self.old.own(from.0), self.new.own(to.0))
                    {
                        self.take_alike(from, to);
                    }
                }
            }
        }
    }

    /// What two records have in common: from the front on, and for structures at the end.
    fn common(&self, old: usize, new: usize) -> Vec<Common> {
        let (from, to) = (self.old.record(old), self.new.record(new));
        let shorter = from.len().min(to.len());
        let is_same = |from, to| self.old.meaning(from) == self.new.meaning(to);
        let front = (0..shorter)
            .take_while(|&i| i == 1 || from[i].1 == Word::Type || is_same(from[i], to[i]))
            .count();
        let mut common = vec![(0, 0, front)];
        if STRUCTURES.contains(&(from[1].0 >> 24 & 0x1f)) {
            let members = (shorter - front) / MEMBER;
            let back = (1..=members).take_while(|i| {
                let name = |record: &[_]| record[record.len() - MEMBER * i];
                is_same(name(from), name(to))
            });
            let back = MEMBER * back.count();
            if back > 0 {
                common.push((from.len() - back, to.len() - back, back));
            }
        }
        common
    }

    /// Where the places of names went, in as few entries as can tell it beside what became of those that are
    /// shared.
    pub(super) fn names(&self, shared: &Projection) -> Vec<Move> {
        let places: HashMap<_, _> = strings(self.new.strings).collect();
        let mut entries = Vec::new();
        for (string, at) in strings(self.old.strings) {
            if let Some(new) = places.get(string) {
                let (old, new) = (self.old.first.strings + at, self.new.first.strings + new);
                add(&mut entries, shared, old, new);
            }
        }
        entries
    }

    /// Where the numbers of types went, likewise.
    pub(super) fn types(&self, shared: &Projection) -> Vec<Move> {
        let mut entries = Vec::new();
        for (old, &new) in self.went.iter().enumerate().filter(|&(_, &new)| new > 0) {
            let (old, new) = (self.old.first.types + old, self.new.first.types + new);
            add(&mut entries, shared, old, new);
        }
        entries
    }

    /// What the new types are copied from, by places in the files.
    pub(super) fn copies(&self) -> Vec<Piece> {
        let mut copies = Vec::new();
        for new in (1..=self.new.count()).filter(|&new| self.came[new] > 0) {
            let old = self.came[new];
            let common = self.common(old, new).into_iter();
            copies.extend(common.map(|(at, new_at, len)| Piece {
                new: self.new.place(new) + 4 * new_at,
                old: self.old.place(old) + 4 * at,
                len: 4 * len,
            }));
        }
        copies
    }
}

/// Adds where a number went, if it is not where it would be without that.
pub(super) fn add(entries: &mut Vec<Move>, shared: &Projection, old: usize, new: usize) {
    let (old, new) = (old as u64, new as u64);
    let expected = match entries.last() {
        Some(last) => last.new + (old - last.old),
        None => shared.project(old).unwrap_or(old),
    };
    if new != expected {
        entries.push(Move { old, len: 1, new });
    }
}

//! Cuts the input into literals and matches, one step at a time.

use std::io::{self, Write};

use crate::bits::Bits;
use crate::block::Block;
use crate::chains::{Chains, Link, Match};
use crate::codes::MIN_MATCH;
use crate::level::{Effort, Flavour, Level, Parsing};
use crate::window::{ENOUGH_AHEAD, HALF, LAST_SEARCH, Window};

/// A match of the shortest length that is farther away than this costs more than its literals.
const TOO_FAR: usize = 4096;

/// A compressor, without the place to which it writes.
#[derive(Debug)]
pub(crate) struct Parser {
    flavour: Flavour,
    effort: Effort,
    window: Window,
    chains: Chains,
    /// Lazy: the match at the position before.
    held: Match,
    /// Lazy: whether the byte before the position is not coded yet.
    owes: bool,
    block: Block,
    bits: Bits,
}

impl Parser {
    pub(crate) fn new(flavour: Flavour, level: Level) -> Self {
        Self {
            flavour,
            effort: level.effort(),
            window: Window::new(),
            chains: Chains::new(),
            held: Match::NONE,
            owes: false,
            block: Block::new(flavour, level),
            bits: Bits::new(),
        }
    }

    /// Takes all of `input`, and writes the blocks that it ends.
    pub(crate) fn take(&mut self, mut input: &[u8], out: &mut dyn Write) -> io::Result<()> {
        while !input.is_empty() {
            let taken = self.window.take(input);
            input = &input[taken..];
            if self.window.is_filled() {
                self.accept(out)?;
            }
        }
        Ok(())
    }

    /// Ends the input, and writes what is left.
    pub(crate) fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        while self.accept(out)? > 0 {}
        self.window.end();
        while self.window.ahead > 0 {
            // gzip does not try to read once it has seen the end, and so stays where it is.
            if self.flavour == Flavour::Zlib && self.window.ahead < ENOUGH_AHEAD {
                self.slide_if_used_up();
            }
            self.step(out)?;
        }
        if self.owes {
            self.owes = false;
            self.block.literal(
                self.window.bytes[self.window.position - 1],
                self.window.position,
            );
        }
        self.end_block(true, out)?;
        self.bits.align();
        self.bits.drain(out)
    }

    /// Works on what a read has brought until more is needed, and begins the next read. Returns how many
    /// bytes it has brought.
    fn accept(&mut self, out: &mut dyn Write) -> io::Result<usize> {
        let arrived = self.window.accept();
        if arrived == 0 {
            return Ok(0);
        }
        if self.window.position == 0 {
            self.chains.restart(&self.window.bytes, 0);
        }
        while self.window.ahead >= ENOUGH_AHEAD {
            self.step(out)?;
        }
        self.slide_if_used_up();
        self.window.want();
        Ok(arrived)
    }

    fn slide_if_used_up(&mut self) {
        if self.window.is_used_up() {
            self.window.slide();
            self.chains.slide();
            self.block.slide();
            // The start of a match that is still wanted may be one byte before the window now. It wraps
            // like all that are older, and so does the distance to it.
            self.held.start = self.held.start.wrapping_sub(HALF);
        }
    }

    fn step(&mut self, out: &mut dyn Write) -> io::Result<()> {
        match self.effort.parsing {
            Parsing::Greedy => self.greedy(out),
            Parsing::Lazy => self.lazy(out),
        }
    }

    /// Takes the match at the position, or a literal.
    fn greedy(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let place = self.insert();
        let found = place.map_or(Match::NONE, |place| self.search(place, Match::NONE));
        let is_full = if found.is_one() {
            let distance = self.window.position - found.start;
            let is_full = self
                .block
                .matched(found.length, distance, self.window.position);
            if found.length <= self.effort.lazy {
                self.pass(found.length - 1);
                self.window.advance(1);
            } else {
                self.window.advance(found.length);
                self.chains
                    .restart(&self.window.bytes, self.window.position);
            }
            is_full
        } else {
            let literal = self.window.bytes[self.window.position];
            let is_full = self.block.literal(literal, self.window.position);
            self.window.advance(1);
            is_full
        };
        self.end_block_if(is_full, out)
    }

    /// Takes the match that was found one position before, unless the one here is longer.
    fn lazy(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let place = self.insert();
        let previous = self.held;
        let mut found = Match {
            length: MIN_MATCH - 1,
            ..previous
        };
        if let Some(place) = place
            && previous.length < self.effort.lazy
        {
            found = self.search(place, previous);
            let distance = self.window.position.wrapping_sub(found.start);
            if found.length == MIN_MATCH && distance > TOO_FAR {
                found.length -= 1;
            }
        }
        if previous.is_one() && found.length <= previous.length {
            let distance = (self.window.position - 1).wrapping_sub(previous.start);
            let is_full = self
                .block
                .matched(previous.length, distance, self.window.position);
            // The first two of its positions are remembered already.
            self.pass(previous.length - 2);
            self.window.advance(1);
            self.owes = false;
            self.held = Match::NONE;
            return self.end_block_if(is_full, out);
        }
        self.held = found;
        let mut is_full = false;
        if self.owes {
            let literal = self.window.bytes[self.window.position - 1];
            is_full = self.block.literal(literal, self.window.position);
        }
        self.owes = true;
        self.end_block_if(is_full, out)?;
        self.window.advance(1);
        Ok(())
    }

    /// Remembers the position, and returns where a match may be.
    fn insert(&mut self) -> Option<Link> {
        if !self.window.has_string() {
            return None;
        }
        let place = self.chains.insert(&self.window.bytes, self.window.position);
        let searched = Chains::reaches(&self.window, place) && self.window.position <= LAST_SEARCH;
        searched.then_some(place)
    }

    /// Goes on by so many positions, and remembers each that is reached.
    fn pass(&mut self, count: usize) {
        for _ in 0..count {
            self.window.advance(1);
            if self.window.has_string() {
                self.chains.insert(&self.window.bytes, self.window.position);
            }
        }
    }

    /// The longest match here, as far as there is input.
    fn search(&self, place: Link, best: Match) -> Match {
        let found = self
            .chains
            .longest(&self.window, place, best, self.effort, self.flavour);
        Match {
            length: found.length.min(self.window.ahead),
            ..found
        }
    }

    fn end_block_if(&mut self, is_full: bool, out: &mut dyn Write) -> io::Result<()> {
        if is_full {
            self.end_block(false, out)?;
        }
        Ok(())
    }

    fn end_block(&mut self, is_last: bool, out: &mut dyn Write) -> io::Result<()> {
        let plain = self.block.plain(&self.window.bytes, self.window.position);
        self.block.write(plain, is_last, &mut self.bits, out)?;
        self.block.begin(self.window.position);
        Ok(())
    }
}

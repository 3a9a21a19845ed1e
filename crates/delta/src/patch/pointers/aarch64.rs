//! Machine code for AArch64. An address mostly stands in two instructions: the first makes that of the
//! page (`adrp`), the second adds what is missing (`add`, loads and stores), and some others may be between
//! them.

use crate::patch::pointers::{Change, From, Places, Pointer, Space};

/// What `adrp` counts in, in bytes.
pub(super) const PAGE: u64 = 4096;

/// Length of an instruction in bytes.
const INSTRUCTION: usize = 4;

/// How many instructions from an `adrp` on are looked at for what uses its page.
const REACH: usize = 8;

/// The pages that registers hold while the code of a copy is looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages([Option<Held>; 32]);

/// A page that a register holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Where the `adrp` is that made it.
    places: Places,
    /// How far it is from the page of that place, in the old file.
    old: u64,
    /// The same in the new file.
    new: u64,
}

/// Code, and what becomes of its pointers.
pub(super) struct Code<'a, C> {
    /// Where the range that it is in begins in the old file.
    pub(super) start: u64,
    /// What it runs in.
    pub(super) space: &'a Space,
    pub(super) by: &'a C,
}

impl<C: Change> Code<'_, C> {
    /// Changes the pointers in `bytes`, which stand at `places`. How many of the bytes are done.
    pub(super) fn change(
        &self,
        bytes: &mut [u8],
        places: Places,
        pages: &mut Pages,
        more: bool,
    ) -> usize {
        let first = self.start.wrapping_sub(places.old) % 4;
        let mut at = (first as usize).min(bytes.len());
        while at < bytes.len() {
            let left = &bytes[at..];
            let mut ahead = left.chunks_exact(INSTRUCTION).map(|instruction| {
                u32::from_le_bytes(*instruction.first_chunk().expect("it is as long"))
            });
            let Some(one) = ahead.next() else {
                return if more { at } else { bytes.len() };
            };
            let places = places.after(at);
            let changed = if !is_adrp(one) {
                self.other(one, places, pages)
            } else if more && left.len() < REACH * INSTRUCTION {
                return at;
            } else {
                self.adrp(one, ahead.take(REACH - 1), places, pages)
            };
            if let Some(changed) = changed {
                bytes[at..at + INSTRUCTION].copy_from_slice(&changed.to_le_bytes());
            }
            at += INSTRUCTION;
        }
        bytes.len()
    }

    /// What becomes of an `adrp`: it makes the page of what the first one of those behind it that uses it
    /// points to.
    fn adrp(
        &self,
        one: u32,
        behind: impl Iterator<Item = u32>,
        places: Places,
        pages: &mut Pages,
    ) -> Option<u32> {
        let register = target(one);
        let mut behind = behind.take_while(|&next| !is_adrp(next) || target(next) != register);
        let offset = behind.find_map(|next| {
            let (base, offset) = offset(next)?;
            (base == register).then(|| offset.get(next))
        });
        pages.0[register] = None;
        let old = page(one);
        let new =
            self.number(places, From::Page, old.wrapping_add(offset.unwrap_or(0)))? & !(PAGE - 1);
        let changed = with_page(one, new)?;
        pages.0[register] = Some(Held { places, old, new });
        Some(changed)
    }

    /// What becomes of any other instruction.
    fn other(&self, one: u32, places: Places, pages: &mut Pages) -> Option<u32> {
        if let Some(branch) = branch(one) {
            let number = self.number(places, From::Itself(0), branch.get(one))?;
            return branch.put(one, number);
        }
        let (register, offset) = offset(one)?;
        let held = pages.0[register]?;
        if makes_something_else(one) && target(one) == register {
            pages.0[register] = None;
        }
        let distance = places.old - held.places.old;
        let is_near = distance < (REACH * INSTRUCTION) as u64 && held.places.old >= self.start;
        is_near.then_some(())?;
        let number = held.old.wrapping_add(offset.get(one));
        let number = self.number(held.places, From::Page, number)?;
        (number & !(PAGE - 1) == held.new).then_some(())?;
        offset.put(one, number % PAGE)
    }

    /// The number that takes the place of another one. What is 0 is yet to be filled in by a linker.
    fn number(&self, places: Places, from: From, number: u64) -> Option<u64> {
        let pointer = Pointer {
            places,
            from,
            space: self.space,
        };
        (number != 0).then_some(())?;
        self.by.change(&pointer, number)
    }
}

/// A number within an instruction.
#[derive(Clone, Copy)]
struct Immediate {
    /// Its lowest bit.
    at: u32,
    /// How many bits it has.
    bits: u32,
    /// By how many bits it is shifted.
    shift: u32,
    is_signed: bool,
}

impl Immediate {
    const fn get(self, one: u32) -> u64 {
        let number = (one >> self.at) as u64 & ((1 << self.bits) - 1);
        let unused = 64 - self.bits;
        let number = if self.is_signed {
            ((number << unused).cast_signed() >> unused).cast_unsigned()
        } else {
            number
        };
        number << self.shift
    }

    /// The instruction with another number, if that can be written so.
    fn put(self, one: u32, number: u64) -> Option<u32> {
        let mask = (1 << self.bits) - 1;
        // What is cut off is missed below.
        let bits = u32::try_from(number >> self.shift & u64::from(mask)).ok()?;
        let changed = one & !(mask << self.at) | bits << self.at;
        (self.get(changed) == number).then_some(changed)
    }
}

/// The distance of a branch: `b` and `bl`; `b.cond`, `cbz` and `cbnz`; `tbz` and `tbnz`.
fn branch(one: u32) -> Option<Immediate> {
    let (at, bits) = match one {
        _ if one & 0x7c00_0000 == 0x1400_0000 => (0, 26),
        _ if one & 0xff00_0010 == 0x5400_0000 || one & 0x7e00_0000 == 0x3400_0000 => (5, 19),
        _ if one & 0x7e00_0000 == 0x3600_0000 => (5, 14),
        _ => return None,
    };
    Some(Immediate {
        at,
        bits,
        shift: 2,
        is_signed: true,
    })
}

/// What is added to the number in a register, and which one that is: `add` of 64 bits, and loads and
/// stores, which count in what they load or store.
fn offset(one: u32) -> Option<(usize, Immediate)> {
    let shift = if is_add(one) {
        0
    } else if is_load_or_store(one) {
        let is_of_128_bits = one & 0xc480_0000 == 0x0480_0000;
        if is_of_128_bits { 4 } else { one >> 30 }
    } else {
        return None;
    };
    let immediate = Immediate {
        at: 10,
        bits: 12,
        shift,
        is_signed: false,
    };
    Some((register(one >> 5), immediate))
}

const fn is_add(one: u32) -> bool {
    one & 0xffc0_0000 == 0x9100_0000
}

const fn is_load_or_store(one: u32) -> bool {
    one & 0x3b00_0000 == 0x3900_0000
}

/// Whether its target holds something else behind it: that of an `add` or of a load.
const fn makes_something_else(one: u32) -> bool {
    let is_of_vector = one & 1 << 26 != 0;
    let is_store = one & 0x00c0_0000 == 0;
    is_add(one) || !is_of_vector && !is_store
}

const fn is_adrp(one: u32) -> bool {
    one & 0x9f00_0000 == 0x9000_0000
}

/// The register that an instruction writes to.
const fn target(one: u32) -> usize {
    register(one)
}

/// The register in the lowest bits.
const fn register(bits: u32) -> usize {
    (bits & 31) as usize
}

/// Where the bits of a page stand in an `adrp`: the two lowest, then the others.
const LOW: Immediate = Immediate {
    at: 29,
    bits: 2,
    shift: 12,
    is_signed: false,
};
const HIGH: Immediate = Immediate {
    at: 5,
    bits: 19,
    shift: 14,
    is_signed: true,
};

/// How far the page of an `adrp` is from its own.
const fn page(one: u32) -> u64 {
    HIGH.get(one) + LOW.get(one)
}

/// An `adrp` with a page so far away, if that can be written so.
fn with_page(one: u32, page: u64) -> Option<u32> {
    let low = page & 3 << LOW.shift;
    HIGH.put(LOW.put(one, low)?, page - low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::pointers::{Form, Layout, Pointers, Range, State, Stretch};
    use crate::patch::projection::{Move, Projection};

    /// What becomes of code from the file's first byte on, if all from 0x2000 on moved by so much.
    fn moved(code: &[u32], by: u64) -> Vec<u32> {
        let layout = |len| {
            Layout(vec![Stretch {
                at: 0,
                address: 0x40_0000,
                len,
            }])
        };
        let pointers = Pointers {
            spaces: vec![Space {
                unit: 1,
                old: layout(0x1_0000),
                new: layout(0x1_0000 + by),
            }],
            ranges: vec![Range {
                start: 0,
                end: 0x1000,
                form: Form::Aarch64 { space: 0 },
            }],
        };
        let copy = |old, len, new| Move { old, len, new };
        let projection =
            Projection::new(vec![copy(0, 0x2000, 0), copy(0x2000, 0xe000, 0x2000 + by)]);
        let mut bytes: Vec<u8> = code.iter().flat_map(|one| one.to_le_bytes()).collect();
        let places = Places { old: 0, new: 0 };
        let places = (places, &mut State::default());
        assert_eq!(
            pointers.change(&mut bytes, places, false, &projection),
            bytes.len()
        );
        let words = bytes.chunks_exact(4);
        let words = words.map(|word| u32::from_le_bytes(word.try_into().unwrap()));
        words.collect()
    }

    const NOP: u32 = 0xd503_201f;

    const fn adrp(register: u32, pages: u32) -> u32 {
        0x9000_0000 | register | (pages & 3) << 29 | pages >> 2 << 5
    }

    /// `add`, `ldr` of 8 and of 16 bytes, with the number as it is written.
    const fn add(to: u32, from: u32, number: u32) -> u32 {
        0x9100_0000 | to | from << 5 | number << 10
    }
    const fn ldr(to: u32, from: u32, number: u32) -> u32 {
        0xf940_0000 | to | from << 5 | number << 10
    }
    const fn ldr_q(to: u32, from: u32, number: u32) -> u32 {
        0x3dc0_0000 | to | from << 5 | number << 10
    }

    #[test]
    fn a_page_and_what_is_added_to_it_follow_together() {
        // 0x3ff0 becomes 0x4010, which is on the next page.
        let code = [adrp(1, 3), NOP, add(0, 1, 0xff0), ldr(2, 1, 0xff8 / 8)];
        let wanted = [adrp(1, 4), NOP, add(0, 1, 0x010), ldr(2, 1, 0x018 / 8)];
        assert_eq!(moved(&code, 0x20), wanted);
        // What is on another page than the first one that is used stays as it is.
        let code = [adrp(1, 3), add(0, 1, 0xfe0), add(2, 1, 0xfd0)];
        assert_eq!(moved(&code, 0x20), [adrp(1, 4), add(0, 1, 0), code[2]]);
        // Sixteen bytes cannot be loaded from everywhere.
        let code = [adrp(1, 3), ldr_q(0, 1, 1)];
        assert_eq!(moved(&code, 0x20), [adrp(1, 3), ldr_q(0, 1, 3)]);
        assert_eq!(moved(&code, 0x1008), [adrp(1, 4), code[1]]);
    }

    #[test]
    fn a_register_holds_a_page_for_a_while() {
        // An addition, or a load, puts something else there.
        let code = [adrp(1, 3), add(1, 1, 0x10), ldr(0, 1, 1)];
        assert_eq!(
            moved(&code, 0x20),
            [adrp(1, 3), add(1, 1, 0x30), ldr(0, 1, 1)]
        );
        let code = [adrp(1, 3), ldr(1, 1, 2), add(0, 1, 0x10)];
        assert_eq!(
            moved(&code, 0x20),
            [adrp(1, 3), ldr(1, 1, 6), add(0, 1, 0x10)]
        );
        // After seven more instructions nothing is known of it.
        let mut code = [NOP; 10];
        code[0] = adrp(1, 3);
        code[7] = add(0, 1, 0x10);
        code[8] = add(0, 1, 0x10);
        let mut wanted = code;
        wanted[7] = add(0, 1, 0x30);
        assert_eq!(moved(&code, 0x20), wanted);
    }

    #[test]
    fn branches_follow_as_far_as_they_reach() {
        let (bl, cbz, tbz) = (0x9400_0000, 0xb400_0003, 0x3600_0003);
        let code = [bl | 0x800, cbz | 0x7ff << 5, tbz | 0x7fe << 5];
        let wanted = [bl | 0x810, cbz | 0x80f << 5, tbz | 0x80e << 5];
        assert_eq!(moved(&code, 0x40), wanted);
        // The last one reaches 32 KiB; nothing reaches what is no instruction.
        assert_eq!(
            moved(&code, 0x8000),
            [bl | 0x2800, cbz | 0x27ff << 5, code[2]]
        );
        assert_eq!(moved(&code, 2), code);
        // What a linker is to fill in is left alone.
        let code = [bl, adrp(0, 0), add(0, 0, 0)];
        assert_eq!(moved(&code, 0x1000), code);
    }
}

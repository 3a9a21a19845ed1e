//! Machine code for x86-64.

use crate::patch::pointers::{Change, Places, Pointer, Space, Width};

/// Machine code, looked at byte by byte: what looks like an instruction with an address in it and points
/// to something known is taken for one.
pub(super) fn code(
    bytes: &mut [u8],
    places: Places,
    (space, absolute): (&Space, bool),
    more: bool,
    by: &impl Change,
) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        let next = bytes.get(at + 1).copied();
        if next.is_none() && more {
            return at;
        }
        let Some((skipped, width)) = pointer(bytes[at], next.unwrap_or(0), absolute) else {
            at += 1;
            continue;
        };
        let start = at + skipped;
        let Some(field) = bytes.get_mut(start..start + 4) else {
            if more {
                return at;
            }
            at += 1;
            continue;
        };
        let pointer = Pointer {
            places: places.after(start),
            from: width.from(4),
            space,
        };
        let is_known = width.change(field, &pointer, by);
        at = if is_known { start + 4 } else { at + 1 };
    }
    at
}

/// How far behind the first byte of an opcode an address stands, and how it is written.
const fn pointer(one: u8, next: u8, absolute: bool) -> Option<(usize, Width)> {
    match (one, next) {
        // Calls and jumps; anything that is addressed relative to the next instruction.
        (0xe8 | 0xe9, _) => Some((1, Width::Relative4)),
        (0x0f, 0x80..=0x8f) => Some((2, Width::Relative4)),
        (modrm, _) if modrm & 0xc7 == 0x05 => Some((1, Width::Relative4)),
        _ if !absolute => None,
        // Immediate values.
        (0xc7, 0xc0..=0xc7) | (0x81, 0xc0..) => Some((2, Width::Absolute4)),
        (0xb8..=0xbf | 0x68, _) => Some((1, Width::Absolute4)),
        // Displacements, with an index or a base register.
        (modrm, sib) if modrm & 0xc7 == 0x04 && sib & 7 == 5 => Some((2, Width::Absolute4)),
        (modrm, _) if modrm & 0xc0 == 0x80 && modrm & 7 != 4 => Some((1, Width::Absolute4)),
        _ => None,
    }
}

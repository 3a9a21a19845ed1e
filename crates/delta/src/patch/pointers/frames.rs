//! Records for unwinding.

use crate::patch::pointers::{Change, From, Places, Pointer, Space, Width};

/// No record is longer, in bytes.
const LONGEST: u32 = 4096;

/// Records for unwinding; the first may begin at `first`. What looks like one that describes code is
/// taken for one: its length, the distance to the record that it goes on from, and a pointer.
pub(super) fn frames(
    bytes: &mut [u8],
    first: usize,
    places: Places,
    space: &Space,
    more: bool,
    by: &impl Change,
) -> usize {
    let mut at = first.min(bytes.len());
    while at < bytes.len() {
        let Some(head) = bytes.get(at..at + 12) else {
            return if more { at } else { bytes.len() };
        };
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let (len, distance) = (word(0), word(4));
        let is_record = (12..LONGEST).contains(&len) && len % 4 == 0;
        if !is_record || distance == 0 || distance % 4 != 0 {
            at += 4;
            continue;
        }
        let pointer = Pointer {
            places: places.after(at + 8),
            from: From::Itself(0),
            space,
        };
        let is_known = Width::Relative4.change(&mut bytes[at + 8..at + 12], &pointer, by);
        at += if is_known { 12 } else { 4 };
    }
    bytes.len()
}

//! Inputs of several parts, so that each can be changed without another: a change of a stream's length
//! leaves all other streams what they were.
//!
//! In: any bytes. Out: sections, the last of which may be shorter than they say or not there at all.

use libfuzzer_sys::fuzzer_mutate;
use system_image_delta::patch::varint;

/// Takes bytes apart: the length of each section stands in front of it.
pub fn of(mut bytes: &[u8], count: usize) -> Vec<Vec<u8>> {
    let mut sections = Vec::with_capacity(count);
    for _ in 0..count {
        let len = varint::read(&mut bytes).unwrap_or(0);
        let len = usize::try_from(len).map_or(bytes.len(), |len| len.min(bytes.len()));
        let (section, rest) = bytes.split_at(len);
        sections.push(section.to_vec());
        bytes = rest;
    }
    sections
}

/// Puts them together again. Empty ones at the end are left out.
pub fn put(sections: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let end = sections.iter().rposition(|section| !section.is_empty());
    for section in &sections[..end.map_or(0, |last| last + 1)] {
        varint::put(&mut bytes, section.len() as u64);
        bytes.extend_from_slice(section);
    }
    bytes
}

/// Numbers at which something may change.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    4096,
    (1 << 16) - 1,
    1 << 16,
    1 << 20,
    1 << 40,
    u64::MAX,
];

/// Random numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let end = end.max(1) as u64;
        usize::try_from((self.0 >> 8) % end).expect("it is below the end")
    }
}

/// Changes a section. Those of `numbers` are changed number by number, too.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    count: usize,
    numbers: std::ops::Range<usize>,
) -> usize {
    let mut sections = of(&data[..size], count);
    let mut dice = Dice(u64::from(seed) << 1 | 1);
    dice.below(1);
    let filled: Vec<usize> = (0..count).filter(|&i| !sections[i].is_empty()).collect();
    let which = match dice.below(8) {
        0 => dice.below(count),
        _ => filled.get(dice.below(filled.len())).copied().unwrap_or(0),
    };
    let section = &mut sections[which];
    if numbers.contains(&which) && dice.below(3) > 0 {
        change_numbers(section, &mut dice);
    } else {
        let len = section.len();
        let room = max_size.saturating_sub(size + 8).min(len + 64);
        if len + room == 0 {
            return size;
        }
        section.resize(len + room, 0);
        let len = fuzzer_mutate(section, len, len + room);
        section.truncate(len);
    }
    let bytes = put(&sections);
    if bytes.len() > max_size {
        return size;
    }
    data[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

fn change_numbers(section: &mut Vec<u8>, dice: &mut Dice) {
    let mut left = &section[..];
    let mut numbers = Vec::new();
    while let Ok(number) = varint::read(&mut left) {
        numbers.push(number);
    }
    let rest = left.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(numbers.len() + 1);
        let edge = EDGES[dice.below(EDGES.len())];
        match (dice.below(7), numbers.get_mut(at)) {
            (0, Some(number)) => *number = edge,
            (1, Some(number)) => *number = number.wrapping_add(1 + dice.below(16) as u64),
            (2, Some(number)) => *number = number.wrapping_sub(1 + dice.below(16) as u64),
            (3, Some(_)) => drop(numbers.remove(at)),
            (4, Some(_)) => {
                let len = 1 + dice.below(12.min(numbers.len() - at));
                let again: Vec<u64> = numbers[at..at + len].to_vec();
                let to = dice.below(numbers.len() + 1);
                numbers.splice(to..to, again);
            }
            (5, Some(_)) => {
                let from = numbers[dice.below(numbers.len())];
                numbers[at] = from;
            }
            _ => numbers.insert(at, edge),
        }
    }
    section.clear();
    for number in numbers {
        varint::put(section, number);
    }
    section.extend(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_put_together_as_they_were() {
        let sections = vec![b"one".to_vec(), Vec::new(), b"three".to_vec(), Vec::new()];
        assert_eq!(of(&put(&sections), 4), sections);
    }
}

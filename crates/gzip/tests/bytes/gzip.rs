//! The stream beside that of the real `gzip`, byte for byte.

use crate::peers::{Numbers, gzip, levels, ours, repeated};
use proptest::prelude::*;
use system_image_gzip::{Flavour, Level};

/// Half of gzip's window.
const HALF: usize = 32 << 10;

#[track_caller]
fn assert_same(name: &str, level: Level, plain: &[u8]) {
    let (expected, got) = (gzip(level, plain), ours(Flavour::Gzip, level, plain));
    let first = expected.iter().zip(&got).position(|(a, b)| a != b);
    assert!(
        expected == got,
        "{name}, {} bytes, level {}: {} bytes instead of {}, the first other one is {first:?}",
        plain.len(),
        level.number(),
        got.len(),
        expected.len()
    );
}

#[track_caller]
fn assert_same_at_all_levels(name: &str, plain: &[u8]) {
    for level in levels() {
        assert_same(name, level, plain);
    }
}

#[test]
fn short_inputs_are_equal_at_all_levels() {
    let inputs: [&[u8]; 12] = [
        b"",
        b"a",
        b"\0",
        b"\x01",
        b"ab",
        b"abc",
        b"abcabc",
        b"aaaaaaaaaa",
        b"\0\0\0\0\0\0",
        b"\xff\xfe\xfd\xfc\xfb",
        b"a match that runs to the end, a match that runs to the end",
        b"\x01\0\0\x01\0\0\x01\0",
    ];
    for input in inputs {
        assert_same_at_all_levels("short", input);
    }
}

#[test]
fn each_kind_of_content_is_equal_at_all_levels() {
    let mut numbers = Numbers(1);
    assert_same_at_all_levels("text", &numbers.text(400_000));
    assert_same_at_all_levels("random", &numbers.bytes(150_000));
    assert_same_at_all_levels("zeros", &vec![0; 300_000]);
    assert_same_at_all_levels("two letters", &numbers.bytes_of(b"ab", 70_000));
    // Skewed frequencies make codes that must be cut to 15 bits.
    let skewed: Vec<_> = (0..250_000).map(|_| numbers.halving()).collect();
    assert_same_at_all_levels("skewed", &skewed);
}

#[test]
fn long_and_distant_matches_are_equal_at_all_levels() {
    let mut numbers = Numbers(2);
    for period in [1, 2, 3, 7, 258, 259, 4095, 4096, 4097] {
        let pattern = numbers.bytes(period);
        assert_same_at_all_levels("short period", &repeated(&pattern, 40_000));
    }
    // As far back as a match may reach, and one byte farther.
    for period in [HALF - 263, HALF - 262, HALF - 261, HALF, HALF + 1] {
        let pattern = numbers.text(period);
        assert_same("long period", Level::BEST, &repeated(&pattern, 150_000));
        assert_same("long period", Level::DEFAULT, &repeated(&pattern, 150_000));
        assert_same("long period", Level::FASTEST, &repeated(&pattern, 150_000));
    }
}

#[test]
fn inputs_that_end_where_the_window_moves_are_equal() {
    let mut numbers = Numbers(3);
    let text = numbers.text(4 * HALF + 1000);
    // Zeros make matches that run past the end of the input.
    let zeros = numbers.bytes_of(b"abcdefgh\0\0\0\0", 4 * HALF + 1000);
    let near = [
        -263, -262, -261, -259, -3, -2, -1, 0, 1, 2, 3, 257, 258, 262, 263,
    ];
    for (turn, offset) in near.into_iter().enumerate() {
        for halves in 1..=4 {
            let end = (halves * HALF).checked_add_signed(offset).unwrap();
            let level = [1, 3, 4, 6, 9][(turn + halves) % 5];
            assert_same("text", Level::new(level).unwrap(), &text[..end]);
            assert_same("zeros", Level::BEST, &zeros[..end]);
        }
    }
}

#[test]
fn a_match_whose_start_leaves_the_window_is_still_taken() {
    // The window moves when the match has just been found, and the match begins in the lower half.
    let mut plain = Numbers(11).bytes(2 * HALF - 1);
    let found = plain.len() - 262;
    plain.copy_within(HALF - 1..HALF + 20, found);
    assert_same_at_all_levels("at the edge", &plain);
}

#[test]
fn of_forms_that_are_equally_short_the_same_one_is_chosen() {
    let mut numbers = Numbers(10);
    for count in 20..120 {
        // Stored or fixed; fixed or dynamic.
        assert_same("noise", Level::BEST, &numbers.bytes(count));
        assert_same(
            "letters",
            Level::BEST,
            &numbers.bytes_of(b"abcdefghijkl", count),
        );
    }
}

#[test]
fn a_block_that_is_just_good_enough_ends_where_gzip_ends_it() {
    // With the first two just half of the symbols are matches when gzip asks, with the others all take
    // just half of the plain bytes.
    for seed in [2654, 6617, 214, 330] {
        let mut numbers = Numbers(seed);
        let mut plain = numbers.bytes(20);
        let (fresh, copied) = (1 + numbers.below(6), 2 + numbers.below(14));
        while plain.len() < 30_000 {
            let count = numbers.below(fresh);
            plain.extend(numbers.bytes(count));
            let from = numbers.below(plain.len() - 16);
            let count = 3 + numbers.below(copied).min(13);
            plain.extend_from_within(from..from + count);
        }
        assert_same("just good enough", Level::BEST, &plain);
    }
}

#[test]
fn mixed_content_is_equal_at_all_levels() {
    let mut numbers = Numbers(4);
    let mut mixed = Vec::new();
    for _ in 0..12 {
        let count = 100 + numbers.below(60_000);
        mixed.extend(match numbers.below(5) {
            0 => numbers.bytes(count),
            1 => vec![0; count],
            2 => numbers.bytes_of(b"\0\x01ab", count),
            3 => mixed.iter().rev().take(count).copied().collect(),
            _ => numbers.text(count),
        });
        mixed.extend(numbers.text(20_000));
    }
    assert_same_at_all_levels("mixed", &mixed);
}

/// Each three bytes stand in more places than gzip looks at.
#[test]
fn of_few_letters_what_gzip_does_not_come_to_is_not_found() {
    let mut numbers = Numbers(9);
    for letters in [&b"ab"[..], b"aaab", b"abc"] {
        let mut plain = Vec::new();
        while plain.len() < 90_000 {
            let count = 1 + numbers.below(2000);
            plain.extend(numbers.bytes_of(letters, count));
            let back = plain.len().min(1 + numbers.below(32_000));
            let from = plain.len() - back;
            let count = back.min(10 + numbers.below(300));
            plain.extend_from_within(from..from + count);
        }
        assert_same_at_all_levels("few letters", &plain);
    }
}

/// A part of an input.
#[derive(Clone, Debug)]
enum Part {
    Literal(Vec<u8>),
    Run(u8, usize),
    /// Bytes from before, from how far back and how many.
    Copy(usize, usize),
    Text(u64, usize),
    Noise(u64, usize),
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        prop::collection::vec(0u8..4, 0..40).prop_map(Part::Literal),
        (any::<u8>(), 1usize..2000).prop_map(|(byte, count)| Part::Run(byte, count)),
        (1usize..40_000, 1usize..600).prop_map(|(back, count)| Part::Copy(back, count)),
        (1..u64::MAX, 1usize..30_000).prop_map(|(seed, count)| Part::Text(seed, count)),
        (1..u64::MAX, 1usize..20_000).prop_map(|(seed, count)| Part::Noise(seed, count)),
    ];
    prop::collection::vec(part, 0..24)
}

fn assemble(parts: &[Part]) -> Vec<u8> {
    let mut plain = Vec::new();
    for part in parts {
        match part {
            Part::Literal(bytes) => plain.extend_from_slice(bytes),
            Part::Run(byte, count) => plain.extend(std::iter::repeat_n(*byte, *count)),
            Part::Copy(back, count) => {
                for _ in 0..*count {
                    let from = plain.len().checked_sub(*back);
                    plain.push(from.map_or(0, |from| plain[from]));
                }
            }
            Part::Text(seed, count) => plain.extend(Numbers(*seed).text(*count)),
            Part::Noise(seed, count) => plain.extend(Numbers(*seed).bytes(*count)),
        }
    }
    plain
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_input_is_equal(parts in parts(), level in 1u8..=9) {
        let plain = assemble(&parts);
        let level = Level::new(level).unwrap();
        prop_assert!(gzip(level, &plain) == ours(Flavour::Gzip, level, &plain));
    }
}

//! The stream beside that of the real zlib, byte for byte.

use crate::peers::{Numbers, levels, ours, repeated, zlib};
use system_image_gzip::Flavour;

#[test]
fn all_levels_are_equal() {
    const HALF: usize = 32 << 10;
    let mut numbers = Numbers(5);
    let mut inputs = vec![
        Vec::new(),
        b"a".to_vec(),
        b"abcabcabc".to_vec(),
        numbers.text(400_000),
        numbers.bytes(100_000),
        vec![0; 200_000],
        repeated(&numbers.text(HALF - 262), 150_000),
        [
            numbers.text(70_000),
            numbers.bytes(50_000),
            vec![0; 5000],
            numbers.text(70_000),
        ]
        .concat(),
    ];
    for offset in [-262, -261, -2, -1, 0, 1, 2, 262] {
        let end = (2 * HALF).checked_add_signed(offset).unwrap();
        inputs.push(numbers.text(end));
        inputs.push(numbers.bytes_of(b"abcdefgh\0\0\0\0", end));
    }
    for plain in &inputs {
        for (level, expected) in levels().zip(zlib(plain)) {
            let is_same = expected == ours(Flavour::Zlib, level, plain);
            assert!(is_same, "{} bytes, {level:?}", plain.len());
        }
    }
}

#[test]
fn zlib_and_gzip_differ_where_gzip_ends_a_block_early() {
    let plain = Numbers(6).text(100_000);
    let level = system_image_gzip::Level::BEST;
    assert_ne!(
        ours(Flavour::Gzip, level, &plain),
        ours(Flavour::Zlib, level, &plain)
    );
}

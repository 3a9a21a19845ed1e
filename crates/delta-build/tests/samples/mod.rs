//! Content for images.

/// Bytes that do not repeat, and pack badly.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// Text of which no line comes twice.
pub(crate) fn text(lines: std::ops::Range<u32>) -> Vec<u8> {
    lines
        .flat_map(|i| format!("line {i} says {}\n", i.wrapping_mul(2_654_435_761)).into_bytes())
        .collect()
}

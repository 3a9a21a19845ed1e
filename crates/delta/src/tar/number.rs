//! Numbers of a tar header: octal text, or base-256 as GNU writes what does not fit.

/// Reads a numeric field. Blank fields are zero; anything but a number is `None`.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

/// Two's complement, most significant byte first; the top bit only marks the form.
fn base_256(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    let sign: i128 = if first & 0x40 == 0 { 0 } else { -1 };
    let mut value = (sign << 6) | i128::from(first & 0x3f);
    for &byte in rest {
        // Twelve bytes are the widest field: 94 bits, so this never overflows.
        value = (value << 8) | i128::from(byte);
    }
    value.try_into().ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let text = field.trim_ascii_start();
    let digits = text
        .iter()
        .take_while(|b| (b'0'..=b'7').contains(b))
        .count();
    let (digits, rest) = text.split_at(digits);
    if !rest.iter().all(|b| matches!(b, 0 | b' ')) {
        return None;
    }
    // Twelve octal digits are the widest field: 36 bits.
    digits.iter().try_fold(0_i64, |value, digit| {
        value.checked_mul(8)?.checked_add(i64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_real_archives_hold() {
        let mut large = [0; 12];
        large[0] = 0x80;
        large[7] = 1;
        for (field, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (&large, Some(1 << 32)),
            (&[0xff; 12], Some(-1)),
            (b"12x4567\0", None),
            (b"-1\0", None),
            (&[0x8f; 12], None),
        ] {
            assert_eq!(parse(field), want, "{field:?}");
        }
    }
}

//! Numbers of a patch: seven bits a byte, the lowest first, the eighth bit set but in the last.
//! Signed ones have their sign in the lowest bit.

use std::io::{self, Read};

/// Longest form of a number, in bytes.
const LONGEST: u32 = 10;

/// Appends a number.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the lowest seven bits are meant"
        )]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is below 128")]
    out.push(value as u8);
}

/// Reads a number, asking for one byte at a time.
pub fn get(mut next: impl FnMut() -> io::Result<u8>) -> io::Result<u64> {
    let mut value = 0;
    for i in 0..LONGEST {
        let byte = next()?;
        let bits = u64::from(byte & 0x7f);
        if i == LONGEST - 1 && bits > 1 {
            break;
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "a number is longer than 64 bits",
    ))
}

/// Reads a number.
pub fn read(input: &mut impl Read) -> io::Result<u64> {
    get(|| {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        Ok(byte[0])
    })
}

/// The form of a signed number.
pub const fn fold(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// A signed number from its form.
pub const fn unfold(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_comes_back(value: u64, signed: i64) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            put(&mut bytes, fold(signed));
            let mut rest = &bytes[..];
            prop_assert_eq!(read(&mut rest).unwrap(), value);
            prop_assert_eq!(unfold(read(&mut rest).unwrap()), signed);
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        let too_long = [0xff; 11];
        assert!(read(&mut &too_long[..]).is_err());
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert!(read(&mut &too_large[..]).is_err());
    }
}

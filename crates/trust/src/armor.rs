//! ASCII armour: exactly one block, of the type that was asked for.
//!
//! In: a text. Out: the bytes inside its block. GnuPG skips what stands around a block and what
//! it does not understand; here only blank lines may surround it, because a file with more in it
//! means different things to different readers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The text between the dashes of a block's first line.
pub(crate) const SIGNATURE: &str = "PGP SIGNATURE";
/// As [`SIGNATURE`], for a secret key.
pub(crate) const PUBLIC_KEY: &str = "PGP PUBLIC KEY BLOCK";
pub(crate) const PRIVATE_KEY: &str = "PGP PRIVATE KEY BLOCK";

/// GnuPG's line length.
const LINE: usize = 64;

/// Why a text is not one armoured block of the wanted type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmorError {
    /// There is no armour at all: binary, empty or some other text.
    #[error("not ASCII-armoured")]
    NotArmored,
    /// A block of another type, such as a cleartext-signed or an inline message.
    #[error("the armoured block is of type `{0}`")]
    OtherType(String),
    /// Text beside the block, or a second block.
    #[error("something else stands beside the armoured block")]
    Surrounded,
    /// The block is cut off, or its lines are no armour.
    #[error("the armoured block is damaged")]
    Damaged,
    /// The block's checksum does not match its content.
    #[error("the armoured block does not match its checksum")]
    Checksum,
}

/// The content of the one block in `text`, which must be of type `wanted`.
pub(crate) fn read(text: &[u8], wanted: &str) -> Result<Vec<u8>, ArmorError> {
    if !text.is_ascii() {
        return Err(ArmorError::NotArmored);
    }
    let text = str::from_utf8(text).map_err(|_| ArmorError::NotArmored)?;
    let mut lines = text.lines().map(str::trim_end).skip_while(|l| l.is_empty());

    let first = lines.next().ok_or(ArmorError::NotArmored)?;
    let found = first
        .strip_prefix("-----BEGIN ")
        .and_then(|rest| rest.strip_suffix("-----"))
        .ok_or_else(|| {
            let later = text.contains("-----BEGIN PGP ");
            if later {
                ArmorError::Surrounded
            } else {
                ArmorError::NotArmored
            }
        })?;
    if found != wanted {
        return Err(ArmorError::OtherType(found.chars().take(40).collect()));
    }

    // Headers such as `Version: GnuPG v1` are not signed and say nothing that matters.
    let end = format!("-----END {wanted}-----");
    let mut headers = lines.by_ref().take_while(|line| !line.is_empty());
    if headers.any(|line| !line.contains(": ") && !line.ends_with(':')) {
        return Err(ArmorError::Damaged);
    }

    let (mut body, mut checksum, mut ended) = (String::new(), None, false);
    for line in lines.by_ref() {
        match line.strip_prefix('=') {
            _ if line == end => {
                ended = true;
                break;
            }
            _ if checksum.is_some() => return Err(ArmorError::Damaged),
            Some(sum) => checksum = Some(sum),
            None => body.push_str(line),
        }
    }
    if !ended {
        return Err(ArmorError::Damaged);
    }
    if lines.any(|line| !line.is_empty()) {
        return Err(ArmorError::Surrounded);
    }

    let bytes = STANDARD.decode(body).map_err(|_| ArmorError::Damaged)?;
    if let Some(sum) = checksum {
        let sum = STANDARD.decode(sum).map_err(|_| ArmorError::Damaged)?;
        if sum != crc24(&bytes) {
            return Err(ArmorError::Checksum);
        }
    }
    Ok(bytes)
}

/// A block of type `kind`, with the checksum that GnuPG 1.4 wants.
pub(crate) fn write(bytes: &[u8], kind: &str) -> String {
    let body = STANDARD.encode(bytes);
    let mut out = format!("-----BEGIN {kind}-----\n\n");
    for line in body.as_bytes().chunks(LINE) {
        out.push_str(str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    let sum = STANDARD.encode(crc24(bytes));
    out + &format!("={sum}\n-----END {kind}-----\n")
}

/// OpenPGP's CRC-24 (RFC 4880, section 6.1).
fn crc24(bytes: &[u8]) -> [u8; 3] {
    let mut crc = 0x00b7_04ce_u32;
    for byte in bytes {
        crc ^= u32::from(*byte) << 16;
        for _ in 0..8 {
            crc <<= 1;
            if crc & 0x0100_0000 != 0 {
                crc ^= 0x0186_4cfb;
            }
        }
    }
    let [_, high, middle, low] = crc.to_be_bytes();
    [high, middle, low]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: &str = "-----BEGIN PGP SIGNATURE-----\nVersion: GnuPG v1\n\naGVsbG8=\n=R/WK\n-----END PGP SIGNATURE-----\n";

    #[test]
    fn reads_what_gnupg_writes() {
        let windows = BLOCK.replace('\n', "\r\n");
        let without_checksum = BLOCK.replace("=R/WK\n", "");
        let indented = format!("\n  \n{BLOCK}\n\n");
        for text in [BLOCK, &windows, &without_checksum, &indented] {
            assert_eq!(
                read(text.as_bytes(), SIGNATURE).unwrap(),
                b"hello",
                "{text}"
            );
        }
    }

    #[test]
    fn each_deviation_has_its_refusal() {
        let twice = format!("{BLOCK}{BLOCK}");
        let preceded = format!("Hello\n{BLOCK}");
        let message = BLOCK.replace("SIGNATURE", "MESSAGE");
        let cleartext = format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nhi\n{BLOCK}");
        let other = |kind: &str| ArmorError::OtherType(kind.to_owned());
        for (text, want) in [
            ("", ArmorError::NotArmored),
            ("\u{88}\u{1}", ArmorError::NotArmored),
            ("{}", ArmorError::NotArmored),
            (&twice, ArmorError::Surrounded),
            (&preceded, ArmorError::Surrounded),
            (&message, other("PGP MESSAGE")),
            (&cleartext, other("PGP SIGNED MESSAGE")),
            (&BLOCK.replace("=R/WK", "=R/WL"), ArmorError::Checksum),
            (&BLOCK.replace("aGVsbG8=", "aGVsbG8*"), ArmorError::Damaged),
            (&BLOCK.replace("-----END", "----END"), ArmorError::Damaged),
            (&BLOCK[..50], ArmorError::Damaged),
        ] {
            assert_eq!(read(text.as_bytes(), SIGNATURE), Err(want), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(read(write(&bytes, SIGNATURE).as_bytes(), SIGNATURE), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in "(-----(BEGIN|END) PGP SIGNATURE-----|[=a-z:\n -]|\\PC){0,40}") {
            let _ = read(text.as_bytes(), SIGNATURE);
        }
    }
}

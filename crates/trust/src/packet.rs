//! OpenPGP packet framing: which packets a sequence holds, and where each begins and ends.
//!
//! In: bytes. Out: tags and bodies, borrowed, or an error at the first thing that is not a whole
//! packet of known length. Stricter than the standard needs: partial and indeterminate lengths
//! belong to messages, which are never read here. Nothing is allocated, so no length is believed.

/// Packet types that are read or written here.
pub(crate) mod tag {
    pub(crate) const SIGNATURE: u8 = 2;
    pub(crate) const SECRET_KEY: u8 = 5;
    pub(crate) const PUBLIC_KEY: u8 = 6;
    pub(crate) const SECRET_SUBKEY: u8 = 7;
    pub(crate) const MARKER: u8 = 10;
    pub(crate) const TRUST: u8 = 12;
    pub(crate) const USER_ID: u8 = 13;
    pub(crate) const PUBLIC_SUBKEY: u8 = 14;
    pub(crate) const USER_ATTRIBUTE: u8 = 17;
    pub(crate) const PADDING: u8 = 21;
    /// From here on a reader may skip what it does not know.
    pub(crate) const FIRST_UNCRITICAL: u8 = 40;
}

/// Why bytes are no sequence of whole packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The bytes end inside a packet.
    #[error("cut off inside a packet")]
    CutOff,
    /// A byte that starts no packet.
    #[error("not an OpenPGP packet")]
    NotAPacket,
    /// A packet without a length in front, as only messages have.
    #[error("a packet of unknown length")]
    UnknownLength,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawPacket<'a> {
    pub(crate) tag: u8,
    pub(crate) body: &'a [u8],
}

/// The packets of `bytes`, in order; ends after the first error.
pub(crate) fn packets(bytes: &[u8]) -> Packets<'_> {
    Packets { rest: bytes }
}

pub(crate) struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<RawPacket<'a>, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let read = next_packet(&mut self.rest);
        if read.is_err() {
            self.rest = &[];
        }
        Some(read)
    }
}

fn next_packet<'a>(rest: &mut &'a [u8]) -> Result<RawPacket<'a>, PacketError> {
    let [first] = take(rest)?;
    if first & 0x80 == 0 {
        return Err(PacketError::NotAPacket);
    }
    let (tag, len) = if first & 0x40 == 0 {
        (first >> 2 & 0x0f, old_length(first & 3, rest)?)
    } else {
        (first & 0x3f, new_length(rest)?)
    };
    if tag == 0 {
        return Err(PacketError::NotAPacket);
    }
    let len = usize::try_from(len).map_err(|_| PacketError::CutOff)?;
    let (body, after) = rest.split_at_checked(len).ok_or(PacketError::CutOff)?;
    *rest = after;
    Ok(RawPacket { tag, body })
}

fn old_length(kind: u8, rest: &mut &[u8]) -> Result<u32, PacketError> {
    match kind {
        0 => Ok(u8::from_be_bytes(take(rest)?).into()),
        1 => Ok(u16::from_be_bytes(take(rest)?).into()),
        2 => Ok(u32::from_be_bytes(take(rest)?)),
        _ => Err(PacketError::UnknownLength),
    }
}

fn new_length(rest: &mut &[u8]) -> Result<u32, PacketError> {
    match take(rest)? {
        [short @ 0..192] => Ok(short.into()),
        [high @ 192..224] => {
            let [low] = take(rest)?;
            Ok(u32::from(high - 192) << 8 | u32::from(low)).map(|len| len + 192)
        }
        [224..=254] => Err(PacketError::UnknownLength),
        [255] => Ok(u32::from_be_bytes(take(rest)?)),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], PacketError> {
    let (head, tail) = rest.split_first_chunk().ok_or(PacketError::CutOff)?;
    *rest = tail;
    Ok(*head)
}

/// Appends a packet, with the old header form where that has room for the tag: GnuPG 1.4 writes
/// it, and every reader knows it.
///
/// # Panics
/// When `body` is longer than 4 GiB.
pub(crate) fn write(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    let len = u32::try_from(body.len()).expect("keys and signatures are small");
    if tag >= 16 {
        out.extend([0xc0 | tag, 255]);
        out.extend(len.to_be_bytes());
    } else if let Ok(len) = u8::try_from(len) {
        out.extend([0x80 | tag << 2, len]);
    } else if let Ok(len) = u16::try_from(len) {
        out.push(0x81 | tag << 2);
        out.extend(len.to_be_bytes());
    } else {
        out.push(0x82 | tag << 2);
        out.extend(len.to_be_bytes());
    }
    out.extend(body);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_fixed_length_form() {
        let long = vec![7; 300];
        let forms: [&[u8]; 6] = [
            &[0x88, 1, 9],
            &[0x89, 0, 1, 9],
            &[0x8a, 0, 0, 0, 1, 9],
            &[0xc2, 1, 9],
            &[0xc2, 255, 0, 0, 0, 1, 9],
            &[&[0xc2, 192, 108][..], &long].concat(),
        ];
        for form in forms {
            let read: Vec<_> = packets(form).collect::<Result<_, _>>().unwrap();
            assert_eq!(read.len(), 1, "{form:?}");
            assert_eq!(read[0].tag, tag::SIGNATURE);
            assert!(read[0].body == [9] || read[0].body == long);
        }
    }

    #[test]
    fn what_is_no_whole_packet_ends_the_sequence_with_an_error() {
        for (bytes, want) in [
            (&[0x88][..], PacketError::CutOff),
            (&[0x88, 2, 9], PacketError::CutOff),
            (&[0xc2, 255, 255, 255, 255, 255, 9], PacketError::CutOff),
            (&[0x8b, 9], PacketError::UnknownLength),
            (&[0xc2, 225, 9, 9], PacketError::UnknownLength),
            (&[0x00, 1], PacketError::NotAPacket),
            (&[0x80, 0], PacketError::NotAPacket),
            (b"KBXf", PacketError::NotAPacket),
        ] {
            let all: Vec<_> = packets(bytes).collect();
            assert_eq!(all, [Err(want)], "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(
            bodies in proptest::collection::vec(
                (1u8..64, proptest::collection::vec(any::<u8>(), 0..300)), 0..5)
        ) {
            let mut out = Vec::new();
            for (tag, body) in &bodies {
                write(&mut out, *tag, body);
            }
            let read: Vec<_> = packets(&out).map(|p| p.unwrap()).map(|p| (p.tag, p.body.to_vec())).collect();
            prop_assert_eq!(read, bodies);
        }

        #[test]
        fn no_bytes_panic_and_bodies_stay_inside(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let total: usize = packets(&bytes).filter_map(Result::ok).map(|p| p.body.len() + 2).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}

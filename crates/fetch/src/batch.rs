//! Received bytes on their way to the disk, uncopied where that pays.

use bytes::Bytes;

/// Shorter pieces are copied together: each shared one costs some memory of its own, and a server
/// may send bytes one by one.
const SHORT: usize = 4 << 10;

/// Pieces in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    parts: Vec<Part>,
    len: usize,
}

#[derive(Debug)]
enum Part {
    Shared(Bytes),
    Copied(Vec<u8>),
}

impl Batch {
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if piece.len() >= SHORT {
            self.parts.push(Part::Shared(piece));
            return;
        }
        match self.parts.last_mut() {
            Some(Part::Copied(bytes)) => bytes.extend_from_slice(&piece),
            _ if piece.is_empty() => {}
            _ => self.parts.push(Part::Copied(piece.to_vec())),
        }
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, to be passed on.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        self.parts.into_iter().map(|part| match part {
            Part::Shared(bytes) => bytes,
            Part::Copied(bytes) => bytes.into(),
        })
    }

    /// The bytes, piece by piece, none empty.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| match part {
            Part::Shared(bytes) => &bytes[..],
            Part::Copied(bytes) => &bytes[..],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            lens in proptest::collection::vec(prop_oneof![0usize..10, 4000usize..5000], 0..50)
        ) {
            let all: Vec<u8> = (0..lens.iter().sum()).map(|n: usize| n.to_le_bytes()[0]).collect();
            let (mut batch, mut rest) = (Batch::default(), Bytes::from(all.clone()));
            for len in &lens {
                batch.push(rest.split_to(*len));
            }
            prop_assert_eq!(batch.pieces().collect::<Vec<_>>().concat(), all.clone());
            prop_assert!(batch.pieces().all(|piece| !piece.is_empty()));
            prop_assert_eq!((batch.len(), batch.is_empty()), (all.len(), all.is_empty()));
            prop_assert!(batch.parts.len() <= 2 * all.len() / SHORT + 1, "memory is bounded");
            prop_assert_eq!(batch.into_pieces().collect::<Vec<_>>().concat(), all);
        }
    }
}

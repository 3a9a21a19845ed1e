//! Proves a patch by applying it, before anybody gets it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use system_image_delta::patch::{CodecError, Header, Limits, Output, Patch, ReadAt, Remaker};

use crate::patch::body::Packed;
use crate::patch::make::{BASE_BLOCK, MakeError, remade_views};
use crate::patch::plan::{self, Plan};
use crate::patch::view::View;

/// A packed part whose packing is proved already: the digest of what it holds, and where it is in
/// the target.
pub(super) type Known = ([u8; 32], Range<u64>);

/// The packed parts, in order; nothing for those whose packing is not proved.
pub(super) fn remade(plan: &Plan) -> Vec<Option<Known>> {
    let known = |view: &View| Some((view.proved?, view.range.clone()));
    remade_views(plan).map(known).collect()
}

/// What applying a patch took.
pub(super) struct Proof {
    /// Bytes that were unpacked.
    pub(super) work: u64,
    /// Which blocks of the base were used, in order.
    pub(super) used: Vec<bool>,
}

/// Applies the patch, whose header need not tell digests yet. Members whose packing is proved are not
/// packed once more: what they hold is compared.
pub(super) fn prove(
    header: &Header,
    packed: &Packed,
    base: &dyn ReadAt,
    target: &File,
    remade: &[Option<Known>],
) -> Result<Proof, MakeError> {
    let front = header.to_bytes();
    let input = io::Read::chain(&front[..], &packed.bytes[..]);
    let patch = Patch::open(input).map_err(|error| MakeError::Write(io::Error::other(error)))?;
    let limits = Limits {
        memory: u64::MAX,
        work: u64::MAX,
    };
    let watched = Watched {
        base,
        used: header.base_digests.iter().map(|_| false.into()).collect(),
    };
    let mut remade = remade.iter();
    let mut known = |codec, len, memory| {
        let Some((digest, range)) = remade.next().ok_or(CodecError::Unknown)? else {
            return Remaker::new(codec, len, memory);
        };
        let packed = plan::read(target, range).map_err(CodecError::Read)?;
        Ok(Remaker::known(*digest, packed))
    };
    let mut compared = Compared {
        target,
        bytes: Vec::new(),
    };
    let applied = patch
        .apply_with(&watched, &mut compared, limits, &mut known)
        .map_err(MakeError::Proof)?;
    let used = watched.used.into_iter().map(AtomicBool::into_inner);
    Ok(Proof {
        work: applied.work,
        used: used.collect(),
    })
}

/// A base that notes which of its blocks are read.
struct Watched<'a> {
    base: &'a dyn ReadAt,
    used: Vec<AtomicBool>,
}

impl ReadAt for Watched<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        for block in offset >> BASE_BLOCK..end.div_ceil(1 << BASE_BLOCK) {
            if let Some(used) = usize::try_from(block).ok().and_then(|at| self.used.get(at)) {
                used.store(true, Ordering::Relaxed);
            }
        }
        self.base.read_exact_at(buffer, offset)
    }
}

/// Where a proof goes: the target, which is there already.
struct Compared<'a> {
    target: &'a File,
    /// As much of it as is written at once.
    bytes: Vec<u8>,
}

impl ReadAt for Compared<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        ReadAt::read_exact_at(self.target, buffer, offset)
    }
}

impl Output for Compared<'_> {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.bytes.resize(bytes.len(), 0);
        ReadAt::read_exact_at(self.target, &mut self.bytes, offset)?;
        if self.bytes != bytes {
            return Err(io::Error::other("it differs from the target"));
        }
        Ok(())
    }
}

/// What tells whether a file was written to: its length, and when that was last done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64, i64, i64);

impl Stamp {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self(meta.len(), meta.mtime(), meta.mtime_nsec()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_is_made_must_be_the_target() {
        let mut target = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..600_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        target.write_all(&bytes).unwrap();
        let mut compared = Compared {
            target: &target,
            bytes: Vec::new(),
        };
        compared.write_all_at(&bytes[1000..], 1000).unwrap();
        let mut other = bytes.clone();
        other[599_999] ^= 1;
        assert!(compared.write_all_at(&other, 0).is_err());
        assert!(compared.write_all_at(&bytes, 1).is_err(), "beyond its end");
    }

    #[test]
    fn a_file_that_was_written_to_is_told() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"image").unwrap();
        let before = Stamp::of(&file).unwrap();
        assert!(Stamp::of(&file).unwrap() == before);
        let later = SystemTime::now() + Duration::from_secs(1);
        file.set_modified(later).unwrap();
        assert!(Stamp::of(&file).unwrap() != before);
    }
}

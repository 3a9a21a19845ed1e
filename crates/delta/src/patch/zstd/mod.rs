//! Frames of Zstandard as `zstd` writes them with threads, which is its default: a sequence of jobs, each
//! packed on its own behind the end of the job before.
//!
//! The library's own threads keep the content of jobs as a whole. Here jobs are packed as their content
//! comes, and no more of it is kept than a match may look back on: that is a quarter of the memory. With
//! more of it, two jobs are packed at once; the bytes are the same.
//!
//! [`frame`](Encoder) → [`crew`] → [`job`] → [`library`], of which there are two versions.

mod c_1_5_4;
mod crew;
mod job;
mod library;
mod port_1_5_7;
mod split;
mod window;

use std::sync::Arc;

use xxhash_rust::xxh64::Xxh64;

use crate::patch::codec::CodecError;
use crew::Crew;
use job::Packer;
use library::{Library, Shape};

/// The library does not use threads for content of a known length that is not longer, in bytes.
pub(crate) const FOR_THREADS: u64 = 512 << 10;

/// How much content is handed to a thread at once, in bytes.
const PIECE: usize = split::FULL;

/// How much may be on its way to a thread and back, in bytes.
const UNDERWAY: usize = 4 * PIECE;

/// The block that ends a frame whose content ends with a job.
const EMPTY_LAST_BLOCK: [u8; 3] = [1, 0, 0];

/// How a frame was packed by libzstd 1.5.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zstd157 {
    /// Level, 1 to 19.
    pub level: u8,
    /// Whether a checksum follows the content.
    pub checksum: bool,
    /// The window of the frame, as a power of two: at least what unpacking it takes.
    pub window: u8,
    /// Whether the content's length stands in front: it does if a file was packed, and not if it
    /// came through a pipe.
    pub is_sized: bool,
}

/// What packing takes up to a level.
struct Needs {
    level: u8,
    /// By the first job that is packed: the library's tables, what a match may look back on, what the next
    /// job looks back on, and what is on its way.
    memory: u64,
    /// Content of a job.
    job: u64,
}

const NEEDS: [Needs; 4] = [
    Needs {
        level: 9,
        memory: 19 << 20,
        job: 16 << 20,
    },
    Needs {
        level: 12,
        memory: 56 << 20,
        job: 16 << 20,
    },
    Needs {
        level: 15,
        memory: 72 << 20,
        job: 16 << 20,
    },
    Needs {
        level: 19,
        memory: 104 << 20,
        job: 32 << 20,
    },
];

fn needs(level: u8) -> &'static Needs {
    let found = NEEDS.iter().find(|needs| level <= needs.level);
    found.expect("the last is the largest level")
}

/// What packing takes in memory at a level, one job at a time, in bytes. Tables are made for content of
/// the length that is known, which is packed without threads if it is short.
pub(crate) fn memory(level: u8, len: Option<u64>) -> u64 {
    let of_len = len.map(|len| len.saturating_mul(36).saturating_add(4 << 20));
    of_len.unwrap_or(u64::MAX).min(needs(level).memory)
}

/// What packing two jobs at once takes in memory, in bytes: one waits for the other with its content.
/// `None` if `len` plain bytes are a single job.
pub(crate) fn memory_of_two(level: u8, len: u64) -> Option<u64> {
    let needs = needs(level);
    (len > needs.job).then_some(2 * needs.memory + needs.job)
}

/// A frame that grows.
pub(crate) struct Encoder {
    crew: Crew,
    shape: Shape,
    /// Content that is not handed on yet.
    piece: Vec<u8>,
    /// The last pieces, for the next job to look back on.
    recent: Vec<Arc<[u8]>>,
    /// Jobs that were begun.
    jobs: u64,
    /// Content of the job that is underway, what is not handed on yet included; `None` between jobs.
    job: Option<usize>,
    /// Content that is yet to come, if the length of all is known.
    left: Option<u64>,
    /// Whether a job was told that it is the last where that was not known.
    has_end: bool,
    checksum: Option<Xxh64>,
}

impl Encoder {
    /// Begins with a frame of `len` plain bytes as libzstd 1.5.4 packs it.
    pub(crate) fn of_1_5_4(
        level: u8,
        checksum: bool,
        len: u64,
        memory: u64,
    ) -> Result<Self, CodecError> {
        let new = || c_1_5_4::new(level, checksum, len);
        Self::new(new, level, (checksum, Some(len), len), memory)
    }

    /// Begins with a frame of `len` plain bytes as libzstd 1.5.7 packs it.
    pub(crate) fn of_1_5_7(how: Zstd157, len: u64, memory: u64) -> Result<Self, CodecError> {
        let known = how.is_sized.then_some(len);
        let new = || port_1_5_7::new(how.level, how.checksum, known);
        Self::new(new, how.level, (how.checksum, known, len), memory)
    }

    fn new<L: Library>(
        new: impl Fn() -> Result<(L, Shape), CodecError>,
        level: u8,
        (checksum, known, len): (bool, Option<u64>, u64),
        memory: u64,
    ) -> Result<Self, CodecError> {
        if len == 0 || known.is_some() && len <= FOR_THREADS {
            return Err(CodecError::Pack("zstd packs so little without threads"));
        }
        let packer = || {
            let (library, shape) = new()?;
            let longest = usize::try_from(len).map_or(shape.job, |len| len.min(shape.job));
            Ok((Packer::new(library, shape, longest)?, shape))
        };
        let (first, shape) = packer()?;
        let mut packers = vec![first];
        let mut underway = UNDERWAY;
        if memory_of_two(level, len).is_some_and(|of_two| memory >= of_two) {
            packers.push(packer()?.0);
            underway += shape.job;
        }
        Ok(Self {
            crew: Crew::new(packers, underway)?,
            shape,
            piece: Vec::with_capacity(PIECE),
            recent: Vec::new(),
            jobs: 0,
            job: None,
            left: known,
            has_end: false,
            checksum: checksum.then(|| Xxh64::new(0)),
        })
    }

    /// Takes content and appends what is packed of it so far.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        while !bytes.is_empty() {
            if self.job.is_none() {
                self.begin();
            }
            let filled = self.job.unwrap_or(0);
            let room = (self.shape.job - filled).min(PIECE - self.piece.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.extend_from_slice(now);
            self.job = Some(filled + now.len());
            self.left = self.left.map(|left| left.saturating_sub(now.len() as u64));
            bytes = later;
            let is_all = self.left == Some(0);
            let is_full = filled + now.len() == self.shape.job;
            if self.piece.len() == PIECE || is_full || is_all {
                self.hand_on(out)?;
            }
            // Where the length is known, the last job is told that it is the last.
            if is_all || is_full {
                self.crew.end(self.jobs - 1, is_all);
                self.job = None;
            }
        }
        Ok(())
    }

    /// Begins a job.
    fn begin(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        let all: usize = recent.iter().map(|piece| piece.len()).sum();
        let before = all.min(self.shape.kept);
        let pledged = match self.left {
            None => u64::MAX,
            Some(left) if self.jobs == 0 => left,
            Some(left) => left.min(self.shape.job as u64),
        };
        self.crew.begin(self.jobs, (recent, before), pledged);
        self.jobs += 1;
    }

    /// Hands on what was gathered.
    fn hand_on(&mut self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let piece: Arc<[u8]> = self.piece.as_slice().into();
        self.piece.clear();
        let has_next = self.left.is_none_or(|left| left > 0);
        let rest = self.shape.job - self.job.unwrap_or(0);
        if has_next && rest < self.shape.kept {
            self.recent.push(Arc::clone(&piece));
        }
        self.crew.content(self.jobs - 1, piece, out)
    }

    /// Appends some of the rest; whether that was all of it.
    pub(crate) fn rest(&mut self, out: &mut Vec<u8>) -> Result<bool, CodecError> {
        if !self.piece.is_empty() {
            self.hand_on(out)?;
        }
        if self.job.take().is_some() {
            self.crew.end(self.jobs - 1, true);
            self.has_end = true;
        }
        if !self.crew.rest(out)? {
            return Ok(false);
        }
        let has_empty_end = !self.has_end && self.left.is_none();
        if has_empty_end {
            out.extend_from_slice(&EMPTY_LAST_BLOCK);
        }
        // That of a single job comes out with it.
        if let Some(checksum) = &self.checksum
            && (self.jobs > 1 || has_empty_end)
        {
            out.extend_from_slice(&checksum.digest().to_le_bytes()[..4]);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::patch::{Codec, Remaker};

    /// Noise, letters and slow changes in turn, so that blocks are cut.
    fn mixed(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let byte = |i: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            let random = state >> 33;
            match i / 48_000 % 3 {
                0 => random.to_le_bytes()[0],
                1 => b"etaoin shrdlu\n. "[(random % 16) as usize],
                _ => (i / 7).to_le_bytes()[0] ^ u8::from(random.is_multiple_of(64)),
            }
        };
        (0..len).map(byte).collect()
    }

    fn packed(how: Zstd157, plain: &[u8], at_once: usize) -> Vec<u8> {
        let mut remaker = Remaker::new(Codec::Zstd157(how), plain.len() as u64, u64::MAX).unwrap();
        let mut out = Vec::new();
        for bytes in plain.chunks(at_once) {
            remaker.push(bytes, &mut out).unwrap();
        }
        remaker.finish(&mut out).unwrap();
        out
    }

    /// What `libzstd.so.1.5.7` of Debian 13 made of the same bytes with `ZSTD_c_nbWorkers` 1, given
    /// 128 KiB at once: level, plain length, checksum, whether the length was pledged; packed length
    /// and the beginning of its SHA-256.
    const FRAMES: [(u8, usize, bool, bool, usize, &str); 15] = [
        (1, 5_242_880, true, false, 3_203_134, "a097ad42aa6c4140"),
        (1, 4_194_304, true, false, 2_535_606, "b1d6c064f9aac876"),
        (1, 2_097_152, true, false, 1_255_615, "61bd52193ab57d1d"),
        (1, 4_194_304, false, true, 2_535_603, "54dcc4b033cc3a4e"),
        (2, 5_242_880, false, false, 3_196_458, "540b47e34b7f4183"),
        (3, 5_242_880, true, true, 2_909_566, "577d4f0b05097ec8"),
        (5, 5_242_880, true, false, 2_902_916, "a796ceef59b65fef"),
        (6, 3_145_728, false, true, 1_733_844, "95eb999362f7857d"),
        (9, 5_242_880, true, false, 2_885_213, "d0b24e2478f64475"),
        (9, 700_000, true, true, 404_026, "df1aec3fb5376373"),
        (9, 100_000, true, false, 82_660, "321232a1387ac7b9"),
        (12, 1_048_576, true, false, 594_870, "1a6a21fe43ddfec5"),
        (13, 600_000, true, true, 346_616, "b1f7271bba0f200a"),
        (16, 600_000, true, false, 333_176, "e450bae2ca871f33"),
        (19, 600_000, true, true, 332_078, "c517ab574a3af03d"),
    ];

    #[test]
    fn frames_are_those_of_the_library() {
        let plain = mixed(5 << 20);
        for (level, len, checksum, is_sized, packed_len, digest) in FRAMES {
            let how = Zstd157 {
                level,
                checksum,
                window: 23,
                is_sized,
            };
            let made = packed(how, &plain[..len], 100_003);
            let hex: String = Sha256::digest(&made)[..8]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!((made.len(), &*hex), (packed_len, digest), "{how:?}, {len}");
        }
    }

    #[test]
    fn how_the_bytes_are_cut_makes_no_difference() {
        let plain = mixed(3 << 20);
        for is_sized in [false, true] {
            let how = Zstd157 {
                level: 1,
                checksum: true,
                window: 19,
                is_sized,
            };
            let whole = packed(how, &plain, plain.len());
            assert!(packed(how, &plain, 64 << 10) == whole);
            assert!(packed(how, &plain, 1_000_003) == whole);
        }
    }

    #[test]
    fn what_the_library_packs_without_threads_is_refused() {
        let begun = |is_sized, len| {
            let how = Zstd157 {
                level: 9,
                checksum: true,
                window: 22,
                is_sized,
            };
            Encoder::of_1_5_7(how, len, u64::MAX)
        };
        assert!(begun(true, FOR_THREADS).is_err());
        assert!(begun(true, FOR_THREADS + 1).is_ok());
        assert!(begun(false, 1).is_ok());
        assert!(begun(false, 0).is_err());
        assert!(Encoder::of_1_5_4(9, true, FOR_THREADS, u64::MAX).is_err());
        assert!(Encoder::of_1_5_4(9, true, FOR_THREADS + 1, u64::MAX).is_ok());
    }

    /// What the library makes with its own threads.
    fn by_the_library(level: u8, checksum: bool, plain: &[u8]) -> Vec<u8> {
        let mut context = zstd_safe::CCtx::create();
        for parameter in [
            zstd_safe::CParameter::CompressionLevel(level.into()),
            zstd_safe::CParameter::NbWorkers(2),
            zstd_safe::CParameter::ChecksumFlag(checksum),
        ] {
            context.set_parameter(parameter).unwrap();
        }
        let mut out = vec![0; zstd_safe::compress_bound(plain.len())];
        let len = context.compress2(&mut out[..], plain).unwrap();
        out.truncate(len);
        out
    }

    #[test]
    fn frames_are_those_of_the_threads_of_1_5_4() {
        let plain = mixed(17 << 20);
        // Jobs have four windows: 2 MiB at level 1, 8 at 3, 16 at 9.
        for (level, len, checksum) in [
            (1, FOR_THREADS + 1, false),
            (1, 2 << 20, true),
            (1, 9 << 20, true),
            (2, (8 << 20) + 1, false),
            (3, 9 << 20, true),
            (5, 9 << 20, false),
            (7, (8 << 20) + (128 << 10), true),
            (9, 17 << 20, true),
            (12, 1 << 20, true),
            (14, 1 << 20, false),
            (17, 1 << 20, true),
            (19, 700_001, true),
        ] {
            let plain = &plain[..usize::try_from(len).unwrap()];
            let wanted = by_the_library(level, checksum, plain);
            for memory in [memory(level, None), u64::MAX] {
                let mut encoder = Encoder::of_1_5_4(level, checksum, len, memory).unwrap();
                let mut out = Vec::new();
                for bytes in plain.chunks(100_003) {
                    encoder.push(bytes, &mut out).unwrap();
                }
                while !encoder.rest(&mut out).unwrap() {}
                assert!(out == wanted, "level {level}, {len}, {memory}");
            }
        }
    }

    #[test]
    fn a_frame_that_ends_early_or_late_is_refused() {
        for of in [Some(100), None] {
            let mut encoder = Encoder::of_1_5_4(1, true, 3 << 20, u64::MAX).unwrap();
            let plain = mixed(4 << 20);
            let mut out = Vec::new();
            let pushed = encoder.push(&plain[..of.unwrap_or(plain.len())], &mut out);
            let finished = pushed.and_then(|()| encoder.rest(&mut out));
            assert!(matches!(finished, Err(CodecError::Pack(_))), "{finished:?}");
        }
    }

    #[test]
    fn an_encoder_that_is_given_up_leaves_no_thread() {
        let mut encoder = Encoder::of_1_5_4(1, true, 30 << 20, u64::MAX).unwrap();
        let mut out = Vec::new();
        encoder.push(&mixed(5 << 20), &mut out).unwrap();
        // It would wait for ever otherwise.
        drop(encoder);
    }

    #[test]
    fn no_more_memory_is_taken_than_told() {
        let plain = mixed(300_000);
        for level in [2, 4, 8, 9, 12, 15, 16, 19] {
            for len in [600_000, 1_200_000, 5 << 20, 1 << 30] {
                let (context, shape) = c_1_5_4::new(level, true, len).unwrap();
                let taken = taken(context, shape, &plain, len);
                assert!(taken <= memory(level, Some(len)), "{level}, {len}: {taken}");
                let (context, shape) = port_1_5_7::new(level, true, Some(len)).unwrap();
                let taken = self::taken(context, shape, &plain, len);
                assert!(taken <= memory(level, Some(len)), "{level}, {len}: {taken}");
            }
            let (context, shape) = port_1_5_7::new(level, true, None).unwrap();
            assert!(taken(context, shape, &plain, 1 << 30) <= memory(level, None));
            assert!(shape.job as u64 <= needs(level).job, "level {level}");
        }
    }

    /// What a context takes that has packed some of `len` bytes, and all that is beside it.
    fn taken<L: Library>(library: L, shape: Shape, plain: &[u8], len: u64) -> u64 {
        let mut out = Vec::new();
        let mut packer = Packer::new(library, shape, plain.len()).unwrap();
        packer
            .begin(std::iter::empty(), true, len, &mut out)
            .unwrap();
        packer
            .push(&plain[..plain.len().min(300_000)], &mut out)
            .unwrap();
        let beside = (shape.window + shape.kept) as u64;
        packer.library().memory() as u64 + beside.min(len) + (UNDERWAY + 4 * PIECE) as u64
    }
}

//! Frames of Zstandard as `zstd` 1.5.7 writes them with threads, which is its default.
//!
//! Another version of the library than [`super::remake`] uses cannot be linked as C beside it, so
//! this is its port to Rust. That one cuts blocks with a table the wrong way round, so the cutting
//! ([`mod@split`]) and, since threads leave no room for it, the sequence of jobs are done here: a job
//! is four windows of content that is packed on its own, after the end of what came before.

mod split;

use std::ops::Range;
use std::ptr;

use libzstd_rs_sys::lib::compress::zstd_compress::{
    ZSTD_CCtx_params, ZSTD_CCtxParams_init, ZSTD_CCtxParams_setParameter,
    ZSTD_compressBegin_advanced_internal, ZSTD_compressContinue_public, ZSTD_compressEnd_public,
    ZSTD_createCCtxParams, ZSTD_freeCCtxParams, ZSTD_getCParams, ZSTD_invalidateRepCodes,
};
use libzstd_rs_sys::lib::zstd::ZSTD_dct_rawContent;
use libzstd_rs_sys::{
    ZSTD_CCtx, ZSTD_cParameter, ZSTD_compressBound, ZSTD_createCCtx, ZSTD_freeCCtx, ZSTD_isError,
};
use xxhash_rust::xxh64::Xxh64;

use crate::patch::codec::CodecError;

/// What is packed in one go by the library's threads, in bytes: no block reaches over its end.
const CHUNK: usize = 4 * split::FULL;

/// The library does not use threads for content of a known length that is not longer, in bytes.
const FOR_THREADS: u64 = 512 << 10;

/// The block that ends a frame whose content ends with a job.
const EMPTY_LAST_BLOCK: [u8; 3] = [1, 0, 0];

/// How a frame was packed.
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

/// What the encoder takes up to a level in bytes, without the content of a job.
const MEMORY: [(u8, u64); 3] = [(9, 24 << 20), (12, 52 << 20), (19, 128 << 20)];

/// Longest content of a job and what stands before it, in bytes, by the level up to which it holds.
const JOB: [(u8, u64); 2] = [(15, (16 << 20) + (2 << 20)), (19, (32 << 20) + (8 << 20))];

fn of_level(table: &[(u8, u64)], level: u8) -> u64 {
    let found = table.iter().find(|(most, _)| level <= *most);
    found.expect("the last is the largest level").1
}

/// Never seen: jobs fit into memory.
const TOO_LONG: CodecError = CodecError::Pack("a job is too long");

impl Zstd157 {
    /// What packing `len` plain bytes takes in memory, in bytes.
    pub(crate) fn memory(self, len: u64) -> u64 {
        of_level(&MEMORY, self.level) + of_level(&JOB, self.level).min(len)
    }
}

/// A frame that grows.
pub(crate) struct Encoder {
    context: *mut ZSTD_CCtx,
    params: *mut ZSTD_CCtx_params,
    split_level: u8,
    /// The end of the job before, then the content of this one so far.
    bytes: Vec<u8>,
    /// How much of that is the job's before.
    before: usize,
    /// How much of a job is kept for the next.
    kept: usize,
    /// How much content a job has.
    job: usize,
    jobs: u64,
    /// All content, if its length is known.
    len: Option<u64>,
    /// Content that is yet to come, if that is known.
    left: Option<u64>,
    checksum: Option<Xxh64>,
}

// SAFETY: what the pointers lead to is the encoder's own, and the library does not tie it to a thread.
#[expect(unsafe_code, reason = "wraps a library with the interface of C")]
unsafe impl Send for Encoder {}

#[expect(unsafe_code, reason = "wraps a library with the interface of C")]
impl Encoder {
    /// Begins with a frame of `len` plain bytes.
    pub(crate) fn new(how: Zstd157, len: u64) -> Result<Self, CodecError> {
        if len == 0 || how.is_sized && len <= FOR_THREADS {
            return Err(CodecError::Pack("zstd packs so little without threads"));
        }
        let level = i32::from(how.level);
        let hint = if how.is_sized { len } else { 0 };
        // SAFETY: plain numbers in, plain numbers out.
        let shape = unsafe { ZSTD_getCParams(level, hint, 0) };
        let strategy = shape.strategy as u32;
        // The library's `ZSTDMT_overlapLog_default`.
        let overlap = match strategy {
            9 => 0,
            7 | 8 => 1,
            5 | 6 => 2,
            _ => 3,
        };
        let is_set = |set: bool| if set { 1 } else { 2 };
        let parameters = [
            (ZSTD_cParameter::ZSTD_c_windowLog, shape.windowLog),
            (ZSTD_cParameter::ZSTD_c_hashLog, shape.hashLog),
            (ZSTD_cParameter::ZSTD_c_chainLog, shape.chainLog),
            (ZSTD_cParameter::ZSTD_c_searchLog, shape.searchLog),
            (ZSTD_cParameter::ZSTD_c_minMatch, shape.minMatch),
            (ZSTD_cParameter::ZSTD_c_targetLength, shape.targetLength),
            (ZSTD_cParameter::ZSTD_c_strategy, strategy),
            (
                ZSTD_cParameter::ZSTD_c_contentSizeFlag,
                u32::from(how.is_sized),
            ),
            (
                ZSTD_cParameter::ZSTD_c_checksumFlag,
                u32::from(how.checksum),
            ),
            // What the library would find out by itself in its usual interface.
            (
                ZSTD_cParameter::ZSTD_c_useRowMatchFinder,
                is_set((3..=5).contains(&strategy)),
            ),
            (
                ZSTD_cParameter::ZSTD_c_splitAfterSequences,
                is_set(strategy >= 7),
            ),
            (
                ZSTD_cParameter::ZSTD_c_searchForExternalRepcodes,
                is_set(how.level >= 10),
            ),
            (
                ZSTD_cParameter::ZSTD_c_enableLongDistanceMatching,
                is_set(false),
            ),
            (
                ZSTD_cParameter::ZSTD_c_maxBlockSize,
                u32::try_from(split::FULL).expect("it is 128 KiB"),
            ),
            // Blocks are cut here.
            (ZSTD_cParameter::ZSTD_c_blockSplitterLevel, 1),
        ];
        // SAFETY: both are new, belong to the encoder from here on and are freed with it; that they
        // are there is checked before they are used.
        let mut encoder = unsafe {
            Self {
                context: ZSTD_createCCtx(),
                params: ZSTD_createCCtxParams(),
                split_level: split::level(strategy),
                bytes: Vec::new(),
                before: 0,
                kept: 1 << (shape.windowLog - overlap),
                job: (4 << shape.windowLog).max(1 << 20),
                jobs: 0,
                len: how.is_sized.then_some(len),
                left: how.is_sized.then_some(len),
                checksum: how.checksum.then(|| Xxh64::new(0)),
            }
        };
        let most = u64::try_from(encoder.kept + encoder.job).map_err(|_| TOO_LONG)?;
        let room = usize::try_from(most.min(len)).map_err(|_| TOO_LONG)?;
        encoder.bytes.reserve_exact(room);
        if encoder.context.is_null() || encoder.params.is_null() {
            return Err(CodecError::Pack("no memory"));
        }
        // SAFETY: the parameters are there.
        checked(unsafe { ZSTD_CCtxParams_init(encoder.params, level) })?;
        for (parameter, value) in parameters {
            encoder.set(parameter, value)?;
        }
        Ok(encoder)
    }

    fn set(&mut self, parameter: ZSTD_cParameter, value: u32) -> Result<(), CodecError> {
        let value = i32::try_from(value).map_err(|_| CodecError::Pack("a parameter of zstd"))?;
        // SAFETY: the parameters are there for as long as the encoder.
        let code = unsafe { ZSTD_CCtxParams_setParameter(self.params, parameter, value) };
        checked(code).map(drop)
    }

    /// Takes content and appends what is packed of it so far.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        while !bytes.is_empty() {
            let room = self.job - (self.bytes.len() - self.before);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.bytes.extend_from_slice(now);
            bytes = later;
            self.left = self.left.map(|left| left.saturating_sub(now.len() as u64));
            // Where the length is known, the last job is told that it is.
            if now.len() == room && self.left != Some(0) {
                self.pack(false, out)?;
            }
        }
        Ok(())
    }

    /// Appends the rest.
    pub(crate) fn finish(mut self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let is_single = self.jobs == 0;
        if self.bytes.len() > self.before {
            self.pack(true, out)?;
        } else {
            out.extend_from_slice(&EMPTY_LAST_BLOCK);
        }
        // That of a single job comes out with it.
        if let Some(checksum) = &self.checksum
            && !is_single
        {
            out.extend_from_slice(&checksum.digest().to_le_bytes()[..4]);
        }
        Ok(())
    }

    /// Packs a job.
    fn pack(&mut self, is_last: bool, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let is_first = self.jobs == 0;
        self.jobs += 1;
        let content = (self.bytes.len() - self.before) as u64;
        let pledged = match self.len {
            len if is_first => len.unwrap_or(u64::MAX),
            _ => content,
        };
        self.set(ZSTD_cParameter::ZSTD_c_forceMaxWindow, u32::from(!is_first))?;
        if !is_first {
            self.set(ZSTD_cParameter::ZSTD_c_checksumFlag, 0)?;
        }
        // SAFETY: context and parameters are there, and so are the bytes before the job until the
        // frame is complete or the next job begins.
        checked(unsafe {
            ZSTD_compressBegin_advanced_internal(
                self.context,
                self.bytes.as_ptr().cast(),
                self.before,
                ZSTD_dct_rawContent,
                0,
                ptr::null(),
                self.params,
                pledged,
            )
        })?;
        let begun = out.len();
        self.block(self.before..self.before, false, out)?;
        let mut header = (out.len() - begun) as u64;
        if !is_first {
            // Only a frame has one, and nothing of it is known to those who read the job.
            out.truncate(begun);
            header = 0;
            // SAFETY: the context is there.
            unsafe { ZSTD_invalidateRepCodes(self.context) };
        }
        let (mut consumed, mut produced) = (0, 0);
        let mut at = self.before;
        while at < self.bytes.len() {
            let end = self.bytes.len().min(at + CHUNK);
            while at < end {
                let next = &self.bytes[at..end];
                // Nothing is cut before packing has saved anything.
                let len = match next.get(..split::FULL) {
                    Some(full) if consumed >= produced + 3 => split::len(full, self.split_level),
                    Some(full) => full.len(),
                    None => next.len(),
                };
                let is_end = is_last && at + len == self.bytes.len();
                let before = out.len();
                self.block(at..at + len, is_end, out)?;
                consumed += len as u64;
                produced += (out.len() - before) as u64;
                at += len;
            }
            produced += std::mem::take(&mut header);
        }
        let kept = self.kept.min(self.bytes.len());
        self.bytes.drain(..self.bytes.len() - kept);
        self.before = kept;
        Ok(())
    }

    /// Packs a block of at most [`split::FULL`] bytes, or just the header of a frame.
    fn block(
        &mut self,
        range: Range<usize>,
        is_end: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        // A frame's header and its end are shorter than 64 bytes.
        let filled = out.len();
        out.resize(filled + ZSTD_compressBound(range.len()) + 64, 0);
        let room = &mut out[filled..];
        let bytes = &self.bytes[range];
        let pack = if is_end {
            ZSTD_compressEnd_public
        } else {
            ZSTD_compressContinue_public
        };
        // SAFETY: the context is there, and the lengths are those of the slices.
        let code = unsafe {
            pack(
                self.context,
                room.as_mut_ptr().cast(),
                room.len(),
                bytes.as_ptr().cast(),
                bytes.len(),
            )
        };
        out.truncate(filled + checked(code)?);
        Ok(())
    }
}

#[expect(unsafe_code, reason = "wraps a library with the interface of C")]
impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: they are the encoder's own, and each may be null.
        unsafe {
            ZSTD_freeCCtx(self.context);
            ZSTD_freeCCtxParams(self.params);
        }
    }
}

fn checked(code: usize) -> Result<usize, CodecError> {
    if ZSTD_isError(code) == 0 {
        Ok(code)
    } else {
        Err(CodecError::Pack("zstd takes no more"))
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
        let how = |is_sized| Zstd157 {
            level: 9,
            checksum: true,
            window: 22,
            is_sized,
        };
        assert!(Encoder::new(how(true), FOR_THREADS).is_err());
        assert!(Encoder::new(how(true), FOR_THREADS + 1).is_ok());
        assert!(Encoder::new(how(false), 1).is_ok());
        assert!(Encoder::new(how(false), 0).is_err());
    }
}

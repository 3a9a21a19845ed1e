//! What is asked of the library, whichever version of it: C, and its port to Rust.

use crate::patch::codec::CodecError;

/// How the library's threads divide a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// How far a match may be behind, in bytes.
    pub(super) window: usize,
    /// Content of a job in bytes.
    pub(super) job: usize,
    /// How much of that the next job looks back on, in bytes.
    pub(super) kept: usize,
    /// How blocks are cut, if that is not left to the library.
    pub(super) split: Option<u8>,
}

impl Shape {
    /// Of a window as a power of two and the number of the strategy by which matches are looked for.
    pub(super) fn of(window: u32, strategy: u32, split: Option<u8>) -> Self {
        // The library's `ZSTDMT_overlapLog_default`.
        let overlap = match strategy {
            9 => 0,
            7 | 8 => 1,
            5 | 6 => 2,
            _ => 3,
        };
        Self {
            window: 1 << window,
            job: (4 << window).max(1 << 20),
            kept: 1 << (window - overlap),
            split,
        }
    }
}

/// A context of the library, which packs one job after another.
#[expect(unsafe_code, reason = "what a library looks back on must stay")]
pub(super) trait Library: Send + 'static {
    /// Begins a job that comes behind `before`, and appends the frame's header to `out` if it is the
    /// first. `pledged` is how long the frame is for the first job, else the job.
    ///
    /// # Safety
    /// `before`, and all blocks of the job behind it, stay where they are, one after another, until the
    /// next job begins or the context is gone.
    unsafe fn begin(
        &mut self,
        before: &[u8],
        is_first: bool,
        pledged: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError>;

    /// Packs the next block of the job, of at most 128 KiB.
    ///
    /// # Safety
    /// As [`Self::begin`] says.
    unsafe fn block(
        &mut self,
        bytes: &[u8],
        is_end: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError>;

    /// What it takes in bytes.
    #[cfg(test)]
    fn memory(&self) -> usize;
}

/// The context of one version. In scope must be the library's names, and `FORCE_MAX_WINDOW`.
macro_rules! context {
    () => {
        /// A context of this version.
        pub(super) struct Context {
            context: *mut ZSTD_CCtx,
            params: *mut ZSTD_CCtx_params,
        }

        // SAFETY: what the pointers lead to is the context's own, and the library does not tie it to
        // a thread.
        #[expect(unsafe_code, reason = "wraps a library with the interface of C")]
        unsafe impl Send for Context {}

        #[expect(unsafe_code, reason = "wraps a library with the interface of C")]
        impl Context {
            /// What a level comes to for content of `len` bytes, 0 if that is not known.
            fn shape(level: u8, len: u64) -> ZSTD_compressionParameters {
                // SAFETY: plain numbers in, plain numbers out.
                unsafe { ZSTD_getCParams(level.into(), len, 0) }
            }

            fn new(
                level: u8,
                parameters: impl IntoIterator<Item = (ZSTD_cParameter, u32)>,
            ) -> Result<Self, CodecError> {
                // SAFETY: both are new, belong to the context from here on and are freed with it; that
                // they are there is checked before they are used.
                let mut context = unsafe {
                    Self {
                        context: ZSTD_createCCtx(),
                        params: ZSTD_createCCtxParams(),
                    }
                };
                if context.context.is_null() || context.params.is_null() {
                    return Err(CodecError::Pack("no memory"));
                }
                // SAFETY: the parameters are there.
                checked(unsafe { ZSTD_CCtxParams_init(context.params, level.into()) })?;
                for (parameter, value) in parameters {
                    context.set(parameter, value)?;
                }
                Ok(context)
            }

            fn set(&mut self, parameter: ZSTD_cParameter, value: u32) -> Result<(), CodecError> {
                let value = i32::try_from(value);
                let value = value.map_err(|_| CodecError::Pack("a parameter of zstd"))?;
                // SAFETY: the parameters are there for as long as the context.
                let code = unsafe { ZSTD_CCtxParams_setParameter(self.params, parameter, value) };
                checked(code).map(drop)
            }
        }

        #[expect(unsafe_code, reason = "wraps a library with the interface of C")]
        impl Library for Context {
            unsafe fn begin(
                &mut self,
                before: &[u8],
                is_first: bool,
                pledged: u64,
                out: &mut Vec<u8>,
            ) -> Result<(), CodecError> {
                self.set(FORCE_MAX_WINDOW, u32::from(!is_first))?;
                if !is_first {
                    self.set(ZSTD_cParameter::ZSTD_c_checksumFlag, 0)?;
                }
                // SAFETY: context and parameters are there, and the bytes stay, as the caller warrants.
                checked(unsafe {
                    ZSTD_compressBegin_advanced_internal(
                        self.context,
                        before.as_ptr().cast(),
                        before.len(),
                        RAW_CONTENT,
                        0,
                        ::std::ptr::null(),
                        self.params,
                        pledged,
                    )
                })?;
                let begun = out.len();
                // SAFETY: nothing stands behind `before` yet.
                unsafe { self.block(&before[before.len()..], false, out)? };
                if !is_first {
                    // Only a frame has a header, and nothing of it is known to those who read the job.
                    out.truncate(begun);
                    // SAFETY: the context is there.
                    unsafe { ZSTD_invalidateRepCodes(self.context) };
                }
                Ok(())
            }

            unsafe fn block(
                &mut self,
                bytes: &[u8],
                is_end: bool,
                out: &mut Vec<u8>,
            ) -> Result<(), CodecError> {
                // A block is no longer than its content but for its head; a frame's header and its end
                // are shorter than 64 bytes.
                let filled = out.len();
                out.resize(filled + bytes.len() + (bytes.len() >> 7) + 1024, 0);
                let room = &mut out[filled..];
                let pack = if is_end {
                    ZSTD_compressEnd
                } else {
                    ZSTD_compressContinue
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

            #[cfg(test)]
            fn memory(&self) -> usize {
                // SAFETY: the context is there.
                unsafe { ZSTD_sizeof_CCtx(self.context) }
            }
        }

        #[expect(unsafe_code, reason = "wraps a library with the interface of C")]
        impl Drop for Context {
            fn drop(&mut self) {
                // SAFETY: they are the context's own, and each may be null.
                unsafe {
                    ZSTD_freeCCtx(self.context);
                    ZSTD_freeCCtxParams(self.params);
                }
            }
        }
    };
}

/// What a context is told, from what a level comes to: what the library would find out by itself in its
/// usual interface.
macro_rules! parameters {
    ($shape:expr, $strategy:expr, $level:expr, $is_sized:expr, $checksum:expr) => {{
        let is_set = |set: bool| if set { 1 } else { 2 };
        [
            (ZSTD_cParameter::ZSTD_c_windowLog, $shape.windowLog),
            (ZSTD_cParameter::ZSTD_c_hashLog, $shape.hashLog),
            (ZSTD_cParameter::ZSTD_c_chainLog, $shape.chainLog),
            (ZSTD_cParameter::ZSTD_c_searchLog, $shape.searchLog),
            (ZSTD_cParameter::ZSTD_c_minMatch, $shape.minMatch),
            (ZSTD_cParameter::ZSTD_c_targetLength, $shape.targetLength),
            (ZSTD_cParameter::ZSTD_c_strategy, $strategy),
            (
                ZSTD_cParameter::ZSTD_c_contentSizeFlag,
                u32::from($is_sized),
            ),
            (ZSTD_cParameter::ZSTD_c_checksumFlag, u32::from($checksum)),
            (
                ZSTD_cParameter::ZSTD_c_enableLongDistanceMatching,
                is_set(false),
            ),
            (ROWS, is_set((3..=5).contains(&$strategy))),
            (SPLIT_BLOCKS, is_set($strategy >= 7)),
            (EXTERNAL_REPCODES, is_set($level >= 10)),
            (LONGEST_BLOCK, 128 << 10),
        ]
    }};
}

pub(super) use context;
pub(super) use parameters;

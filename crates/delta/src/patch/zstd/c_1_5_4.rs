//! libzstd 1.5.4, in C.

use std::ffi::{c_int, c_ulonglong, c_void};

#[cfg(test)]
use zstd_sys::ZSTD_sizeof_CCtx;
use zstd_sys::{
    ZSTD_CCtx, ZSTD_CCtx_params, ZSTD_CCtxParams_init, ZSTD_CCtxParams_setParameter, ZSTD_CDict,
    ZSTD_cParameter, ZSTD_compressContinue, ZSTD_compressEnd, ZSTD_compressionParameters,
    ZSTD_createCCtx, ZSTD_createCCtxParams, ZSTD_dictContentType_e, ZSTD_freeCCtx,
    ZSTD_freeCCtxParams, ZSTD_getCParams, ZSTD_isError,
};

use super::library::{Library, Shape, context, parameters};
use crate::patch::codec::CodecError;

// What the library's own threads use.
#[expect(unsafe_code, reason = "wraps a library with the interface of C")]
unsafe extern "C" {
    fn ZSTD_compressBegin_advanced_internal(
        context: *mut ZSTD_CCtx,
        dictionary: *const c_void,
        len: usize,
        content: ZSTD_dictContentType_e,
        load: c_int,
        digested: *const ZSTD_CDict,
        params: *const ZSTD_CCtx_params,
        pledged: c_ulonglong,
    ) -> usize;
    fn ZSTD_invalidateRepCodes(context: *mut ZSTD_CCtx);
}

const RAW_CONTENT: ZSTD_dictContentType_e = ZSTD_dictContentType_e::ZSTD_dct_rawContent;
const FORCE_MAX_WINDOW: ZSTD_cParameter = ZSTD_cParameter::ZSTD_c_experimentalParam3;
const SPLIT_BLOCKS: ZSTD_cParameter = ZSTD_cParameter::ZSTD_c_experimentalParam13;
const ROWS: ZSTD_cParameter = ZSTD_cParameter::ZSTD_c_experimentalParam14;
const LONGEST_BLOCK: ZSTD_cParameter = ZSTD_cParameter::ZSTD_c_experimentalParam18;
const EXTERNAL_REPCODES: ZSTD_cParameter = ZSTD_cParameter::ZSTD_c_experimentalParam19;

context!();

/// A context for a frame with the length of its content in front.
pub(super) fn new(level: u8, checksum: bool, len: u64) -> Result<(Context, Shape), CodecError> {
    let shape = Context::shape(level, len);
    let parameters = parameters!(shape, shape.strategy as u32, level, true, checksum);
    Ok((
        Context::new(level, parameters)?,
        Shape::of(shape.windowLog, shape.strategy as u32, None),
    ))
}

fn checked(code: usize) -> Result<usize, CodecError> {
    // SAFETY: a plain number.
    #[expect(unsafe_code, reason = "wraps a library with the interface of C")]
    let is_error = unsafe { ZSTD_isError(code) } != 0;
    if is_error {
        Err(CodecError::Pack("zstd takes no more"))
    } else {
        Ok(code)
    }
}

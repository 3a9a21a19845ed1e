//! libzstd 1.5.7, in Rust: another version cannot be linked as C beside the first. This one cuts blocks
//! with a table the wrong way round, so the cutting is not left to it (see [`super::split`]).

#[cfg(test)]
use libzstd_rs_sys::ZSTD_sizeof_CCtx;
use libzstd_rs_sys::lib::compress::zstd_compress::{
    ZSTD_CCtx_params, ZSTD_CCtxParams_init, ZSTD_CCtxParams_setParameter,
    ZSTD_compressBegin_advanced_internal, ZSTD_compressContinue_public as ZSTD_compressContinue,
    ZSTD_compressEnd_public as ZSTD_compressEnd, ZSTD_createCCtxParams, ZSTD_freeCCtxParams,
    ZSTD_getCParams, ZSTD_invalidateRepCodes,
};
use libzstd_rs_sys::lib::zstd::{ZSTD_compressionParameters, ZSTD_dct_rawContent as RAW_CONTENT};
use libzstd_rs_sys::{ZSTD_CCtx, ZSTD_cParameter, ZSTD_createCCtx, ZSTD_freeCCtx, ZSTD_isError};

use super::library::{Library, Shape, context, parameters};
use super::split;
use crate::patch::codec::CodecError;

const FORCE_MAX_WINDOW: ZSTD_cParameter = ZSTD_cParameter::ZSTD_c_forceMaxWindow;
const SPLIT_BLOCKS: ZSTD_cParameter = ZSTD_cParameter::ZSTD_c_splitAfterSequences;
const ROWS: ZSTD_cParameter = ZSTD_cParameter::ZSTD_c_useRowMatchFinder;
const LONGEST_BLOCK: ZSTD_cParameter = ZSTD_cParameter::ZSTD_c_maxBlockSize;
const EXTERNAL_REPCODES: ZSTD_cParameter = ZSTD_cParameter::ZSTD_c_searchForExternalRepcodes;

context!();

/// A context for a frame, with the length of its content in front if that is known.
pub(super) fn new(
    level: u8,
    checksum: bool,
    len: Option<u64>,
) -> Result<(Context, Shape), CodecError> {
    let shape = Context::shape(level, len.unwrap_or(0));
    let strategy = shape.strategy;
    let parameters = parameters!(shape, strategy, level, len.is_some(), checksum);
    // Blocks are not cut by it.
    let cutting = (ZSTD_cParameter::ZSTD_c_blockSplitterLevel, 1);
    let context = Context::new(level, parameters.into_iter().chain([cutting]))?;
    let split = Some(split::level(strategy));
    Ok((context, Shape::of(shape.windowLog, strategy, split)))
}

fn checked(code: usize) -> Result<usize, CodecError> {
    if ZSTD_isError(code) == 0 {
        Ok(code)
    } else {
        Err(CodecError::Pack("zstd takes no more"))
    }
}

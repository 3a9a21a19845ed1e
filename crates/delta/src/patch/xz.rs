//! Files of xz, with one filter (LZMA2): how `xz` was told to pack, and packing so again.

use liblzma::stream::{Action, Check, Filters, LzmaOptions, MtStreamBuilder, Status, Stream};

use crate::patch::codec::CodecError;
use crate::patch::unpack::Progress;

/// What `xz` was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xz {
    /// Preset, 0 to 9.
    pub preset: u8,
    /// Whether `--extreme` was given.
    pub is_extreme: bool,
    /// Which check follows the content.
    pub check: XzCheck,
    /// The dictionary, as a power of two, 12 to 26.
    pub dictionary: u8,
    /// Whether it was packed for several threads, as xz 5.6 and later do: blocks of three times the
    /// dictionary and at least 1 MiB, each with its lengths in front.
    pub has_blocks: bool,
}

/// Checks that xz knows, by their numbers in its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum XzCheck {
    /// None at all.
    None = 0,
    /// CRC32, which is all that the kernel can check.
    Crc32 = 1,
    /// CRC64, the default.
    Crc64 = 4,
    /// SHA-256.
    Sha256 = 10,
}

/// Dictionaries, as powers of two: from the least that xz takes to that of its largest preset.
pub const XZ_DICTIONARIES: std::ops::RangeInclusive<u8> = 12..=26;

/// What stands for `--extreme` in a preset.
const EXTREME: u32 = 1 << 31;

/// What unpacking takes beside the dictionary, in bytes.
const UNPACKER: u64 = 256 << 10;

impl XzCheck {
    /// The check with this number.
    pub fn new(number: u64) -> Option<Self> {
        [Self::None, Self::Crc32, Self::Crc64, Self::Sha256]
            .into_iter()
            .find(|&check| check as u64 == number)
    }

    const fn of_library(self) -> Check {
        match self {
            Self::None => Check::None,
            Self::Crc32 => Check::Crc32,
            Self::Crc64 => Check::Crc64,
            Self::Sha256 => Check::Sha256,
        }
    }
}

impl Xz {
    /// What unpacking takes in memory, in bytes.
    pub(crate) const fn unpacker_memory(self) -> u64 {
        (1 << self.dictionary) + UNPACKER
    }

    /// What packing takes in memory, in bytes: the tables of the encoder, and for blocks one that is
    /// packed and two that wait to be written.
    pub(crate) const fn memory(self) -> u64 {
        let dictionary = 1 << self.dictionary;
        if self.has_blocks {
            21 * dictionary + (5 << 20)
        } else {
            12 * dictionary + (2 << 20)
        }
    }

    pub(crate) fn unpacker(self) -> Result<Stream, CodecError> {
        Stream::new_stream_decoder(self.unpacker_memory(), 0)
            .map_err(|_| CodecError::Unpack("no memory"))
    }

    pub(crate) fn encoder(self) -> Result<Stream, CodecError> {
        let extreme = if self.is_extreme { EXTREME } else { 0 };
        let made =
            LzmaOptions::new_preset(u32::from(self.preset) | extreme).and_then(|mut lzma| {
                lzma.dict_size(1 << self.dictionary);
                let mut filters = Filters::new();
                filters.lzma2(&lzma);
                let check = self.check.of_library();
                if self.has_blocks {
                    let mut builder = MtStreamBuilder::new();
                    builder.threads(1).filters(filters).check(check).encoder()
                } else {
                    Stream::new_stream_encoder(&filters, check)
                }
            });
        made.map_err(|_| CodecError::Pack("xz cannot be told so"))
    }
}

/// Takes from `input` and fills `output`, both as far as it goes; and whether the file is complete.
pub(crate) fn unpack(
    stream: &mut Stream,
    input: &[u8],
    output: &mut [u8],
) -> Result<(Progress, bool), CodecError> {
    let before = (stream.total_in(), stream.total_out());
    match stream.process(input, output, Action::Run) {
        // What the library calls lack of memory is that there was nothing to do.
        Ok(status) => Ok((since(stream, before), status == Status::StreamEnd)),
        Err(liblzma::stream::Error::MemLimit) => {
            Err(CodecError::Unpack("an xz file has a larger dictionary"))
        }
        Err(_) => Err(CodecError::Unpack("an xz file is damaged")),
    }
}

/// One call; how far it got, and whether the file is complete.
pub(crate) fn pack(
    stream: &mut Stream,
    bytes: &[u8],
    out: &mut Vec<u8>,
    is_end: bool,
) -> Result<(usize, bool), CodecError> {
    const AT_ONCE: usize = 64 << 10;
    let filled = out.len();
    out.resize(filled + AT_ONCE, 0);
    let before = (stream.total_in(), stream.total_out());
    let action = if is_end { Action::Finish } else { Action::Run };
    let done = stream.process(bytes, &mut out[filled..], action);
    let Progress { took, made } = since(stream, before);
    out.truncate(filled + made);
    match done {
        Ok(Status::StreamEnd) => Ok((took, true)),
        Ok(Status::Ok | Status::GetCheck) => Ok((took, false)),
        Ok(Status::MemNeeded) | Err(_) => Err(CodecError::Pack("xz takes no more")),
    }
}

fn since(stream: &Stream, before: (u64, u64)) -> Progress {
    let part = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(0);
    Progress {
        took: part(stream.total_in(), before.0),
        made: part(stream.total_out(), before.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_takes_no_more_memory_than_is_declared() {
        for dictionary in XZ_DICTIONARIES {
            for preset in [6, 9 | EXTREME] {
                let mut lzma = LzmaOptions::new_preset(preset).unwrap();
                lzma.dict_size(1 << dictionary);
                let mut filters = Filters::new();
                filters.lzma2(&lzma);
                let mut builder = MtStreamBuilder::new();
                let takes = builder.threads(1).filters(filters).memusage();
                let xz = Xz {
                    preset: 6,
                    is_extreme: false,
                    check: XzCheck::Crc32,
                    dictionary,
                    has_blocks: true,
                };
                assert!(takes <= xz.memory(), "{takes} for {dictionary}");
            }
        }
    }
}

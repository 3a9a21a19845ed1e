//! What stands in front of a patch: what it leads from and to, what it needs, and the digests by
//! which both sides are checked block by block.

use std::fmt;
use std::io::{self, Read};

use crate::patch::varint;

/// The first bytes of every patch. Text tools and transfers that mend line ends damage them.
pub const MAGIC: [u8; 8] = *b"\x89SIP\r\n\x1a\n";

/// The version of the format.
pub const VERSION: u64 = 1;

/// Longest header in bytes; there are some dozen numbers and names in it.
const LONGEST_HEADER: u64 = 64 << 10;

/// Length of a block's digest: the first bytes of its SHA-256.
pub const DIGEST: usize = 16;

/// Most blocks on either side: their digests are kept in memory.
const MOST_BLOCKS: u64 = 1 << 18;

/// A block's digest.
pub type BlockDigest = [u8; DIGEST];

/// The smallest and the largest block, as powers of two.
const BLOCK_LOGS: std::ops::RangeInclusive<u32> = 12..=26;

/// A sequence of bytes by its length and SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Length in bytes.
    pub len: u64,
    /// SHA-256 of all of it.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {self}", self.len)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sha256
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a patch says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the applier must be able to do, by name. One that lacks any of it must refuse.
    pub required: Vec<String>,
    /// What the builder made use of that an applier need not know of.
    pub optional: Vec<String>,
    /// What it leads from.
    pub base: Identity,
    /// What it leads to.
    pub target: Identity,
    /// Length of a block of the base, as a power of two.
    pub base_block: u32,
    /// Length of a block of the target, as a power of two.
    pub target_block: u32,
    /// Memory in bytes that applying it takes: windows, pages and encoders, the program itself
    /// not counted.
    pub memory: u64,
    /// Bytes that are unpacked on the way, packed and plain, those that are unpacked again included.
    pub work: u64,
    /// Dictionary of each packed stream in bytes, by the stream's number; 0 where there is none.
    pub dictionaries: Vec<u64>,
    /// The digest of each block of the base; `None` where nothing is read from it.
    pub base_digests: Vec<Option<BlockDigest>>,
    /// The digest of each block of the target.
    pub target_digests: Vec<BlockDigest>,
}

/// Why this is no patch that can be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It cannot be read, or ends too early.
    #[error("cannot read the patch's header")]
    Read(#[from] io::Error),
    /// It does not begin as patches do.
    #[error("this is not a patch")]
    Magic,
    /// It is from another time.
    #[error("the patch has version {0} of the format, and only {VERSION} is known")]
    Version(u64),
    /// A number is outside of what the format allows.
    #[error("the patch's header is damaged: {0}")]
    Damaged(&'static str),
}

impl Header {
    /// Whether an applier must have this feature.
    pub fn requires(&self, feature: &str) -> bool {
        self.required.iter().any(|name| name == feature)
    }

    /// How many blocks of `log` there are in `len` bytes.
    pub const fn blocks(len: u64, log: u32) -> u64 {
        len.div_ceil(1 << log)
    }

    /// The header as it stands in front of a patch.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        for names in [&self.required, &self.optional] {
            varint::put(&mut fields, names.len() as u64);
            for name in names {
                varint::put(&mut fields, name.len() as u64);
                fields.extend_from_slice(name.as_bytes());
            }
        }
        for side in [&self.base, &self.target] {
            varint::put(&mut fields, side.len);
            fields.extend_from_slice(&side.sha256);
        }
        varint::put(&mut fields, self.base_block.into());
        varint::put(&mut fields, self.target_block.into());
        varint::put(&mut fields, self.memory);
        varint::put(&mut fields, self.work);
        varint::put(&mut fields, self.dictionaries.len() as u64);
        for &dictionary in &self.dictionaries {
            varint::put(&mut fields, dictionary);
        }
        let mut out = MAGIC.to_vec();
        varint::put(&mut out, VERSION);
        varint::put(&mut out, fields.len() as u64);
        out.append(&mut fields);
        for blocks in self.base_digests.chunks(8) {
            let bits = blocks.iter().enumerate();
            out.push(bits.fold(0, |byte, (i, block)| byte | u8::from(block.is_some()) << i));
        }
        out.extend(self.base_digests.iter().flatten().flatten());
        out.extend(self.target_digests.iter().flatten());
        out
    }

    /// Reads a header; what follows in `input` is the patch's body. Nothing is allocated from a
    /// length that is not bounded first.
    pub fn read(input: &mut impl Read) -> Result<Self, HeaderError> {
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = varint::read(input)?;
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let len = varint::read(input)?;
        if len > LONGEST_HEADER {
            return Err(HeaderError::Damaged("it is too long"));
        }
        let mut fields = Vec::new();
        input.take(len).read_to_end(&mut fields)?;
        let mut header = Self::fields(&mut &fields[..])?;
        header.digests(input)?;
        Ok(header)
    }

    fn fields(fields: &mut &[u8]) -> Result<Self, HeaderError> {
        let required = names(fields)?;
        let optional = names(fields)?;
        let base = identity(fields)?;
        let target = identity(fields)?;
        let mut log = || {
            let log = varint::read(fields)?;
            let log = u32::try_from(log)
                .ok()
                .filter(|log| BLOCK_LOGS.contains(log));
            log.ok_or(HeaderError::Damaged("a block's length"))
        };
        let (base_block, target_block) = (log()?, log()?);
        let memory = varint::read(fields)?;
        let work = varint::read(fields)?;
        let count = varint::read(fields)?;
        if count > u64::from(u8::MAX) {
            return Err(HeaderError::Damaged("the number of streams"));
        }
        let mut dictionaries = Vec::new();
        for _ in 0..count {
            dictionaries.push(varint::read(fields)?);
        }
        // Later fields that may be left unread go here.
        Ok(Self {
            required,
            optional,
            base,
            target,
            base_block,
            target_block,
            memory,
            work,
            dictionaries,
            base_digests: Vec::new(),
            target_digests: Vec::new(),
        })
    }

    fn digests(&mut self, input: &mut impl Read) -> Result<(), HeaderError> {
        let base_blocks = Self::blocks(self.base.len, self.base_block);
        let target_blocks = Self::blocks(self.target.len, self.target_block);
        if base_blocks.max(target_blocks) > MOST_BLOCKS {
            return Err(HeaderError::Damaged("too many blocks"));
        }
        let count = |blocks: u64| usize::try_from(blocks).expect("there are few");
        // As much as the memory of the header counts, and not what a list that grows takes.
        self.base_digests.reserve_exact(count(base_blocks));
        self.target_digests.reserve_exact(count(target_blocks));
        let mut used = Vec::new();
        input.take(base_blocks.div_ceil(8)).read_to_end(&mut used)?;
        for i in 0..base_blocks {
            let byte = usize::try_from(i / 8).ok().and_then(|at| used.get(at));
            let is_used = byte.ok_or_else(ended)? >> (i % 8) & 1 == 1;
            self.base_digests.push(is_used.then_some([0; DIGEST]));
        }
        for digest in self.base_digests.iter_mut().flatten() {
            input.read_exact(digest)?;
        }
        for _ in 0..target_blocks {
            let mut digest = [0; DIGEST];
            input.read_exact(&mut digest)?;
            self.target_digests.push(digest);
        }
        Ok(())
    }
}

fn ended() -> HeaderError {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}

fn names(fields: &mut &[u8]) -> Result<Vec<String>, HeaderError> {
    let mut names = Vec::new();
    for _ in 0..varint::read(fields)? {
        let len = varint::read(fields)?;
        let len = usize::try_from(len).ok().filter(|&len| len <= fields.len());
        let (name, rest) = fields.split_at(len.ok_or_else(ended)?);
        *fields = rest;
        let name = std::str::from_utf8(name).ok().filter(|name| is_name(name));
        names.push(name.ok_or(HeaderError::Damaged("a feature's name"))?.into());
    }
    Ok(names)
}

/// Names are shown to people.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())
}

fn identity(fields: &mut &[u8]) -> Result<Identity, HeaderError> {
    let len = varint::read(fields)?;
    let mut sha256 = [0; 32];
    fields.read_exact(&mut sha256)?;
    Ok(Identity { len, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_take_no_more_than_is_counted() {
        let blocks = 5000;
        let side = Identity {
            len: blocks << 12,
            sha256: [0; 32],
        };
        let header = Header {
            required: Vec::new(),
            optional: Vec::new(),
            base: side,
            target: side,
            base_block: 12,
            target_block: 12,
            memory: 0,
            work: 0,
            dictionaries: Vec::new(),
            base_digests: vec![Some([1; DIGEST]); 5000],
            target_digests: vec![[2; DIGEST]; 5000],
        };
        let read = Header::read(&mut &header.to_bytes()[..]).unwrap();
        assert!(read == header);
        assert_eq!(read.base_digests.capacity(), 5000);
        assert_eq!(read.target_digests.capacity(), 5000);
    }
}

//! Reads an archive from front to back, member by member.
//!
//! In: any byte stream. Out: a [`Header`] per member and, between two headers, the member's
//! content. Memory is bounded by [`Limits`], never by what the archive claims.

use std::io::{self, Read, Seek};
use std::ops::Range;

use super::BLOCK;
use super::header::{Header, Kind, Mtime, Raw, checksum_fits, text};
use super::pax::{Extension, global_is_harmless};
use super::sparse::{Map, Run, TextMap};

/// What an archive may cost at most. Exceeding one of them is an error, never a cut.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the decompressed archive; also the sum of all files' sizes, holes included.
    pub bytes: u64,
    /// Number of members.
    pub members: u64,
    /// Bytes of one name or link target.
    pub name: usize,
    /// Bytes of one long-name or pax block.
    pub extension: usize,
}

impl Default for Limits {
    /// 32 GiB, four million members, the kernel's `PATH_MAX`, 1 MiB.
    fn default() -> Self {
        Self {
            bytes: 32 << 30,
            members: 4 << 20,
            name: 4096,
            extension: 1 << 20,
        }
    }
}

/// Why an archive cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream failed: the disk, or the decompressor below.
    #[error("cannot read the archive")]
    Io(#[from] io::Error),
    /// The stream ended before the archive's end mark.
    #[error("the archive ends too early, after {at} bytes")]
    Truncated {
        /// Bytes that were there.
        at: u64,
    },
    /// The block at `at` says something that has no meaning.
    #[error("malformed archive: {what}, in the block at byte {at}")]
    Malformed {
        /// Offset of the block.
        at: u64,
        /// The part that is wrong.
        what: &'static str,
    },
    /// A kind of member or header that image builders do not write and this does not read.
    #[error("unsupported archive: {what}, in the block at byte {at}")]
    Unsupported {
        /// Offset of the block.
        at: u64,
        /// What it is.
        what: &'static str,
    },
    /// One of the [`Limits`] is exceeded.
    #[error("the archive has more than {limit} {what}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

/// Reads an archive from `R`.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    skip: fn(&mut R, u64) -> io::Result<()>,
    limits: Limits,
    /// Bytes consumed from the input.
    at: u64,
    /// Where the blocks of the current member begin, long names and pax blocks included.
    start: u64,
    members: u64,
    /// Sum of the files' sizes so far.
    content: u64,
    current: Content,
    ended: bool,
}

/// The current member's content and how much of it has been read.
#[derive(Debug, Default)]
struct Content {
    size: u64,
    runs: Vec<Run>,
    /// Index of the run that is being read, and bytes read of it.
    run: usize,
    done: u64,
    /// Position of a reader that sees the holes as zeros.
    position: u64,
    /// Bytes of data and padding that are still in the stream.
    pending: u64,
}

impl<R: Read> Reader<R> {
    /// Reads from a stream. Headers are read block by block: buffer a plain file.
    pub fn new(input: R, limits: Limits) -> Self {
        Self::with_skip(input, limits, |input, len| {
            let skipped = io::copy(&mut input.take(len), &mut io::sink())?;
            if skipped == len {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        })
    }

    fn with_skip(input: R, limits: Limits, skip: fn(&mut R, u64) -> io::Result<()>) -> Self {
        let (at, start, members, content) = (0, 0, 0, 0);
        let current = Content::default();
        Self {
            input,
            skip,
            limits,
            at,
            start,
            members,
            content,
            current,
            ended: false,
        }
    }

    /// The next member, or `None` after the last. Content not read until now is skipped.
    ///
    /// After `None` the stream has been read to its end, so that a decompressor or a hash below
    /// has seen all of it.
    pub fn next_header(&mut self) -> Result<Option<Header>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_content()?;
        self.start = self.at;
        let mut before = Before::default();
        loop {
            let Some(block) = self.block()? else {
                // Anything in front of a member that never comes is a cut archive.
                if before.any {
                    return Err(ReadError::Truncated { at: self.at });
                }
                self.drain()?;
                self.ended = true;
                return Ok(None);
            };
            if !checksum_fits(&block) {
                return Err(self.malformed("header checksum"));
            }
            let raw = Raw::parse(&block).map_err(|what| self.malformed(what))?;
            match raw.flag {
                b'L' => before.path = Some(self.name_block(&raw)?),
                b'K' => before.link = Some(self.name_block(&raw)?),
                b'x' => {
                    let records = self.extension(&raw)?;
                    before
                        .pax
                        .add(&records)
                        .map_err(|what| self.malformed(what))?;
                }
                b'g' => {
                    let records = self.extension(&raw)?;
                    let harmless = global_is_harmless(&records);
                    if !harmless.map_err(|what| self.malformed(what))? {
                        return Err(self.unsupported("settings for all later members"));
                    }
                }
                _ => return self.member(&block, raw, before).map(Some),
            }
            before.any = true;
            // Each block is bounded; so is what a crowd of them in front of one member adds up to.
            before.bytes += u64::try_from(raw.size).unwrap_or(0);
            if before.bytes > self.limits.extension as u64 {
                return Err(self.extension_limit());
            }
        }
    }

    /// Byte range of the current member in the archive: its headers and its data with padding.
    pub fn span(&self) -> Range<u64> {
        self.start..self.at + self.current.pending
    }

    /// Offset in the archive of the current member's stored data.
    pub fn data_offset(&self) -> u64 {
        self.at
    }

    /// Bytes of the archive read so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Whether the current member has holes that the archive does not store.
    pub fn is_sparse(&self) -> bool {
        self.current.runs.iter().map(|run| run.len).sum::<u64>() != self.current.size
    }

    /// Reads stored bytes of the current member into `buffer`: their offset in the file and
    /// their number. `None` at the end; what lies between the pieces are holes.
    pub fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<Option<(u64, usize)>> {
        let Some(&run) = self.current.runs.get(self.current.run) else {
            return Ok(None);
        };
        let left = usize::try_from(run.len - self.current.done).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let got = loop {
            match self.input.read(&mut buffer[..wanted]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if got == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let offset = run.offset + self.current.done;
        let read = got as u64;
        self.at += read;
        self.current.pending -= read;
        self.current.done += read;
        if self.current.done == run.len {
            self.current.run += 1;
            self.current.done = 0;
        }
        Ok(Some((offset, got)))
    }

    /// What it means that reading the current member's content failed.
    pub fn content_error(&self, error: io::Error) -> ReadError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Truncated { at: self.at },
            _ => ReadError::Io(error),
        }
    }

    fn member(
        &mut self,
        block: &[u8; BLOCK],
        raw: Raw,
        before: Before,
    ) -> Result<Header, ReadError> {
        let Before {
            path: long_path,
            link: long_link,
            pax,
            ..
        } = before;
        let sparse_name = pax.sparse.name.clone();
        let path = sparse_name.or(pax.path).or(long_path).unwrap_or(raw.path);
        let target = pax.link.or(long_link).unwrap_or(raw.link);
        self.check_name(&path)?;
        self.check_name(&target)?;
        self.members += 1;
        if self.members > self.limits.members {
            return Err(ReadError::Limit {
                what: "members",
                limit: self.limits.members,
            });
        }

        let size = pax.size.unwrap_or(raw.size);
        let stored = u64::try_from(size).map_err(|_| self.malformed("size"))?;
        let is_file = matches!(raw.flag, 0 | b'0' | b'7' | b'S');
        // A name with a trailing slash was how the oldest archives said directory.
        let is_directory = raw.flag == b'5' || (is_file && path.ends_with(b"/"));
        let kind = match raw.flag {
            _ if is_directory => Kind::Directory,
            _ if is_file => {
                let size = self.file(block, raw.flag, stored, &pax.sparse)?;
                Kind::File { size }
            }
            b'1' => Kind::HardLink { target },
            b'2' => Kind::Symlink { target },
            b'3' => Kind::CharDevice(raw.device),
            b'4' => Kind::BlockDevice(raw.device),
            b'6' => Kind::Fifo,
            _ => return Err(self.unsupported("a member of unknown type")),
        };
        if let Kind::HardLink { target } | Kind::Symlink { target } = &kind
            && (target.is_empty() || target.contains(&0))
        {
            return Err(self.malformed("link target"));
        }
        // A hard link may repeat its file's size but never its data, as in GNU tar. On any other
        // member readers disagree about what a size means.
        if stored != 0 && !matches!(kind, Kind::File { .. } | Kind::HardLink { .. }) {
            return Err(self.malformed("data of a member that has none"));
        }
        Ok(Header {
            path,
            kind,
            mode: raw.mode,
            uid: self.owner(pax.uid.unwrap_or(raw.uid))?,
            gid: self.owner(pax.gid.unwrap_or(raw.gid))?,
            mtime: pax.mtime.unwrap_or(Mtime {
                seconds: raw.mtime,
                nanos: 0,
            }),
            xattrs: pax.xattrs,
            acl: pax.acl,
        })
    }

    /// Finds out where a file's `stored` bytes belong. Returns the file's real size.
    fn file(
        &mut self,
        block: &[u8; BLOCK],
        flag: u8,
        stored: u64,
        sparse: &super::pax::SparseKeys,
    ) -> Result<u64, ReadError> {
        let (size, runs) = if flag == b'S' {
            self.old_sparse(block, stored)?
        } else if sparse.major.is_some() {
            self.text_sparse(stored, sparse)?
        } else if sparse.has_map {
            let size = sparse
                .real_size
                .ok_or_else(|| self.malformed("sparse map"))?;
            let mut map = Map::default();
            let (pairs, rest) = sparse.numbers.as_chunks::<2>();
            let pushed = pairs
                .iter()
                .try_for_each(|&[offset, len]| map.push(offset, len));
            let runs = pushed.and_then(|()| map.finish(size, stored));
            let runs = runs.map_err(|what| self.malformed(what))?;
            if !rest.is_empty() {
                return Err(self.malformed("sparse map"));
            }
            (size, runs)
        } else {
            let mut map = Map::default();
            let runs = map
                .push(0, stored)
                .and_then(|()| map.finish(stored, stored));
            (stored, runs.map_err(|what| self.malformed(what))?)
        };
        let limit = self.limits.bytes;
        let too_large = || ReadError::Limit {
            what: "bytes of content",
            limit,
        };
        self.content = self.content.checked_add(size).ok_or_else(too_large)?;
        let data: u64 = runs.iter().map(|run| run.len).sum();
        let padding = data.wrapping_neg() % BLOCK as u64;
        let end = self
            .at
            .checked_add(data)
            .and_then(|at| at.checked_add(padding));
        if self.content > limit || end.is_none_or(|end| end > limit) {
            return Err(too_large());
        }
        let pending = data + padding;
        self.current = Content {
            size,
            runs,
            run: 0,
            done: 0,
            position: 0,
            pending,
        };
        Ok(size)
    }

    /// Type `S`: four runs in the header, 21 in each extension block after it.
    fn old_sparse(
        &mut self,
        block: &[u8; BLOCK],
        stored: u64,
    ) -> Result<(u64, Vec<Run>), ReadError> {
        let size = super::number::parse(&block[483..495]).and_then(|n| u64::try_from(n).ok());
        let size = size.ok_or_else(|| self.malformed("sparse map"))?;
        let mut map = Map::default();
        map.push_old_gnu(&block[386..482])
            .map_err(|what| self.malformed(what))?;
        let mut more = block[482] != 0;
        while more {
            let block = self.full_block()?;
            map.push_old_gnu(&block[..504])
                .map_err(|what| self.malformed(what))?;
            more = block[504] != 0;
        }
        let runs = map
            .finish(size, stored)
            .map_err(|what| self.malformed(what))?;
        Ok((size, runs))
    }

    /// Version 1.0: the map is text in front of the data and counts as stored.
    fn text_sparse(
        &mut self,
        stored: u64,
        sparse: &super::pax::SparseKeys,
    ) -> Result<(u64, Vec<Run>), ReadError> {
        if sparse.major != Some(1) {
            return Err(self.unsupported("a sparse file of an unknown version"));
        }
        let size = sparse
            .real_size
            .ok_or_else(|| self.malformed("sparse map"))?;
        let mut text = TextMap::default();
        let mut data = stored;
        loop {
            data = data
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| self.malformed("sparse map"))?;
            let block = self.full_block()?;
            if text.block(&block).map_err(|what| self.malformed(what))? {
                break;
            }
        }
        let runs = text
            .map
            .finish(size, data)
            .map_err(|what| self.malformed(what))?;
        Ok((size, runs))
    }

    fn owner(&self, id: i64) -> Result<u32, ReadError> {
        // The largest number means “leave as it is” to the kernel.
        match u32::try_from(id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(self.malformed("owner")),
        }
    }

    fn check_name(&self, name: &[u8]) -> Result<(), ReadError> {
        if name.len() > self.limits.name {
            let limit = self.limits.name as u64;
            return Err(ReadError::Limit {
                what: "bytes in a name",
                limit,
            });
        }
        Ok(())
    }

    /// The data of an `L` or `K` header: a name up to its NUL.
    fn name_block(&mut self, raw: &Raw) -> Result<Vec<u8>, ReadError> {
        let mut name = self.extension(raw)?;
        name.truncate(text(&name).len());
        Ok(name)
    }

    /// The data of a header that belongs to the next one.
    fn extension(&mut self, raw: &Raw) -> Result<Vec<u8>, ReadError> {
        let limit = self.limits.extension;
        let len = usize::try_from(raw.size).ok().filter(|&len| len <= limit);
        let len = len.ok_or_else(|| self.extension_limit())?;
        let mut data = Vec::with_capacity(len.next_multiple_of(BLOCK));
        while data.len() < len {
            data.extend_from_slice(&self.full_block()?);
        }
        data.truncate(len);
        Ok(data)
    }

    fn extension_limit(&self) -> ReadError {
        let limit = self.limits.extension as u64;
        ReadError::Limit {
            what: "bytes in an extended header",
            limit,
        }
    }

    /// The next block, or `None` if it is the archive's end mark.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, ReadError> {
        let block = self.full_block()?;
        Ok(block.iter().any(|&b| b != 0).then_some(block))
    }

    fn full_block(&mut self) -> Result<[u8; BLOCK], ReadError> {
        let limit = self.limits.bytes;
        if self.at + BLOCK as u64 > limit {
            return Err(ReadError::Limit {
                what: "bytes",
                limit,
            });
        }
        let mut block = [0; BLOCK];
        match self.input.read_exact(&mut block) {
            Ok(()) => self.at += BLOCK as u64,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ReadError::Truncated { at: self.at });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(block)
    }

    fn skip_content(&mut self) -> Result<(), ReadError> {
        let pending = std::mem::take(&mut self.current).pending;
        if pending > 0 {
            match (self.skip)(&mut self.input, pending) {
                Ok(()) => self.at += pending,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(ReadError::Truncated { at: self.at });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what follows the end mark: padding. Anything else would be seen by other readers
    /// and not by this one.
    fn drain(&mut self) -> Result<(), ReadError> {
        let mut buffer = [0; 8 * BLOCK];
        loop {
            let got = match self.input.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if got == 0 {
                return Ok(());
            }
            if buffer[..got].iter().any(|&b| b != 0) {
                return Err(self.malformed("data after the archive's end"));
            }
            self.at += got as u64;
            if self.at > self.limits.bytes {
                return Err(ReadError::Limit {
                    what: "bytes",
                    limit: self.limits.bytes,
                });
            }
        }
    }

    fn malformed(&self, what: &'static str) -> ReadError {
        ReadError::Malformed {
            at: self.at.saturating_sub(BLOCK as u64),
            what,
        }
    }

    fn unsupported(&self, what: &'static str) -> ReadError {
        ReadError::Unsupported {
            at: self.at.saturating_sub(BLOCK as u64),
            what,
        }
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Reads from a file, seeking over content that nobody reads.
    pub fn seeking(input: R, limits: Limits) -> Self {
        Self::with_skip(input, limits, |input, len| {
            let len = i64::try_from(len).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            input.seek_relative(len)
        })
    }
}

/// The current member's content with its holes as zeros.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let content = &self.current;
        let data = content
            .runs
            .get(content.run)
            .map(|run| run.offset + content.done);
        let hole = data.unwrap_or(content.size) - content.position;
        let got = if hole > 0 {
            let len = usize::try_from(hole)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            buffer[..len].fill(0);
            len
        } else {
            self.read_stored(buffer)?.map_or(0, |(_, len)| len)
        };
        self.current.position += got as u64;
        Ok(got)
    }
}

/// What came in front of a member's own header.
#[derive(Default)]
struct Before {
    any: bool,
    bytes: u64,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Extension,
}

//! Patches whose base is what a device has installed: in front of the patch is a list of the files and
//! the partitions that are its base, one after another (`docs/formats/patch.md`, section Trees).

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use liblzma::read::{XzDecoder, XzEncoder};
use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use system_image_tree::Root;

use crate::patch::apply::{Applied, ApplyError, Limits, Patch};
use crate::patch::base::{ReadAt, at_once};
use crate::patch::blocks::Output;
use crate::patch::header::{Header, HeaderError};
use crate::patch::varint;
use crate::path::MemberPath;
use crate::route::Route;

/// The first bytes of a patch whose base is what is installed.
pub const MAGIC: [u8; 8] = *b"\x89SIT\r\n\x1a\n";

/// The version of the list.
const VERSION: u64 = 2;

/// Longest list in bytes: that of some hundred thousand files.
const LONGEST_LIST: u64 = 16 << 20;

/// Dictionary of the packed list in bytes, and what unpacking it may take.
const DICTIONARY: u32 = 1 << 20;
const DECODER_MEMORY: u64 = 4 << 20;

/// Most files that are open at once.
const MOST_OPEN: usize = 8;

/// Memory for a file beside its path, in bytes.
const PER_FILE: u64 = 16;

/// Most memory for a list that was read, in bytes.
const MOST_MEMORY: u64 = 32 << 20;

/// What is installed of an archive's members, as far as it is a base: the contents follow one another.
/// Members below `system` are files of the tree, those below `partitions` the beginnings of partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    listed: Vec<Listed>,
    /// Their paths, one after another.
    paths: Vec<u8>,
    len: u64,
}

/// A file of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listed {
    /// Where its content begins in the base.
    start: u64,
    /// Where its path ends among the paths.
    path_end: u32,
}

impl Files {
    /// Appends a file with its length in bytes.
    ///
    /// # Panics
    /// If the paths have more than 4 GiB.
    pub fn push(&mut self, path: &MemberPath, len: u64) {
        self.paths.extend_from_slice(path.as_bytes());
        let path_end = u32::try_from(self.paths.len()).expect("lists are bounded");
        self.listed.push(Listed {
            start: self.len,
            path_end,
        });
        self.len = self.len.saturating_add(len);
    }

    /// Memory that a file of the list takes, in bytes.
    pub fn memory_of(path: &MemberPath) -> u64 {
        path.as_bytes().len() as u64 + PER_FILE
    }

    /// How many files there are.
    pub const fn count(&self) -> usize {
        self.listed.len()
    }

    /// Their paths in an archive, in order.
    pub fn paths(&self) -> impl Iterator<Item = MemberPath> {
        let path = |number| MemberPath::parse(self.path(number)).expect("it was one");
        (0..self.listed.len()).map(path)
    }

    /// The path of the file of this number.
    fn path(&self, number: usize) -> &[u8] {
        let end = |number: usize| self.listed[number].path_end as usize;
        let start = number.checked_sub(1).map_or(0, end);
        &self.paths[start..end(number)]
    }

    /// Where the content of the file of this number ends in the base.
    fn end(&self, number: usize) -> u64 {
        self.listed
            .get(number + 1)
            .map_or(self.len, |next| next.start)
    }

    /// The list as it stands in front of a patch.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut list = Vec::new();
        let mut before: &[u8] = b"";
        for (number, Listed { start, .. }) in self.listed.iter().enumerate() {
            let path = self.path(number);
            let shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
            varint::put(&mut list, self.end(number) - start);
            varint::put(&mut list, shared as u64);
            varint::put(&mut list, (path.len() - shared) as u64);
            list.extend_from_slice(&path[shared..]);
            before = path;
        }
        let mut options = LzmaOptions::new_preset(6)?;
        options.dict_size(DICTIONARY);
        let mut filters = Filters::new();
        filters.lzma2(&options);
        let stream = Stream::new_stream_encoder(&filters, Check::Crc32)?;
        let mut packed = Vec::new();
        XzEncoder::new_stream(&list[..], stream).read_to_end(&mut packed)?;
        let mut out = MAGIC.to_vec();
        for number in [VERSION, list.len() as u64, packed.len() as u64] {
            varint::put(&mut out, number);
        }
        out.append(&mut packed);
        Ok(out)
    }

    /// Reads a list behind its magic; returns the memory that it takes, too.
    fn read(input: &mut impl Read) -> Result<(Self, u64), HeaderError> {
        let version = varint::read(input)?;
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let (len, packed) = (varint::read(input)?, varint::read(input)?);
        if len.max(packed) > LONGEST_LIST {
            return Err(HeaderError::Damaged("its list of files is too long"));
        }
        let mut packed = input.take(packed);
        let stream = Stream::new_stream_decoder(DECODER_MEMORY, 0).map_err(io::Error::other)?;
        let mut list = Vec::new();
        let mut decoder = XzDecoder::new_stream(&mut packed, stream);
        (&mut decoder).take(len + 1).read_to_end(&mut list)?;
        drop(decoder);
        if list.len() as u64 != len || packed.limit() > 0 {
            return Err(HeaderError::Damaged("the length of its list of files"));
        }
        let mut left = &list[..];
        let mut files = Self::default();
        let mut before: Vec<u8> = Vec::new();
        let mut memory = 0;
        while !left.is_empty() {
            let len = varint::read(&mut left)?;
            let (shared, more) = (varint::read(&mut left)?, varint::read(&mut left)?);
            let damaged = HeaderError::Damaged("a path in its list of files");
            let (Some(shared), Some(more)) = (within(shared, &before), within(more, left)) else {
                return Err(damaged);
            };
            before.truncate(shared);
            before.extend_from_slice(&left[..more]);
            left = &left[more..];
            let path = MemberPath::parse(&before).ok();
            let is_known = |path: &MemberPath| path.as_bytes() == before && is_readable(path);
            let path = path.filter(is_known);
            if files.len.checked_add(len).is_none() {
                return Err(HeaderError::Damaged("the length of a file in its list"));
            }
            let path = path.ok_or(damaged)?;
            memory += Self::memory_of(&path);
            if memory > MOST_MEMORY {
                return Err(HeaderError::Damaged(
                    "its list of files takes too much memory",
                ));
            }
            files.push(&path, len);
        }
        files.listed.shrink_to_fit();
        files.paths.shrink_to_fit();
        Ok((files, memory))
    }
}

fn within(len: u64, bytes: &[u8]) -> Option<usize> {
    usize::try_from(len).ok().filter(|&len| len <= bytes.len())
}

/// What a device has installed, to be read.
pub trait Installed: Sync {
    /// Opens a file of the system, by its path below the root; `None` if there is no regular file.
    fn file(&self, path: &MemberPath) -> io::Result<Option<File>>;

    /// Opens a partition, by the name that its image has in archives; `None` if there is none.
    fn partition(&self, name: &str) -> io::Result<Option<File>>;
}

/// A tree alone.
impl Installed for Root {
    fn file(&self, path: &MemberPath) -> io::Result<Option<File>> {
        self.open_file(path.as_bytes())
    }

    fn partition(&self, _name: &str) -> io::Result<Option<File>> {
        Ok(None)
    }
}

/// Whether members of this path can be read where they are installed.
pub fn is_readable(path: &MemberPath) -> bool {
    let route = Route::of(path);
    matches!(&route, Route::System(below) if !below.is_root()) || route.partition().is_some()
}

/// A patch whose base is what is installed.
#[derive(Debug)]
pub struct TreePatch<R> {
    files: Files,
    memory: u64,
    patch: Patch<R>,
}

impl<R: Read> TreePatch<R> {
    /// Reads the list and the header.
    pub fn open(mut input: R) -> Result<Self, HeaderError> {
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(HeaderError::Magic);
        }
        let (files, memory) = Files::read(&mut input)?;
        let patch = Patch::open(input)?;
        if patch.header().base.len != files.len {
            return Err(HeaderError::Damaged(
                "its base has not the length of the files",
            ));
        }
        Ok(Self {
            files,
            memory,
            patch,
        })
    }

    /// The files that are its base.
    pub const fn files(&self) -> &Files {
        &self.files
    }

    /// What the patch says of itself.
    pub const fn header(&self) -> &Header {
        self.patch.header()
    }

    /// Memory in bytes that applying it takes, the program itself not counted.
    pub const fn memory(&self) -> u64 {
        self.memory.saturating_add(self.patch.header().memory)
    }

    /// Makes the target of what is installed, which is only read. As [`Patch::apply`].
    pub fn apply(
        self,
        installed: &dyn Installed,
        output: &mut dyn Output,
        limits: Limits,
    ) -> Result<Applied, ApplyError> {
        if self.memory() > limits.memory {
            return Err(ApplyError::Memory {
                needed: self.memory(),
                allowed: limits.memory,
            });
        }
        let memory = limits.memory - self.memory;
        let base = Tree {
            files: &self.files,
            installed,
            open: Mutex::new(VecDeque::new()),
        };
        self.patch.apply(&base, output, Limits { memory, ..limits })
    }
}

/// What is installed as one sequence of bytes.
struct Tree<'a> {
    files: &'a Files,
    installed: &'a dyn Installed,
    /// The files that were opened last, by their numbers: several threads read, each a file for a while.
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
}

/// What is installed of a member is not what it was when the patch was made.
#[derive(Debug)]
pub struct OtherFile(pub Route);

impl std::error::Error for OtherFile {}

impl fmt::Display for OtherFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0, self.0.partition()) {
            (Route::System(path), _) => write!(f, "`{path}`")?,
            (_, Some(name)) => write!(f, "the partition `{name}`")?,
            (other, _) => write!(f, "{other:?}")?,
        }
        f.write_str(" is not as it was installed")
    }
}

impl Tree<'_> {
    fn file(&self, number: usize) -> io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(known, _)| *known == number) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(self.opened(number)?);
        if open.len() == MOST_OPEN {
            open.pop_front();
        }
        open.push_back((number, Arc::clone(&file)));
        Ok(file)
    }

    fn opened(&self, number: usize) -> io::Result<File> {
        let path = MemberPath::parse(self.files.path(number)).map_err(io::Error::other)?;
        let len = self.files.end(number) - self.files.listed[number].start;
        let route = Route::of(&path);
        let (file, may_be_longer) = match (&route, route.partition()) {
            (Route::System(below), _) => (self.installed.file(below)?, false),
            (_, Some(name)) => (self.installed.partition(name)?, true),
            _ => (None, false),
        };
        if let Some(mut file) = file {
            let has = file.seek(SeekFrom::End(0))?;
            if has == len || has > len && may_be_longer {
                return Ok(file);
            }
        }
        Err(io::Error::other(OtherFile(route)))
    }
}

impl ReadAt for Tree<'_> {
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let files = &self.files.listed;
            // Of files without content at the same place, the last one is not empty.
            let number = files.partition_point(|file| file.start <= offset);
            let number = number.checked_sub(1).ok_or(io::ErrorKind::UnexpectedEof)?;
            let left = self.files.end(number).saturating_sub(offset);
            if left == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let file = self.file(number)?;
            let (now, later) = buffer.split_at_mut(at_once(left, buffer.len()));
            FileExt::read_exact_at(&*file, now, offset - files[number].start)?;
            offset += now.len() as u64;
            buffer = later;
        }
        Ok(())
    }
}

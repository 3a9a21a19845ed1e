//! What a canonical archive leaves on a device, without its content: names, and what each names.
//!
//! Several names may stand for one file, a later member replaces an earlier one of its name.
//! Memory grows with the number of members only: content stays in the archive and is found by
//! its offset.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use system_image_delta::{Header, Kind, Limits, MemberPath, Reader};

use crate::delta::DeltaError;

/// Which of the two archives; used in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The image that the device has.
    Base,
    /// The image that it shall get.
    Target,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Target => "target",
        })
    }
}

/// Something that names stand for: a directory, a file, a link, a device.
pub(crate) struct Inode {
    /// Its path is empty: the names are in [`Index::names`].
    pub(crate) header: Header,
    /// Where its content begins in the archive.
    pub(crate) data: u64,
}

/// An archive's members by name.
pub(crate) struct Index<'a> {
    pub(crate) archive: &'a File,
    pub(crate) inodes: Vec<Inode>,
    pub(crate) names: BTreeMap<MemberPath, usize>,
    /// The names of each inode that has more than one, sorted.
    linked: HashMap<usize, Vec<MemberPath>>,
    /// Every directory, those that only their children's paths tell of included.
    directories: HashSet<Box<[u8]>>,
}

impl<'a> Index<'a> {
    /// Reads the headers of `archive`, seeking over content.
    pub(crate) fn read(archive: &'a File, side: Side) -> Result<Self, DeltaError> {
        let mut index = Self {
            archive,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            linked: HashMap::new(),
            directories: HashSet::new(),
        };
        let input = BufReader::with_capacity(8 << 10, Section::new(archive, 0));
        let mut reader = Reader::seeking(
            input,
            Limits {
                bytes: u64::MAX,
                ..Limits::default()
            },
        );
        while let Some(header) = reader
            .next_header()
            .map_err(|source| DeltaError::Read { side, source })?
        {
            let path = MemberPath::parse(&header.path).map_err(|why| DeltaError::Path {
                side,
                path: header.path.clone(),
                why,
            })?;
            let foreign = if reader.is_sparse() && matches!(header.kind, Kind::File { .. }) {
                Some("it has holes")
            } else if header.mtime.nanos != 0 || header.acl {
                Some("it has a time or an ACL that only pax archives have")
            } else if path.as_bytes() == b"removed" {
                Some("the archive is a delta itself")
            } else {
                None
            };
            if let Some(why) = foreign {
                return Err(DeltaError::NotCanonical { side, path, why });
            }
            index.add(path, header, reader.data_offset(), side)?;
        }
        index.finish(side)?;
        Ok(index)
    }

    fn add(
        &mut self,
        path: MemberPath,
        mut header: Header,
        data: u64,
        side: Side,
    ) -> Result<(), DeltaError> {
        if path.is_root() {
            return Ok(());
        }
        let inode = if let Kind::HardLink { target } = &header.kind {
            let found = MemberPath::parse(target)
                .ok()
                .and_then(|t| self.names.get(&t).copied());
            found.ok_or_else(|| DeltaError::Link {
                side,
                path: path.clone(),
                target: target.clone(),
            })?
        } else {
            header.path = Vec::new();
            self.inodes.push(Inode { header, data });
            self.inodes.len() - 1
        };
        self.names.insert(path, inode);
        Ok(())
    }

    fn finish(&mut self, side: Side) -> Result<(), DeltaError> {
        let mut count = vec![0_u32; self.inodes.len()];
        for (path, &inode) in &self.names {
            count[inode] += 1;
            if self.is_directory(inode) && !self.directories.contains(path.as_bytes()) {
                self.directories.insert(path.as_bytes().into());
            }
            for parent in path.ancestors() {
                // The device would follow the link and find the member elsewhere, under a name
                // that stands for something else here.
                if self
                    .names
                    .get(parent)
                    .is_some_and(|&inode| !self.is_directory(inode))
                {
                    let parent = parent.to_vec();
                    return Err(DeltaError::Through {
                        side,
                        path: path.clone(),
                        parent,
                    });
                }
                if !self.directories.insert(parent.into()) {
                    break;
                }
            }
        }
        for (path, &inode) in &self.names {
            if count[inode] > 1 {
                self.linked.entry(inode).or_default().push(path.clone());
            }
        }
        Ok(())
    }

    pub(crate) fn is_directory(&self, inode: usize) -> bool {
        self.inodes[inode].header.kind == Kind::Directory
    }

    /// Whether a device has a directory of that name, with an entry or without.
    pub(crate) fn has_directory(&self, path: &[u8]) -> bool {
        self.directories.contains(path)
    }

    /// All names of what `path` names, sorted; `path` is one of them.
    pub(crate) fn aliases<'b>(&'b self, path: &'b MemberPath, inode: usize) -> &'b [MemberPath] {
        self.linked
            .get(&inode)
            .map_or(std::slice::from_ref(path), Vec::as_slice)
    }

    /// The content of an inode, to its end and beyond.
    pub(crate) fn content(&self, inode: usize) -> Section<'a> {
        Section::new(self.archive, self.inodes[inode].data)
    }
}

/// A file read from an offset, without its shared position.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> Section<'a> {
    pub(crate) fn new(file: &'a File, at: u64) -> Self {
        Self { file, at }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read_at(buffer, self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

impl Seek for Section<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        }
        .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

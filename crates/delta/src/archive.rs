//! An update archive: the paths to remove, then the members to place, each with its destination.
//!
//! In: a decompressed tar stream. Out: typed steps in the order in which they must be taken,
//! everything about their paths checked. Nothing here touches a tree, so reading an archive to
//! its end ([`check`]) finds what would stop [`apply`](crate::apply::apply) half way.

use std::io::{self, Read};

use system_image_tree::{LOST_AND_FOUND, PART_NAME, is_own};

use crate::apply::Sink;
use crate::path::{MemberPath, PathError, Shown};
use crate::route::Route;
use crate::tar::header::{Header, Kind, Xattr};
use crate::tar::reader::{Limits, ReadError, Reader};

/// Longest list of removals in bytes: some hundred thousand paths. A real one has a few hundred.
const MAX_REMOVED: u64 = 16 << 20;

/// Why a name is not for archives.
pub(crate) const RESERVED: &str = "the name is reserved for what is incomplete";

/// The name of the list of removals.
const REMOVED: &[u8] = b"removed";

/// Longest text of a symbolic link, in bytes, as the kernel has it.
const LONGEST_TARGET: usize = 4095;

/// Longest name and value of an extended attribute, in bytes, as the kernel has them.
const LONGEST_XATTR: (usize, usize) = (255, 64 << 10);

/// Classes of extended attributes.
const XATTR_CLASSES: [&[u8]; 4] = [b"security.", b"system.", b"trusted.", USER_CLASS];

/// The class that only files and directories have.
const USER_CLASS: &[u8] = b"user.";

/// Why an archive is no update archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no readable tar archive.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A member's name leads out of the archive's root.
    #[error("member `{}`: {why}", Shown(.path))]
    Path {
        /// The name.
        path: Vec<u8>,
        /// What is wrong with it.
        why: PathError,
    },
    /// A line of `removed` that is no path below `system/`.
    #[error("`removed` lists `{}`: {why}", Shown(.line))]
    Removed {
        /// The line.
        line: Vec<u8>,
        /// What is wrong with it.
        why: RemovedError,
    },
    /// `removed` is not a file, longer than any real one, or not the archive's first member.
    #[error("`removed` {0}")]
    RemovedMember(&'static str),
    /// A hard link to a file that goes somewhere else, or nowhere.
    #[error("member `{path}` is a hard link to `{}`, which is not in the same tree", Shown(.target))]
    LinkTarget {
        /// The link.
        path: MemberPath,
        /// What it names.
        target: Vec<u8>,
    },
    /// `system` is something else than a directory, a member has a name that is kept for what is not
    /// complete yet, or it is such as no kernel makes.
    #[error("member `{path}` cannot be placed: {why}")]
    Place {
        /// The member.
        path: MemberPath,
        /// Why not.
        why: &'static str,
    },
}

/// Why a line of `removed` is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovedError {
    /// It leads out of the archive's root.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It names the archive's root or the whole system.
    #[error("it would remove the whole system")]
    Everything,
    /// It names what an upgrader prepares.
    #[error("{RESERVED}")]
    Reserved,
}

/// A member and its destination.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its full path in the archive.
    pub path: MemberPath,
    /// Where it belongs.
    pub route: Route,
    /// The rest of what the archive says about it.
    pub header: Header,
}

impl Member {
    /// The file that a hard link names, below the root of the tree that the link goes to.
    pub(crate) fn link_target(&self, target: &[u8]) -> Result<MemberPath, ArchiveError> {
        let target_route = MemberPath::parse(target).map(|path| route(&path));
        match (&self.route, target_route) {
            (Route::System(_), Ok(Route::System(below)))
            | (Route::Data(_), Ok(Route::Data(below)))
                if !below.is_root() && !is_reserved(&below) =>
            {
                Ok(below)
            }
            _ => Err(ArchiveError::LinkTarget {
                path: self.path.clone(),
                target: target.to_vec(),
            }),
        }
    }
}

/// An update archive that is being read.
#[derive(Debug)]
pub struct Archive<R> {
    reader: Reader<R>,
    removed: Vec<MemberPath>,
    first: Option<Header>,
}

impl<R: Read> Archive<R> {
    /// Begins to read, up to the end of the list of removals if there is one.
    pub fn open(input: R, limits: Limits) -> Result<Self, ArchiveError> {
        let mut reader = Reader::new(input, limits);
        let mut first = reader.next_header()?;
        let mut removed = Vec::new();
        if first.as_ref().is_some_and(is_removed) {
            let list = first.take().map(|header| header.kind);
            removed = read_removed(&mut reader, list.as_ref())?;
        }
        Ok(Self {
            reader,
            removed,
            first,
        })
    }

    /// What to remove before anything is placed, below the system's root, as listed.
    ///
    /// Lines that name something outside of `system/` are not here: classic servers list
    /// changed partition images too, and nothing of an earlier update is kept of those.
    pub fn removed(&self) -> &[MemberPath] {
        &self.removed
    }

    /// The next member. Its content can be read from [`content`](Self::content) until then.
    pub fn next_member(&mut self) -> Result<Option<Member>, ArchiveError> {
        loop {
            let header = match self.first.take() {
                Some(header) => header,
                None => match self.reader.next_header()? {
                    Some(header) => header,
                    None => return Ok(None),
                },
            };
            if is_removed(&header) {
                // The original finds the list wherever it is and obeys it first. A stream
                // cannot, and placing members before removing others gives another tree.
                return Err(ArchiveError::RemovedMember("must be the first member"));
            }
            let path = MemberPath::parse(&header.path).map_err(|why| ArchiveError::Path {
                path: header.path.clone(),
                why,
            })?;
            if path.is_root() && header.kind == Kind::Directory {
                continue;
            }
            let route = route(&path);
            let member = Member {
                path,
                route,
                header,
            };
            member.check()?;
            return Ok(Some(member));
        }
    }

    /// The content of the member that was returned last.
    pub fn content(&mut self) -> &mut Reader<R> {
        &mut self.reader
    }
}

impl Member {
    fn check(&self) -> Result<(), ArchiveError> {
        let place = |why| {
            Err(ArchiveError::Place {
                path: self.path.clone(),
                why,
            })
        };
        let (Route::System(below) | Route::Data(below)) = &self.route else {
            return if self.path.is_root() {
                place("it has no name")
            } else {
                Ok(())
            };
        };
        if below.is_root() && self.header.kind != Kind::Directory {
            return place("the root of a tree is a directory");
        }
        if is_reserved(below) {
            return place(RESERVED);
        }
        match &self.header.kind {
            Kind::HardLink { target } => self.link_target(target).map(drop),
            Kind::Symlink { target } if target.len() > LONGEST_TARGET => {
                place("its link target is longer than any link's")
            }
            kind => match self.header.xattrs.iter().find_map(|x| impossible(x, kind)) {
                Some(why) => place(why),
                None => Ok(()),
            },
        }
    }
}

/// Why nothing of this kind can have an extended attribute, on any file system.
fn impossible(xattr: &Xattr, kind: &Kind) -> Option<&'static str> {
    let (name, value) = LONGEST_XATTR;
    let is_plain = matches!(kind, Kind::File { .. } | Kind::Directory);
    let is_class = |class: &&[u8]| xattr.name.starts_with(class) && xattr.name.len() > class.len();
    if xattr.name.len() > name || xattr.value.len() > value {
        Some("it has an attribute that is longer than any")
    } else if !XATTR_CLASSES.iter().any(is_class) {
        Some("it has an attribute of an unknown class")
    } else if xattr.name.starts_with(USER_CLASS) && !is_plain {
        Some("only files and directories have attributes of the class `user.`")
    } else {
        None
    }
}

/// Where a member belongs. What file systems keep for themselves at their top is in none of the trees:
/// images that were packed from a mounted one have it.
fn route(path: &MemberPath) -> Route {
    let route = Route::of(path);
    let is_apart = |below: &MemberPath| {
        let first = below.split_first();
        first.is_some_and(|(first, _)| first == LOST_AND_FOUND.as_bytes())
    };
    match &route {
        Route::System(below) | Route::Data(below) if is_apart(below) => {
            Route::Unknown(path.clone())
        }
        _ => route,
    }
}

/// Whether a path below the root of a tree has a name that is kept for what is incomplete.
fn is_reserved(below: &MemberPath) -> bool {
    let mut parts = below.as_bytes().split(|&b| b == b'/');
    parts.clone().next().is_some_and(is_own) || parts.any(|part| part == PART_NAME.as_bytes())
}

fn is_removed(header: &Header) -> bool {
    MemberPath::parse(&header.path).is_ok_and(|path| path.as_bytes() == REMOVED)
}

fn read_removed<R: Read>(
    reader: &mut Reader<R>,
    kind: Option<&Kind>,
) -> Result<Vec<MemberPath>, ArchiveError> {
    match kind {
        Some(Kind::File { size }) if *size <= MAX_REMOVED => {}
        Some(Kind::File { .. }) => return Err(ArchiveError::RemovedMember("is too long")),
        _ => return Err(ArchiveError::RemovedMember("is not a file")),
    }
    let mut text = Vec::new();
    if let Err(error) = reader.read_to_end(&mut text) {
        return Err(reader.content_error(error).into());
    }
    let mut removed = Vec::new();
    // An empty list is one empty line in the classic form; blank lines were always harmless.
    for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        if let Some(path) = parse_removed(line).map_err(|why| ArchiveError::Removed {
            line: line.to_vec(),
            why,
        })? {
            removed.push(path);
        }
    }
    Ok(removed)
}

fn parse_removed(line: &[u8]) -> Result<Option<MemberPath>, RemovedError> {
    // A `.` in the middle is as wrong here as `..`: only damaged lists have it.
    let path = MemberPath::parse(line)?;
    match route(&path) {
        _ if path.is_root() => Err(RemovedError::Everything),
        Route::System(below) if below.is_root() => Err(RemovedError::Everything),
        Route::System(below) if is_reserved(&below) => Err(RemovedError::Reserved),
        Route::System(below) => Ok(Some(below)),
        _ => Ok(None),
    }
}

/// What an archive would do, found by reading all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Paths in `removed` that are below `system/`.
    pub removed: u64,
    /// Members that go to the system.
    pub members: u64,
    /// Bytes of file content that go to the system, holes included.
    pub bytes: u64,
    /// Bytes of file content that need room on the disk for certain: those of files without holes.
    pub solid_bytes: u64,
}

/// Reads an archive to its end without changing anything.
///
/// Whatever [`apply`](crate::apply::apply) would refuse for the archive's own sake is refused
/// here, so that a bad archive is found before the first change. `sink` sees what goes to none of the
/// trees, and the files of the system.
pub fn check(
    input: impl Read,
    limits: Limits,
    sink: &mut dyn Sink,
) -> Result<Contents, CheckError> {
    let mut archive = Archive::open(input, limits)?;
    let mut contents = Contents {
        removed: archive.removed().len() as u64,
        ..Contents::default()
    };
    while let Some(member) = archive.next_member()? {
        let is_sparse = archive.content().is_sparse();
        let taken = match (&member.route, &member.header.kind) {
            (Route::System(_), Kind::File { size }) => {
                contents.members += 1;
                contents.bytes += size;
                if !is_sparse {
                    contents.solid_bytes += size;
                }
                sink.system(&member, archive.content())
            }
            (Route::System(_), _) => {
                contents.members += 1;
                Ok(())
            }
            (Route::Data(_), _) => Ok(()),
            _ => sink.elsewhere(&member, archive.content()),
        };
        taken.map_err(|source| CheckError::Refused {
            path: member.path,
            source,
        })?;
        if let Err(error) = io::copy(archive.content(), &mut io::sink()) {
            let error: ArchiveError = archive.content().content_error(error).into();
            return Err(error.into());
        }
    }
    Ok(contents)
}

/// Why an archive must not be applied.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It is bad in itself.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The [`Sink`] refused a member.
    #[error("cannot take member `{path}`")]
    Refused {
        /// The path in the archive.
        path: MemberPath,
        /// Why it was refused.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

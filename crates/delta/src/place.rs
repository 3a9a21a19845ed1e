//! Places one member of the system: a file, a directory, a link, a device.
//!
//! Everything but a directory is made under a temporary name beside its place and renamed over
//! what was there, so a path has the old or the new content at any moment and another hard link
//! of the old file keeps the old content. Placing the same member again gives the same tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use system_image_tree::root::is_absent;
use system_image_tree::{PART_NAME, Root};

use crate::apply::{ApplyError, Privileges, Skipped};
use crate::archive::Member;
use crate::parents::{Identity, Parents, identity};
use crate::path::MemberPath;
use crate::tar::header::{Device, Header, Kind, Mtime};
use crate::tar::reader::{ReadError, Reader};
use crate::xattr;

/// Size of the buffer through which content is copied, in bytes.
const COPY_BUFFER: usize = 64 << 10;

/// Places members below a root.
#[derive(Debug)]
pub(crate) struct Placer<'a> {
    root: &'a Root,
    pub(crate) parents: Parents<'a>,
    privileges: Privileges,
    pub(crate) skipped: Skipped,
    /// Directories whose mode and time are set last, because placing members in them needs
    /// permission and changes the time.
    directories: Vec<Unfinished>,
    /// Directories that something was placed in or removed from, by inode, as links may lead to
    /// one from several paths; with the time that each had before.
    entered: BTreeMap<Identity, (MemberPath, Mtime)>,
    buffer: Box<[u8]>,
}

#[derive(Debug)]
struct Unfinished {
    path: MemberPath,
    identity: Identity,
    mode: u32,
    mtime: Mtime,
}

/// A failure of the tree, not of the archive.
enum Failure {
    Io(io::Error),
    NotEmpty,
    Xattr(xattr::Failure),
    Archive(ReadError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<xattr::Failure> for Failure {
    fn from(failure: xattr::Failure) -> Self {
        Self::Xattr(failure)
    }
}

impl<'a> Placer<'a> {
    pub(crate) fn new(root: &'a Root, privileges: Privileges) -> Self {
        Self {
            root,
            parents: Parents::new(root),
            privileges,
            skipped: Skipped::default(),
            directories: Vec::new(),
            entered: BTreeMap::new(),
            buffer: vec![0; COPY_BUFFER].into(),
        }
    }

    /// Places `member` at `path` below the root. Returns the bytes of content written.
    pub(crate) fn place<R: io::Read>(
        &mut self,
        path: &MemberPath,
        member: &Member,
        content: &mut Reader<R>,
    ) -> Result<u64, ApplyError> {
        let header = &member.header;
        let placed = match &header.kind {
            Kind::Directory => self.directory(path, header).map(|()| 0),
            Kind::File { size } => self.file(path, header, *size, content).map(|()| *size),
            Kind::HardLink { target } => {
                let target = member.link_target(target)?;
                self.hard_link(path, &target).map(|()| 0)
            }
            Kind::Symlink { target } => self
                .node(path, header, |parent| {
                    fs::symlinkat(&**target, parent, PART_NAME)
                })
                .map(|()| 0),
            Kind::Fifo => self.device(path, header, FileType::Fifo, None).map(|()| 0),
            Kind::CharDevice(device) => self
                .device(path, header, FileType::CharacterDevice, Some(*device))
                .map(|()| 0),
            Kind::BlockDevice(device) => self
                .device(path, header, FileType::BlockDevice, Some(*device))
                .map(|()| 0),
        };
        placed.map_err(|failure| {
            // What is incomplete may be what filled the disk. Nothing more can be done here.
            if let Ok((parent, _)) = self.parent(path) {
                let _ = fs::unlinkat(&parent, PART_NAME, AtFlags::empty());
            }
            failure.at(path)
        })
    }

    /// Notes the time of a directory before something in it changes.
    ///
    /// A directory that is no member keeps its time: when an update was applied is nothing that
    /// two devices with the same image should differ in.
    pub(crate) fn enter(&mut self, path: &MemberPath, directory: &OwnedFd) -> io::Result<()> {
        let stat = fs::fstat(directory)?;
        let mtime = Mtime {
            seconds: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        };
        self.entered
            .entry((stat.st_dev, stat.st_ino))
            .or_insert_with(|| (path.clone(), mtime));
        Ok(())
    }

    /// Sets the modes and times of all directories placed, and the times of those entered.
    pub(crate) fn finish(self) -> Result<Skipped, ApplyError> {
        for (identity, (path, mtime)) in self.entered {
            let restore = || match still(self.root, &path, identity)? {
                Some(directory) => Ok(fs::futimens(&directory, &times(mtime))?),
                None => Ok(()),
            };
            restore().map_err(|source| ApplyError::Place {
                path: path.clone(),
                source,
            })?;
        }
        for Unfinished {
            path,
            identity,
            mode,
            mtime,
        } in self.directories
        {
            let finish = || -> io::Result<()> {
                let Some(directory) = still(self.root, &path, identity)? else {
                    return Ok(());
                };
                fs::fchmod(&directory, Mode::from_raw_mode(mode))?;
                Ok(fs::futimens(&directory, &times(mtime))?)
            };
            finish().map_err(|source| ApplyError::Place {
                path: path.clone(),
                source,
            })?;
        }
        Ok(self.skipped)
    }

    fn file<R: io::Read>(
        &mut self,
        path: &MemberPath,
        header: &Header,
        size: u64,
        content: &mut Reader<R>,
    ) -> Result<(), Failure> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = fresh(parent.as_fd(), |parent| {
            fs::openat(parent, PART_NAME, flags, Mode::from_raw_mode(0o600))
        })?;
        let file = File::from(made);
        // A file with holes gets its length at the end; its data may end before.
        let sparse = content.is_sparse();
        loop {
            match content.read_stored(&mut self.buffer) {
                Ok(Some((offset, len))) => file.write_all_at(&self.buffer[..len], offset)?,
                Ok(None) => break,
                Err(error) => return Err(Failure::Archive(content.content_error(error))),
            }
        }
        if sparse {
            file.set_len(size)?;
        }
        if self.owns() {
            let (uid, gid) = owner(header);
            fs::fchown(&file, Some(uid), Some(gid))?;
        }
        // After the owner, whose change clears set-uid, and so with the capabilities.
        fs::fchmod(&file, Mode::from_raw_mode(header.mode))?;
        self.skipped.xattrs += xattr::make_equal(file.as_fd(), &header.xattrs, self.privileges)?;
        fs::futimens(&file, &times(header.mtime))?;
        self.take_place(parent.as_fd(), &name)
    }

    fn directory(&mut self, path: &MemberPath, header: &Header) -> Result<(), Failure> {
        if !path.is_root() {
            let (parent, name) = self.parent(path)?;
            match kind_at(parent.as_fd(), &name)? {
                None => fs::mkdirat(&parent, &*name, Mode::RWXU)?,
                Some(FileType::Directory) => {}
                // Device archives made for systems with a real `/lib` are laid over systems
                // where it is a link: the link stays, as with the originals.
                Some(FileType::Symlink) if self.leads_to_directory(path)? => {}
                Some(_) => {
                    fs::unlinkat(&parent, &*name, AtFlags::empty())?;
                    self.parents.forget();
                    fs::mkdirat(&parent, &*name, Mode::RWXU)?;
                }
            }
        }
        let directory = self.root.directory(path.as_bytes())?;
        self.parents.keep_out(&directory)?;
        if self.owns() {
            let (uid, gid) = owner(header);
            fs::fchown(&directory, Some(uid), Some(gid))?;
        }
        fs::fchmod(&directory, Mode::from_raw_mode(header.mode | 0o700))?;
        self.skipped.xattrs +=
            xattr::make_equal(directory.as_fd(), &header.xattrs, self.privileges)?;
        let (mode, mtime) = (header.mode, header.mtime);
        self.directories.push(Unfinished {
            path: path.clone(),
            identity: identity(&directory)?,
            mode,
            mtime,
        });
        Ok(())
    }

    fn hard_link(&mut self, path: &MemberPath, target: &MemberPath) -> Result<(), Failure> {
        let (target_parent, target_name) = target.split_last().ok_or(Errno::ISDIR)?;
        let (parent, name) = self.parent(path)?;
        let target_parent = self.parents.find(&target_parent)?.ok_or(Errno::NOENT)?;
        let inode = |parent: BorrowedFd<'_>, name: &[u8]| {
            let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok::<_, Errno>((stat.st_dev, stat.st_ino))
        };
        let wanted = inode(target_parent.as_fd(), target_name)?;
        // Renaming one name of a file over another name of it does nothing at all, and would
        // leave the temporary name behind.
        if inode(parent.as_fd(), &name).is_ok_and(|present| present == wanted) {
            return Ok(());
        }
        fresh(parent.as_fd(), |parent| {
            fs::linkat(
                &target_parent,
                target_name,
                parent,
                PART_NAME,
                AtFlags::empty(),
            )
        })?;
        self.take_place(parent.as_fd(), &name)
    }

    fn device(
        &mut self,
        path: &MemberPath,
        header: &Header,
        kind: FileType,
        device: Option<Device>,
    ) -> Result<(), Failure> {
        if device.is_some() && self.privileges == Privileges::User {
            self.skipped.devices += 1;
            return Ok(());
        }
        let number = device.map_or(0, |device| fs::makedev(device.major, device.minor));
        self.node(path, header, |parent| {
            fs::mknodat(parent, PART_NAME, kind, Mode::from_raw_mode(0o600), number)?;
            // The name is new and no link, so this follows nothing.
            fs::chmodat(
                parent,
                PART_NAME,
                Mode::from_raw_mode(header.mode),
                AtFlags::empty(),
            )
        })
    }

    /// Something that has no content and is made by one call.
    fn node(
        &mut self,
        path: &MemberPath,
        header: &Header,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<()>,
    ) -> Result<(), Failure> {
        let (parent, name) = self.parent(path)?;
        fresh(parent.as_fd(), &make)?;
        if self.owns() {
            let (uid, gid) = owner(header);
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            fs::chownat(&parent, PART_NAME, Some(uid), Some(gid), flags)?;
            if !matches!(header.kind, Kind::Symlink { .. }) {
                // The change of owner cleared set-uid.
                let mode = Mode::from_raw_mode(header.mode);
                fs::chmodat(&parent, PART_NAME, mode, AtFlags::empty())?;
            }
        }
        self.skipped.xattrs += xattr::set_at(
            parent.as_fd(),
            PART_NAME.as_bytes(),
            &header.xattrs,
            self.privileges,
        )?;
        fs::utimensat(
            &parent,
            PART_NAME,
            &times(header.mtime),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        self.take_place(parent.as_fd(), &name)
    }

    /// Renames what was made over what is there.
    fn take_place(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Failure> {
        match kind_at(parent, name)? {
            None | Some(FileType::RegularFile) => {}
            Some(FileType::Directory) => {
                match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    Err(Errno::NOTEMPTY | Errno::EXIST) => return Err(Failure::NotEmpty),
                    other => other?,
                }
                self.parents.forget();
            }
            Some(_) => self.parents.forget(),
        }
        Ok(fs::renameat(parent, PART_NAME, parent, name)?)
    }

    fn parent(&mut self, path: &MemberPath) -> io::Result<(std::rc::Rc<OwnedFd>, Box<[u8]>)> {
        let (parent, name) = path.split_last().ok_or(Errno::ISDIR)?;
        let directory = self.parents.find_or_make(&parent)?;
        self.parents.keep_off(&directory, name)?;
        self.enter(&parent, &directory)?;
        Ok((directory, name.into()))
    }

    fn leads_to_directory(&self, path: &MemberPath) -> io::Result<bool> {
        match self.root.directory(path.as_bytes()) {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether owners are to be set; counts it if not.
    fn owns(&mut self) -> bool {
        self.skipped.owners += u64::from(self.privileges == Privileges::User);
        self.privileges == Privileges::Root
    }
}

impl Failure {
    fn at(self, path: &MemberPath) -> ApplyError {
        let path = path.clone();
        match self {
            Self::Io(source) => ApplyError::Place { path, source },
            Self::NotEmpty => ApplyError::NotEmpty { path },
            Self::Xattr(xattr::Failure { name, source }) => {
                ApplyError::Xattr { path, name, source }
            }
            Self::Archive(error) => ApplyError::Archive(error.into()),
        }
    }
}

/// Makes something under the temporary name, after removing what an interrupted run left there.
fn fresh<T>(
    parent: BorrowedFd<'_>,
    make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match make(parent) {
        Err(Errno::EXIST) => {
            fs::unlinkat(parent, PART_NAME, AtFlags::empty())?;
            make(parent)
        }
        other => other,
    }
}

/// What is at `name`, not following it.
fn kind_at(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<FileType>> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The directory at `path`, if it is still this one: a later member may have taken its place, perhaps a
/// link to another directory.
fn still(root: &Root, path: &MemberPath, wanted: Identity) -> io::Result<Option<OwnedFd>> {
    match root.directory(path.as_bytes()) {
        Ok(directory) => Ok((identity(&directory)? == wanted).then_some(directory)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn owner(header: &Header) -> (Uid, Gid) {
    (Uid::from_raw(header.uid), Gid::from_raw(header.gid))
}

/// The access time is set to the same: it is of no use and would differ from run to run.
fn times(mtime: Mtime) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

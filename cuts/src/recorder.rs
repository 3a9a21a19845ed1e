//! A file whose writes and flushes are recorded: a file system of our own with that one file. A
//! loop device over it writes to it what a disk is told to write, and syncs it where a disk is
//! told to flush.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyWrite, Request, Session, WriteFlags,
};
use rustix::mount::{UnmountFlags, unmount};

use crate::record::Record;

/// The file's name.
const NAME: &str = "disk";

/// Its number.
const INODE: INodeNo = INodeNo(2);

/// How long the kernel may believe what it is told. Nothing of it ever changes.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// How long to wait for whoever still has the file, and between two looks.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// A file that is being recorded, until this is dropped or [`finished`](Self::finish).
pub(crate) struct Recorder {
    session: BackgroundSession,
    record: Arc<Mutex<Record>>,
    path: PathBuf,
}

impl Recorder {
    /// Shows the file `image` as [`path`](Self::path), below the directory `mountpoint`.
    pub(crate) fn start(image: &Path, mountpoint: &Path) -> io::Result<Self> {
        let image = File::options().read(true).write(true).open(image)?;
        let record = Arc::default();
        let disk = RecordedDisk {
            len: image.metadata()?.len(),
            image,
            record: Arc::clone(&record),
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("cuts".into()), MountOption::RW];
        Ok(Self {
            session: Session::new(disk, mountpoint, &config)?.spawn()?,
            record,
            path: mountpoint.join(NAME),
        })
    }

    /// The file that is recorded.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the recording. Nobody may have the file open any more, but for the moment that the
    /// kernel takes to let go of it after a loop device over it is detached, and a program that
    /// another thread is just starting.
    pub(crate) fn finish(self) -> io::Result<Record> {
        let mountpoint = self.path.parent().unwrap_or(&self.path);
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = unmount(mountpoint, UnmountFlags::empty()) {
            if error != rustix::io::Errno::BUSY || Instant::now() > deadline {
                return Err(error.into());
            }
            sleep(PAUSE);
        }
        self.session.join()?;
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *record))
    }
}

/// The file system. Its calls come one after the other, so the record has their order.
#[derive(Debug)]
struct RecordedDisk {
    image: File,
    len: u64,
    record: Arc<Mutex<Record>>,
}

impl RecordedDisk {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let (kind, perm, size) = if inode == INODE {
            (FileType::RegularFile, 0o600, self.len)
        } else {
            (FileType::Directory, 0o700, 0)
        };
        FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn record(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn read_at(&self, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let size = u64::from(size).min(self.len.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.image.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// What it does not do, such as `fallocate`, is refused by `fuser` itself: a disk that cannot
/// discard, so that all it is told are writes.
impl Filesystem for RecordedDisk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&FOR_EVER, &self.attributes(INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attributes(inode));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.read_at(offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.record(|record| record.write(offset, bytes));
        let len = u32::try_from(bytes.len()).expect("the kernel writes less than 4 GiB at once");
        match self.image.write_all_at(bytes, offset) {
            Ok(()) => reply.written(len),
            Err(error) => reply.error(error.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Somebody closes the file, which says nothing of the disk.
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.record(Record::flush);
        reply.ok();
    }
}

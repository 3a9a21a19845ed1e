//! Opens files of the tree, and nothing else.
//!
//! In: the path of a request. Out: an open regular file and what identifies its content. The
//! kernel resolves every path below the tree's directory (`openat2`); nothing here is listed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use camino::Utf8Path;
use percent_encoding::percent_decode_str;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;
use system_image_formats::name::TreePath;

/// Links within the tree are ours; one that leads out of it is not followed.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// A file that cannot be opened at once, such as a pipe, is not waited for.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// The file that a request's path names; `None` for what is no name of a published file: what is
/// still being written, and the directories behind replaced documents.
pub(super) fn published_path(path: &str) -> Option<TreePath> {
    let path: TreePath = percent_decode_str(path).decode_utf8().ok()?.parse().ok()?;
    let mut parts = path.relative().split('/');
    let hidden = parts.any(|part| part.starts_with('.') || part.strip_suffix(".new").is_some());
    (!hidden).then_some(path)
}

/// A directory that files are opened in.
#[derive(Clone, Debug)]
pub(super) struct Directory(Arc<OwnedFd>);

/// An open file of the tree.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) file: File,
    pub(super) identity: Identity,
}

/// Differs whenever the content of a name does. A file that is replaced has another inode, one
/// that is written in place another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// In bytes.
    pub(super) len: u64,
    /// Since 1970; earlier times count as that.
    modified: Duration,
}

impl Directory {
    /// The tree at `www`.
    pub(super) fn open(www: &Utf8Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, www.as_std_path(), flags, Mode::empty())?;
        Ok(Self(Arc::new(directory)))
    }

    /// Where the link at `path` leads; `None` if there is none.
    pub(super) async fn link(&self, path: &str) -> Option<String> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = self.descriptor(path, flags).await.ok()?;
        readlinkat(link, "", Vec::new()).ok()?.into_string().ok()
    }

    /// The directory at `path` below this one, through links.
    pub(super) async fn directory(&self, path: &str) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = self.descriptor(path, flags).await?;
        Ok(Self(Arc::new(directory)))
    }

    /// The regular file at `path` below this directory.
    pub(super) async fn file(&self, path: &str) -> io::Result<Published> {
        let file = File::from(self.descriptor(path, READ).await?);
        let found = fstat(&file)?;
        if !rustix::fs::FileType::from_raw_mode(found.st_mode).is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let since = |number: i64| u64::try_from(number).unwrap_or(0);
        let nanos = u32::try_from(found.st_mtime_nsec).unwrap_or(0);
        let identity = Identity {
            device: found.st_dev,
            inode: found.st_ino,
            len: since(found.st_size),
            modified: Duration::new(since(found.st_mtime), nanos),
        };
        Ok(Published { file, identity })
    }

    /// Names that the kernel has in its caches are resolved here and now, others off the threads
    /// that serve. A kernel before 5.12 does not know the difference.
    async fn descriptor(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let open = move |directory: &OwnedFd, path: &str, resolve| {
            openat2(directory, path, flags, Mode::empty(), resolve)
        };
        match open(&self.0, path, BENEATH | ResolveFlags::CACHED) {
            Err(Errno::AGAIN | Errno::INVAL) => {
                let (directory, path) = (Arc::clone(&self.0), path.to_owned());
                let opened =
                    tokio::task::spawn_blocking(move || open(&directory, &path, BENEATH)).await?;
                Ok(opened?)
            }
            opened => Ok(opened?),
        }
    }
}

impl Identity {
    /// A strong entity tag; `suffix` tells representations of the same content apart.
    pub(super) fn tag(&self, suffix: &str) -> String {
        let (seconds, nanos) = (self.modified.as_secs(), self.modified.subsec_nanos());
        let Self { inode, len, .. } = self;
        format!("\"{seconds:x}.{nanos:x}-{len:x}-{inode:x}{suffix}\"")
    }

    /// In whole seconds, which is all that HTTP can say. Rounded up: if it were rounded down, who
    /// has the first of two versions of one second would never be told of the second one. (A
    /// time to come is sent as the current one, which is then a time before it.)
    pub(super) fn modified(&self) -> SystemTime {
        let up = u64::from(self.modified.subsec_nanos() > 0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.modified.as_secs() + up)
    }
}

/// Whether there is nothing to serve under that name, rather than a fault of ours.
pub(super) fn is_absent(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    // XDEV: it leads out of the tree. LOOP: links that lead nowhere. NXIO: a socket.
    matches!(
        errno,
        Some(Errno::XDEV | Errno::LOOP | Errno::NXIO | Errno::NAMETOOLONG)
    ) || matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_published_names_are_served() {
        let served = |path| published_path(path).map(|path| path.relative().to_owned());
        assert_eq!(
            served("/24.04/stable/d/index.json").unwrap(),
            "24.04/stable/d/index.json"
        );
        assert_eq!(served("/kanal-%C3%A4/x").unwrap(), "kanal-ä/x");
        for path in [
            "/",
            "/a/",
            "/../secret",
            "/a/%2e%2e/b",
            "/a%2f..%2fb",
            "/.index.json/now/index.json",
            "/a/index.json.new",
            "/a%00b",
            "/%ff",
        ] {
            assert_eq!(served(path), None, "{path}");
        }
    }
}

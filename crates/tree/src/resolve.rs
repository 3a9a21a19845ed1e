//! Opens directories inside a root: by `openat2` where the kernel has it, step by step where not.
//!
//! Devices with kernels before 5.6 are many. Both ways give the same: links are followed inside the
//! root, an absolute one starts there, `..` ends there, and no other file system is entered.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, Result};

/// How often an interrupted resolution is tried again. The kernel asks for it when something
/// was renamed anywhere on the system at that moment.
const MAX_RETRIES: usize = 128;

/// Most links on the way, as the kernel has it.
const MAX_LINKS: usize = 40;

/// Opens the directory at `path` below `root` with these flags; the empty path is the root.
pub(crate) fn directory(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    for _ in 0..MAX_RETRIES {
        match fs::openat2(root, path, flags, Mode::empty(), inside) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::NOSYS) => return step_by_step(root, path, flags),
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Opens a directory that stands in `parent` itself, on the same file system.
pub(crate) fn child(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS) => child_without_openat2(parent, name, flags),
        other => other,
    }
}

fn child_without_openat2(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let opened = fs::openat(parent, name, flags, Mode::empty())?;
    if fs::fstat(&opened)?.st_dev == fs::fstat(parent)?.st_dev {
        Ok(opened)
    } else {
        Err(Errno::XDEV)
    }
}

/// The same as [`directory`], one name after the other.
fn step_by_step(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let device = fs::fstat(root)?.st_dev;
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut left: VecDeque<Vec<u8>> = parts(path).collect();
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == b".." {
            way.pop();
            continue;
        }
        let here = way.last().map_or(root, AsFd::as_fd);
        let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = fs::openat(here, &*part, handle, Mode::empty())?;
        let stat = fs::fstat(&found)?;
        match kind(&stat) {
            FileType::Directory if stat.st_dev == device => way.push(found),
            FileType::Directory => return Err(Errno::XDEV),
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = fs::readlinkat(&found, c"", Vec::new())?.into_bytes();
                if target.first() == Some(&b'/') {
                    way.clear();
                }
                for target_part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    left.push_front(target_part);
                }
            }
            _ => return Err(Errno::NOTDIR),
        }
    }
    let here = way.last().map_or(root, AsFd::as_fd);
    fs::openat(here, c".", flags, Mode::empty())
}

fn parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let parts = path.split(|&b| b == b'/');
    parts
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(<[u8]>::to_vec)
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir_all};
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn identity(fd: &OwnedFd) -> (u64, u64) {
        let stat = fs::fstat(fd).unwrap();
        (stat.st_dev, stat.st_ino)
    }

    #[test]
    fn both_ways_give_the_same_directory_or_the_same_error() {
        let directory_ = tempfile::tempdir().unwrap();
        let top = directory_.path().join("root");
        create_dir_all(top.join("usr/lib/x")).unwrap();
        create_dir_all(directory_.path().join("outside")).unwrap();
        File::create(top.join("file")).unwrap();
        for (link, target) in [
            ("lib", "usr/lib"),
            ("abs", "/usr/lib"),
            ("up", "../../../usr"),
            ("out", "../outside"),
            ("loop", "loop"),
            ("dangling", "nowhere"),
            ("usr/back", "../lib/./x"),
            ("tofile", "file"),
        ] {
            symlink(target, top.join(link)).unwrap();
        }
        let root = File::open(&top).unwrap();
        let path = prop::collection::vec(
            prop::sample::select(vec![
                "", ".", "..", "usr", "lib", "x", "abs", "up", "out", "loop", "dangling", "back",
                "file", "tofile", "none",
            ]),
            0..6,
        );
        proptest!(ProptestConfig::with_cases(2000), |(parts in path)| {
            let path = parts.join("/");
            let path = path.trim_start_matches('/').as_bytes();
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let kernel = directory(root.as_fd(), path, flags).map(|fd| identity(&fd));
            let ours = step_by_step(root.as_fd(), path, flags).map(|fd| identity(&fd));
            prop_assert_eq!(kernel, ours);
        });
    }

    #[test]
    fn a_child_is_no_link() {
        let top = tempfile::tempdir().unwrap();
        create_dir_all(top.path().join("d")).unwrap();
        symlink("d", top.path().join("l")).unwrap();
        let root = File::open(top.path()).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for name in [c"d", c"l", c"none"] {
            let kernel = child(root.as_fd(), name).map(|fd| identity(&fd)).is_ok();
            let ours = child_without_openat2(root.as_fd(), name, flags).is_ok();
            assert_eq!((kernel, ours), (name == c"d", name == c"d"), "{name:?}");
        }
    }
}

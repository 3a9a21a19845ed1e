//! Room on the disk for a whole file, before its first byte comes.

use std::fs::File;
use std::io;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs, ftruncate};
use rustix::io::Errno;

/// Reserves room for the bytes of `file` from `from`, its length, up to `total`. Its length stays,
/// because that tells how much of it is good.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`] or [`io::ErrorKind::QuotaExceeded`] if there is none; then nothing
/// is reserved. Where the file system cannot reserve, its free bytes are counted.
pub(crate) fn reserve(file: &File, from: u64, total: u64) -> io::Result<()> {
    let missing = total.saturating_sub(from);
    if missing == 0 {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::KEEP_SIZE, from, missing) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                // What was reserved before it was too much goes back.
                let _ = ftruncate(file, from);
                return Err(error.into());
            }
            Err(_) => return count(file, missing),
        }
    }
}

fn count(file: &File, missing: u64) -> io::Result<()> {
    // A file system that cannot tell says so when it is full.
    let Ok(found) = fstatvfs(file) else {
        return Ok(());
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if missing > free {
        return Err(io::ErrorKind::StorageFull.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn room_is_reserved_behind_the_end() {
        let file = tempfile::tempfile().unwrap();
        reserve(&file, 0, 1 << 20).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 0);
        assert!(metadata.blocks() * 512 >= 1 << 20, "{metadata:?}");
        reserve(&file, 5, 5).unwrap();
        reserve(&file, 5, 0).unwrap();
    }

    #[test]
    fn more_than_any_disk_has_is_refused_and_takes_no_room() {
        let file = tempfile::tempfile().unwrap();
        assert!(reserve(&file, 0, 1 << 60).is_err());
        assert_eq!(file.metadata().unwrap().blocks(), 0);
        let error = count(&file, 1 << 62).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        count(&file, 1).unwrap();
    }
}

//! Gives a file exactly the extended attributes that its archive has.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;
use system_image_tree::xattr::names;

use crate::apply::Privileges;
use crate::tar::header::Xattr;

/// An attribute that could not be set or removed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) name: Vec<u8>,
    pub(crate) source: io::Error,
}

/// Sets `wanted` and removes other attributes that images define. Returns how many were left
/// out for want of privileges.
///
/// To be called after the owner is set: a change of owner drops capabilities.
pub(crate) fn make_equal(
    file: BorrowedFd<'_>,
    wanted: &[Xattr],
    privileges: Privileges,
) -> Result<u64, Failure> {
    let present = names(file).map_err(|source| Failure {
        name: b"(list)".to_vec(),
        source,
    })?;
    for name in present {
        if wanted.iter().all(|x| x.name != name) {
            let removed = fs::fremovexattr(file, &*name);
            skip_or_fail(&name, removed, privileges)?;
        }
    }
    each(wanted, privileges, |x| {
        fs::fsetxattr(file, &*x.name, &x.value, XattrFlags::empty())
    })
}

/// Sets attributes of something that cannot be opened: a link, a device, a pipe. It has just
/// been made, so there are none to remove.
pub(crate) fn set_at(
    parent: BorrowedFd<'_>,
    name: &[u8],
    wanted: &[Xattr],
    privileges: Privileges,
) -> Result<u64, Failure> {
    if wanted.is_empty() {
        return Ok(0);
    }
    // No system call of older kernels takes a directory descriptor for this.
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    each(wanted, privileges, |x| {
        fs::lsetxattr(&*path, &*x.name, &x.value, XattrFlags::empty())
    })
}

fn each(
    wanted: &[Xattr],
    privileges: Privileges,
    set: impl Fn(&Xattr) -> rustix::io::Result<()>,
) -> Result<u64, Failure> {
    let mut skipped = 0;
    for xattr in wanted {
        if privileges == Privileges::User && !xattr.name.starts_with(b"user.") {
            skipped += 1;
        } else {
            skipped += skip_or_fail(&xattr.name, set(xattr), privileges)?;
        }
    }
    Ok(skipped)
}

/// Without root, a file system or a kind of file that takes no attributes is no failure.
fn skip_or_fail(
    name: &[u8],
    done: rustix::io::Result<()>,
    privileges: Privileges,
) -> Result<u64, Failure> {
    match done {
        Ok(()) => Ok(0),
        Err(Errno::NOTSUP | Errno::PERM) if privileges == Privileges::User => Ok(1),
        Err(error) => Err(Failure {
            name: name.to_vec(),
            source: error.into(),
        }),
    }
}

//! Extended attributes of files that are open.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::buffer::spare_capacity;
use rustix::fs;
use rustix::io::Errno;

/// The kernel's limit for the list of all names, and for one value.
const LONGEST: usize = 64 << 10;

/// The names of the attributes that are part of an image. Labels that the running kernel's policy
/// gives to every new file are not.
///
/// A file system without attributes has none.
pub fn names(file: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let all = match list(file) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTSUP) => Vec::new(),
        other => other?,
    };
    let names = all.split(|&b| b == 0).filter(|name| is_of_images(name));
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// The value of an attribute.
pub fn value(file: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    let mut value = Vec::with_capacity(LONGEST);
    fs::fgetxattr(file, name, spare_capacity(&mut value))?;
    Ok(value)
}

fn is_of_images(name: &[u8]) -> bool {
    name == b"security.capability"
        || [&b"user."[..], b"trusted.", b"system.posix_acl_"]
            .iter()
            .any(|class| name.starts_with(class))
}

/// The names of all attributes, each ended by NUL.
fn list(file: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut small = [0; 256];
    match fs::flistxattr(file, &mut small[..]) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut names = Vec::with_capacity(LONGEST);
            fs::flistxattr(file, spare_capacity(&mut names))?;
            Ok(names)
        }
        Err(error) => Err(error.into()),
    }
}

//! What is mounted where.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

use super::{SystemError, failed};

/// A file system that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The device's number, as `major:minor`.
    pub(super) number: String,
    /// Where.
    pub(super) on: Utf8PathBuf,
}

/// All of them, in the order in which they were mounted.
pub(super) fn all() -> Result<Vec<Mount>, SystemError> {
    let path = Utf8Path::new("/proc/self/mountinfo");
    let table = fs::read_to_string(path).map_err(|error| failed("read", path, error))?;
    Ok(parse(&table).collect())
}

/// Reads a mount table (`proc(5)`, `mountinfo`).
fn parse(table: &str) -> impl Iterator<Item = Mount> {
    table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let number = fields.next()?.to_owned();
        let on = unescaped(fields.nth(1)?);
        Some(Mount { number, on })
    })
}

/// Blanks in mount points are written as `\040` and the like.
fn unescaped(field: &str) -> Utf8PathBuf {
    let path = field
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n");
    path.replace("\\134", "\\").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_tables_are_read() {
        let table = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
                     37 35 7:3 / /a\\040b\\134c rw - ext4 /dev/loop3 rw\n";
        let got: Vec<_> = parse(table).map(|mount| (mount.number, mount.on)).collect();
        let want = [("98:0", "/mnt2"), ("7:3", r"/a b\c")];
        assert_eq!(got, want.map(|(number, on)| (number.to_owned(), on.into())));
    }
}

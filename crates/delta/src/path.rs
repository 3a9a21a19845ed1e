//! Names of archive members: bytes that cannot leave the directory they are joined to.

use std::fmt;

/// A relative path of an archive: bytes, not text, without empty, `.` or `..` parts.
///
/// A leading `./`, doubled and trailing slashes are dropped while parsing, so equal places have
/// equal paths. The empty path is the archive's own root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberPath(Box<[u8]>);

/// Why bytes are no [`MemberPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It begins with `/`.
    #[error("it is absolute")]
    Absolute,
    /// One of its parts is `..`.
    #[error("it has a `..` part")]
    Parent,
    /// It holds a NUL byte, which no file name can.
    #[error("it has a NUL byte")]
    Nul,
    /// One of its parts is longer than any directory can hold.
    #[error("it has a part that is longer than {LONGEST_PART} bytes")]
    Long,
}

/// Longest name in a directory, in bytes, as all of Linux has it.
const LONGEST_PART: usize = 255;

impl MemberPath {
    /// Reads a path as an archive holds it.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.first() == Some(&b'/') {
            return Err(PathError::Absolute);
        }
        Self::parse_rooted(bytes)
    }

    /// Reads a path whose leading slashes mean the archive's root: tools that build images write
    /// such names, a device refuses them.
    pub fn parse_rooted(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut path = Vec::with_capacity(bytes.len());
        for part in bytes.split(|&b| b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(PathError::Parent),
                _ if part.len() > LONGEST_PART => return Err(PathError::Long),
                _ => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(part);
                }
            }
        }
        Ok(Self(path.into()))
    }

    /// The path's bytes; empty for the archive's root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the archive's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds it, and its name there. `None` for the root.
    pub fn split_last(&self) -> Option<(Self, &[u8])> {
        let (parent, name) = split_last(&self.0)?;
        Some((Self(parent.into()), name))
    }

    /// The first part and the rest. `None` for the root.
    pub fn split_first(&self) -> Option<(&[u8], Self)> {
        if self.is_root() {
            return None;
        }
        let mut parts = self.0.splitn(2, |&b| b == b'/');
        let first = parts.next().unwrap_or_default();
        Some((first, Self(parts.next().unwrap_or_default().into())))
    }

    /// Every directory above it, nearest first, without the root.
    pub fn ancestors(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::successors(split_last(&self.0), |(parent, _)| split_last(parent))
            .map(|(parent, _)| parent)
            .filter(|parent| !parent.is_empty())
    }

    /// The path of `self` below the directory `top`.
    #[must_use]
    pub fn below(&self, top: &[u8]) -> Self {
        let mut path = top.to_vec();
        if !self.is_root() {
            path.push(b'/');
            path.extend_from_slice(&self.0);
        }
        Self(path.into())
    }
}

/// The directory part and the last part of a path without empty parts.
fn split_last(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    })
}

/// So that maps keyed by paths can be asked for bytes; order and hash are those of the bytes.
impl std::borrow::Borrow<[u8]> for MemberPath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for MemberPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown(&self.0).fmt(f)
    }
}

impl fmt::Debug for MemberPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberPath({self})")
    }
}

/// A name for people: control bytes and what is not UTF-8 escaped, cut to 200 bytes, because a
/// hostile archive chooses it.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 200;
        let cut = &self.0[..self.0.len().min(LONGEST)];
        for chunk in cut.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        if cut.len() < self.0.len() {
            f.write_str("…")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_places_have_equal_paths() {
        for (text, want) in [
            ("system/etc/", "system/etc"),
            ("./system//etc/.", "system/etc"),
            ("./", ""),
            ("", ""),
        ] {
            let path = MemberPath::parse(text.as_bytes()).unwrap();
            assert_eq!(path.as_bytes(), want.as_bytes(), "{text}");
        }
        assert_eq!(
            MemberPath::parse_rooted(b"//usr/bin").unwrap().as_bytes(),
            b"usr/bin"
        );
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for (text, why) in [
            ("/etc", PathError::Absolute),
            ("system/../x", PathError::Parent),
            ("..", PathError::Parent),
            ("a\0b", PathError::Nul),
            (&"n".repeat(256), PathError::Long),
        ] {
            assert_eq!(MemberPath::parse(text.as_bytes()), Err(why), "{text}");
        }
    }

    #[test]
    fn a_path_is_taken_apart() {
        let path = MemberPath::parse(b"system/usr/bin/x").unwrap();
        let (parent, name) = path.split_last().unwrap();
        assert_eq!(
            (parent.as_bytes(), name),
            (&b"system/usr/bin"[..], &b"x"[..])
        );
        let (first, rest) = path.split_first().unwrap();
        assert_eq!(
            (first, rest.as_bytes()),
            (&b"system"[..], &b"usr/bin/x"[..])
        );
        let above: Vec<_> = path.ancestors().collect();
        assert_eq!(above, [&b"system/usr/bin"[..], b"system/usr", b"system"]);
        assert_eq!(rest.below(b"system"), path);
    }

    #[test]
    fn a_hostile_name_is_shown_short_and_without_controls() {
        let shown = Shown(&[b"a\x1b[31m\xff".as_slice(), &[b'x'; 5000]].concat()).to_string();
        assert!(
            shown.starts_with("a\\u{1b}[31m\\xff") && shown.len() < 300,
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn a_parsed_path_has_plain_parts_only(bytes in proptest::collection::vec(
            prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..40,
        )) {
            if let Ok(path) = MemberPath::parse(&bytes) {
                let plain = |p: &[u8]| !matches!(p, b"" | b"." | b"..") && !p.contains(&0);
                prop_assert!(path.is_root() || path.as_bytes().split(|&b| b == b'/').all(plain));
            }
        }
    }
}

//! A hostile archive, and what must become of it.

use system_image_testkit::xz;

use crate::raw::{Entry, archive};

/// One of the corpus.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Told when it goes wrong.
    pub(crate) name: &'static str,
    /// The tarball as it is signed.
    pub(crate) tarball: Vec<u8>,
    /// The archive in it, if there is one.
    pub(crate) archive: Option<Vec<u8>>,
    pub(crate) end: End,
    /// Only root can find out.
    pub(crate) needs_root: bool,
}

/// What must become of it. Whatever it is: nothing outside of the system and user data changes.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// Refused for its own sake, with these words, whichever way the system is changed.
    Refused(&'static str),
    /// It does not fit the tree that it is laid over: refused with these words while nobody sees it;
    /// where the system is changed directly, the work is interrupted.
    Unfit(&'static str),
    /// Applied; then this is there, by its path on what stays between starts.
    Applied(Vec<(&'static str, Is)>),
    /// Applied with the effect that GNU tar has below the system.
    LikeTar,
    /// Applied, or not, as user data allows.
    Confined,
}

/// What is at a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Is {
    Nothing,
    /// A file that begins with these bytes.
    File(&'static [u8]),
    Link(&'static str),
    Directory,
    BlockDevice,
}

fn case(name: &'static str, entries: &[Entry], end: End) -> Case {
    of(name, archive(entries), end)
}

/// A case of an archive that is given as a whole.
pub(crate) fn of(name: &'static str, archive: Vec<u8>, end: End) -> Case {
    Case {
        name,
        tarball: xz(&archive),
        archive: Some(archive),
        end,
        needs_root: false,
    }
}

/// A case of a tarball that is given as a whole.
pub(crate) fn packed(name: &'static str, tarball: Vec<u8>, end: End) -> Case {
    Case {
        name,
        tarball,
        archive: None,
        end,
        needs_root: false,
    }
}

pub(crate) fn refused(name: &'static str, words: &'static str, entries: &[Entry]) -> Case {
    case(name, entries, End::Refused(words))
}

pub(crate) fn unfit(name: &'static str, words: &'static str, entries: &[Entry]) -> Case {
    case(name, entries, End::Unfit(words))
}

pub(crate) fn applied(name: &'static str, there: &[(&'static str, Is)], entries: &[Entry]) -> Case {
    case(name, entries, End::Applied(there.to_vec()))
}

pub(crate) fn like_tar(name: &'static str, entries: &[Entry]) -> Case {
    case(name, entries, End::LikeTar)
}

pub(crate) fn confined(name: &'static str, entries: &[Entry]) -> Case {
    case(name, entries, End::Confined)
}

impl Case {
    pub(crate) fn for_root(mut self) -> Self {
        self.needs_root = true;
        self
    }
}

//! Applies an update archive to a system tree.

use std::error::Error;
use std::io::{self, Read};
use std::os::fd::AsFd;

use system_image_tree::{Root, remove};

use crate::archive::{Archive, ArchiveError, Member};
use crate::path::{MemberPath, Shown};
use crate::place::Placer;
use crate::route::Route;
use crate::tar::reader::Limits;

/// What the process may do to the tree. The caller decides; nothing is guessed from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// Everything as the archive says.
    Root,
    /// A tree owned by a normal user: owners, devices and attributes outside of `user.` are left
    /// out and counted in [`Skipped`]. For trials, not for devices.
    User,
}

/// The trees that an archive's members go to.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// For `system/…` and what `removed` lists.
    pub system: &'a Root,
    /// For `data/…`; without it those go to the [`Sink`].
    pub data: Option<&'a Root>,
}

impl<'a> From<&'a Root> for Places<'a> {
    fn from(system: &'a Root) -> Self {
        Self { system, data: None }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Paths of `removed` that were there.
    pub removed: u64,
    /// Members placed in the trees.
    pub members: u64,
    /// Bytes of file content placed, holes included.
    pub bytes: u64,
    /// What was left out. All zero with [`Privileges::Root`].
    pub skipped: Skipped,
}

/// What [`Privileges::User`] left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Members whose owner was not set.
    pub owners: u64,
    /// Device nodes not made.
    pub devices: u64,
    /// Extended attributes not set.
    pub xattrs: u64,
}

/// Why an update archive could not be applied. The tree is mixed then and must not be booted;
/// applying the same archive again continues.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The archive is bad. [`check`](crate::archive::check) finds this before any change.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A path of `removed` could not be removed.
    #[error("cannot remove `{path}`")]
    Remove {
        /// The path below the system's root.
        path: MemberPath,
        /// What the kernel said.
        source: io::Error,
    },
    /// A member could not be placed.
    #[error("cannot place `{path}`")]
    Place {
        /// The path below the system's root.
        path: MemberPath,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory with content is where the archive has something else.
    #[error("`{path}` is a directory that is not empty, the archive has something else there")]
    NotEmpty {
        /// The path below the system's root.
        path: MemberPath,
    },
    /// An extended attribute could not be set.
    #[error("cannot set the attribute `{}` of `{path}`", Shown(.name))]
    Xattr {
        /// The path below the system's root.
        path: MemberPath,
        /// The attribute.
        name: Vec<u8>,
        /// What the kernel said.
        source: io::Error,
    },
    /// The [`Sink`] refused a member that goes to none of the trees.
    #[error("cannot take member `{path}`")]
    Elsewhere {
        /// The path in the archive.
        path: MemberPath,
        /// Why it was refused.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl ApplyError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        let source = match self {
            Self::NotEmpty { .. } => {
                return Some("the archive does not fit this system; install the full image");
            }
            Self::Place { source, .. } | Self::Xattr { source, .. } => source,
            _ => return None,
        };
        match source.kind() {
            io::ErrorKind::StorageFull => Some("the system's file system is full"),
            io::ErrorKind::PermissionDenied => Some("this must run as root"),
            io::ErrorKind::Unsupported => {
                Some("the system's file system does not take such attributes")
            }
            io::ErrorKind::CrossesDevices => {
                Some("something is mounted below the system's root; unmount it")
            }
            _ => None,
        }
    }
}

/// The caller's side while an archive is checked or applied.
pub trait Sink {
    /// Gets each member that goes to none of the trees, with its content. Nothing of it is
    /// written unless this writes it; an error ends the run.
    ///
    /// # Errors
    /// Whatever makes the member unacceptable; it becomes [`ApplyError::Elsewhere`].
    fn elsewhere(
        &mut self,
        member: &Member,
        content: &mut dyn Read,
    ) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Gets each file of the system while an archive is only
    /// [checked](crate::archive::check); an error refuses the archive.
    ///
    /// # Errors
    /// Whatever makes the file unacceptable.
    fn system(
        &mut self,
        _member: &Member,
        _content: &mut dyn Read,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }

    /// Called after each path of `removed`, for progress.
    fn removed(&mut self) {}
}

/// Applies an update archive (upgrader spec, section 7) to `trees`.
///
/// `archive` is the decompressed tar stream, read once from front to back. First the paths that
/// its member `removed` lists are deleted, each literally; then members below `system/` and `data/`
/// are placed, and all others go to `sink`. Nothing is synced: the caller does that once, before it
/// forgets that the archive was to be applied. A directory that is no member keeps its time,
/// unless a crash came in between. Memory grows with the number of directories and
/// removals, not with content.
///
/// # Errors
/// See [`ApplyError`]. After an error, or a crash at any point, applying the same archive again
/// leads to the same tree as one undisturbed run.
pub fn apply<'a>(
    archive: impl Read,
    limits: Limits,
    trees: impl Into<Places<'a>>,
    privileges: Privileges,
    sink: &mut dyn Sink,
) -> Result<Applied, ApplyError> {
    let trees = trees.into();
    let mut archive = Archive::open(archive, limits)?;
    let mut placer = Placer::new(trees.system, privileges);
    let mut on_data = trees.data.map(|data| Placer::new(data, privileges));
    let mut applied = Applied::default();
    for path in archive.removed() {
        let removed = remove(&mut placer, path);
        let removed = removed.map_err(|source| ApplyError::Remove {
            path: path.clone(),
            source,
        })?;
        applied.removed += u64::from(removed);
        sink.removed();
    }
    while let Some(member) = archive.next_member()? {
        let bytes = match (&member.route, &mut on_data) {
            (Route::System(path), _) => placer.place(path, &member, archive.content())?,
            (Route::Data(path), Some(placer)) => placer.place(path, &member, archive.content())?,
            _ => {
                sink.elsewhere(&member, archive.content())
                    .map_err(|source| ApplyError::Elsewhere {
                        path: member.path,
                        source,
                    })?;
                continue;
            }
        };
        applied.bytes += bytes;
        applied.members += 1;
    }
    applied.skipped = placer.finish()?;
    if let Some(placer) = on_data {
        let Skipped {
            owners,
            devices,
            xattrs,
        } = placer.finish()?;
        applied.skipped.owners += owners;
        applied.skipped.devices += devices;
        applied.skipped.xattrs += xattrs;
    }
    Ok(applied)
}

/// Links on the way are followed inside the root; a link at the end is removed itself.
fn remove(placer: &mut Placer<'_>, path: &MemberPath) -> io::Result<bool> {
    let Some((parent, name)) = path.split_last() else {
        return Ok(false);
    };
    let Some(directory) = placer.parents.find(&parent)? else {
        return Ok(false);
    };
    placer.parents.keep_off(&directory, name)?;
    placer.enter(&parent, &directory)?;
    placer.parents.forget();
    remove::tree(directory.as_fd(), name)
}

/// Takes nothing and refuses nothing: what goes to none of the trees is left out.
#[derive(Clone, Copy, Debug)]
pub struct LeaveOut;

impl Sink for LeaveOut {
    fn elsewhere(
        &mut self,
        _: &Member,
        _: &mut dyn Read,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

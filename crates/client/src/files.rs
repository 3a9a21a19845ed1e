//! The client's own directories, and files in them that survive a crash whole.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};

/// Mode of every directory that the client makes (client spec, section 16).
const DIRECTORY_MODE: u32 = 0o2700;

/// Makes a directory and those above it, for the client's own eyes.
pub fn make_directory(path: &Utf8Path) -> anyhow::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
    missing
        .into_iter()
        .rev()
        .try_for_each(|path| {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            // The call that makes a directory drops the set-group-id bit.
            fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
        })
        .with_context(|| format!("cannot make the directory `{path}`"))
}

/// Writes a small file, for the client's own eyes, so that a crash leaves the old one or the new.
pub fn replace(path: &Utf8Path, bytes: &[u8]) -> anyhow::Result<()> {
    let failed = || format!("cannot write `{path}`");
    make_directory(path.parent().with_context(failed)?)?;
    system_image_durable::replace(path, bytes, 0o600).with_context(failed)
}

/// The user's cache directory, for what cannot be where it should.
pub fn user_cache() -> Option<Utf8PathBuf> {
    let set = std::env::var("XDG_CACHE_HOME").ok();
    match set.filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None => Some(Utf8PathBuf::from(std::env::var("HOME").ok()?).join(".cache")),
    }
}

/// Bytes that can still be written to the file system of a directory.
pub fn available(directory: &Utf8Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(directory.as_std_path())?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_with_the_specified_mode_and_others_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        let mode = |path: &Utf8Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
        replace(&root.join("a/b/file"), b"x").unwrap();
        make_directory(&root.join("a/b")).unwrap();
        let modes = ["", "a", "a/b", "a/b/file"].map(|path| mode(&root.join(path)));
        assert_eq!(modes, [0o755, 0o2700, 0o2700, 0o600]);
    }
}

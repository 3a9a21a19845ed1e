//! Gives a connection a document and a signature that belong together.
//!
//! Clients fetch the two in two requests, and a publication may come in between. Both members of
//! each version lie in a directory of their own, and the one before the current is kept
//! (`store::Directory`). So a connection remembers, for a few seconds, which file it was given; when
//! the other member is asked for, that is looked up beside the same file. Nothing more is done
//! for the request that comes first: most are answered with "not modified", and have no second.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use system_image_formats::name::TreePath;

use super::files::{Directory, Identity, Published};

/// How long after one of a pair the other one is still given from the same version: time for a
/// slow link to fetch the first one, and not so long that a shared connection of a proxy hands
/// old versions to others.
const REMEMBERED: Duration = Duration::from_secs(10);

/// What one connection was given last. It is remembered once, for the other member.
#[derive(Debug, Default)]
pub(super) struct LastPair(Mutex<Option<Given>>);

#[derive(Debug)]
struct Given {
    path: TreePath,
    identity: Identity,
    at: Instant,
}

impl LastPair {
    /// Opens `path`: beside its other member if that was given just now, and that is no longer the
    /// current one.
    pub(super) async fn open(
        &self,
        tree: &Directory,
        path: &TreePath,
    ) -> std::io::Result<Published> {
        if let Some(given) = self.take_other(path)
            && let Some(published) = beside(tree, &given, path).await
        {
            return Ok(published);
        }
        let published = tree.file(path.relative()).await?;
        if is_paired(path.relative()) {
            *self.lock() = Some(Given {
                path: path.clone(),
                identity: published.identity,
                at: Instant::now(),
            });
        }
        Ok(published)
    }

    fn take_other(&self, path: &TreePath) -> Option<Given> {
        let mut given = self.lock();
        let fits = given.as_ref().is_some_and(|given| {
            let (given_path, path) = (given.path.relative(), path.relative());
            let other = given_path.strip_suffix(".asc") == Some(path)
                || path.strip_suffix(".asc") == Some(given_path);
            other && given.at.elapsed() < REMEMBERED
        });
        fits.then(|| given.take()).flatten()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Given>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Documents that are replaced, and their signatures; side files in the pool are not.
fn is_paired(path: &str) -> bool {
    let document = path.strip_suffix(".asc").unwrap_or(path);
    document.strip_suffix(".json").is_some() && !path.starts_with("pool/")
}

/// The file at `path` in the version that `given` is of, the current one or the one before;
/// `None` if it is of neither, and for documents that another program publishes as plain files.
async fn beside(tree: &Directory, given: &Given, path: &TreePath) -> Option<Published> {
    let (directory, name) = match path.relative().rsplit_once('/') {
        Some((directory, name)) => (format!("{directory}/"), name),
        None => (String::new(), path.relative()),
    };
    let given_name = given.path.relative().rsplit('/').next()?;
    let document = name.strip_suffix(".asc").unwrap_or(name);
    let versions = format!("{directory}.{document}");
    let current: u64 = tree.link(&format!("{versions}/now")).await?.parse().ok()?;
    for version in [Some(current), current.checked_sub(1)]
        .into_iter()
        .flatten()
    {
        let version = tree
            .directory(&format!("{versions}/{version}"))
            .await
            .ok()?;
        if version.file(given_name).await.ok()?.identity == given.identity {
            return version.file(name).await.ok();
        }
    }
    None
}

//! The published tree as the one process that changes it sees it: signed documents go out, and
//! everything that follows a device follows.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::Cursor;
use std::ops::Deref;
use std::os::unix::fs::DirBuilderExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_durable::present;
use system_image_formats::channels::{Channels, DeviceEntry};
use system_image_formats::index::Index;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::time::GeneratedAt;
use system_image_store::{Change, Directory, Overlay, Store};
use tempfile::TempDir;

use crate::history::{Event, History};
use crate::keys::ImageSigner;
use crate::lock::{Lock, Patience};
use crate::published::{Published, channels_path, configuration, device_of};
use crate::root::Root;

/// How a tree is opened for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Keep every change aside and tell what it would have been.
    pub dry_run: bool,
    /// How long to wait for another command.
    pub patience: Patience,
}

/// A tree that this process may change.
#[derive(Debug)]
pub struct Tree {
    published: Published,
    signer: ImageSigner,
    history: Option<History>,
    aside: Option<Arc<Aside>>,
    busy: Busy,
    /// Images that are made at once.
    jobs: AtomicUsize,
    lock: Arc<Lock>,
}

/// Where a dry run's changes go.
#[derive(Debug)]
struct Aside {
    overlay: Arc<Overlay>,
    secrets: Utf8PathBuf,
    _directory: TempDir,
}

impl Aside {
    fn new(root: &Root, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let state = root.state();
        let directory = tempfile::tempdir_in(&state)
            .with_context(|| format!("cannot make a directory in `{state}`"))?;
        let Some(secrets) = Utf8Path::from_path(directory.path()).map(Utf8Path::to_owned) else {
            bail!("`{state}` is not a name in UTF-8");
        };
        copy_files(&root.keys(), &secrets.join("keys"))?;
        copy_files(&root.keyrings(), &secrets.join("keyrings"))?;
        Ok(Self {
            overlay: Arc::new(Overlay::new(store, state)),
            secrets,
            _directory: directory,
        })
    }
}

/// Copies the regular files below a directory, for their owner only.
fn copy_files(from: &Utf8Path, to: &Utf8Path) -> anyhow::Result<()> {
    let failed = || format!("cannot copy `{from}`");
    DirBuilder::new()
        .mode(0o700)
        .create(to)
        .with_context(failed)?;
    let Some(entries) = present(from.read_dir_utf8()).with_context(failed)? else {
        return Ok(());
    };
    for entry in entries {
        let entry = entry.with_context(failed)?;
        let kind = entry.file_type().with_context(failed)?;
        let place = to.join(entry.file_name());
        if kind.is_dir() {
            copy_files(entry.path(), &place)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), place).with_context(failed)?;
        }
    }
    Ok(())
}

/// The files that threads of this process are writing.
#[derive(Debug, Default)]
struct Busy {
    paths: Mutex<BTreeSet<TreePath>>,
    changed: Condvar,
}

/// Held by the only thread that writes a file.
#[derive(Debug)]
#[must_use]
pub struct Alone<'a> {
    busy: &'a Busy,
    path: TreePath,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut paths = self
            .busy
            .paths
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        paths.remove(&self.path);
        self.busy.changed.notify_all();
    }
}

/// While this is held, several images are made at once.
#[derive(Debug)]
#[must_use]
pub struct Sharing<'a>(&'a AtomicUsize);

impl Drop for Sharing<'_> {
    fn drop(&mut self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

impl Deref for Tree {
    type Target = Published;
    fn deref(&self) -> &Published {
        &self.published
    }
}

impl Tree {
    /// Opens the tree of a server that was set up, and locks it. A dry run works on a copy of the
    /// keys and keyrings, too.
    pub fn open(root: &Root, now: i64, opening: Opening) -> anyhow::Result<Self> {
        let config = configuration(root)?;
        let root = Root::configured(root.directory(), &config);
        let lock = Arc::new(Lock::take(&root.state(), opening.patience)?);
        let store: Arc<dyn Store> = Arc::new(Directory::open(root.www())?);
        if !opening.dry_run {
            let published = Published::with(root, config, store, now)?;
            return Self::of(published, None, lock);
        }
        let aside = Aside::new(&root, store)?;
        let root = root.with_secrets(&aside.secrets);
        let store = Arc::clone(&aside.overlay);
        let published = Published::with(root, config, store, now)?;
        Self::of(published, Some(Arc::new(aside)), lock)
    }

    fn of(
        published: Published,
        aside: Option<Arc<Aside>>,
        lock: Arc<Lock>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            signer: ImageSigner::load(published.root(), published.config(), published.now())?,
            history: aside.is_none().then(|| History::of(published.root())),
            published,
            aside,
            busy: Busy::default(),
            jobs: AtomicUsize::new(1),
            lock,
        })
    }

    /// The same tree with its keys and keyrings read again.
    pub fn reopened(&self) -> anyhow::Result<Self> {
        let (root, config) = (self.root().clone(), self.config().clone());
        let published = Published::with(root, config, self.shared_store(), self.now())?;
        Self::of(published, self.aside.clone(), Arc::clone(&self.lock))
    }

    /// What signs.
    pub fn signer(&self) -> &ImageSigner {
        &self.signer
    }

    /// Waits until no other thread of this process writes the file, and keeps others from it.
    pub fn alone_with(&self, path: &TreePath) -> Alone<'_> {
        let busy = &self.busy;
        let mut paths = busy.paths.lock().unwrap_or_else(PoisonError::into_inner);
        while !paths.insert(path.clone()) {
            let woken = busy.changed.wait(paths);
            paths = woken.unwrap_or_else(PoisonError::into_inner);
        }
        Alone {
            busy,
            path: path.clone(),
        }
    }

    /// Divides the configured memory among so many images that are made at once.
    pub fn share_memory(&self, jobs: usize) -> Sharing<'_> {
        self.jobs.store(jobs.max(1), Ordering::Relaxed);
        Sharing(&self.jobs)
    }

    /// Bytes of memory that the making of one image may use: all that is configured, unless several
    /// are made at once.
    pub fn memory(&self) -> u64 {
        self.config().memory / self.jobs.load(Ordering::Relaxed) as u64
    }

    /// In a dry run: what would have changed, by relative path.
    pub fn changes(&self) -> Option<Vec<(String, Change)>> {
        self.aside.as_ref().map(|aside| aside.overlay.changes())
    }

    /// Writes down what was done. A history that cannot be written is told, and no reason to fail
    /// what has already happened.
    pub fn record(&self, event: &Event) {
        if let Some(history) = &self.history
            && let Err(error) = history.append(self.now(), event)
        {
            eprintln!("warning: {error:#}");
        }
    }

    /// Publishes the channels, if they changed or were never published.
    pub fn save_channels(&self, channels: &Channels) -> anyhow::Result<()> {
        if self.document(&channels_path())?.as_deref() != Some(&channels.to_bytes()[..]) {
            self.replace_channels(channels)?;
        }
        Ok(())
    }

    /// Publishes the channels whatever was there before, readable or not.
    pub fn replace_channels(&self, channels: &Channels) -> anyhow::Result<()> {
        let bytes = channels.to_bytes();
        let signature = self.signer.sign(Cursor::new(&bytes))?;
        self.store()
            .replace(&channels_path(), &bytes, signature.as_bytes())?;
        Ok(())
    }

    /// Publishes an index, if something else than its time changed, and tells whether it did.
    /// Every file that it names must be in the store.
    pub fn save_index(&self, entry: &DeviceEntry, mut index: Index) -> anyhow::Result<bool> {
        if let Some(published) = self.index(entry)? {
            index.global.generated_at = published.global.generated_at;
            if index == published {
                return Ok(false);
            }
        }
        index.global.generated_at = GeneratedAt::from_unix(self.now());
        self.resign_index(entry, &index)?;
        Ok(true)
    }

    /// Publishes an index with a new signature, even if nothing in it changed.
    pub fn resign_index(&self, entry: &DeviceEntry, index: &Index) -> anyhow::Result<()> {
        let bytes = index.to_bytes();
        let signature = self.signer.sign(Cursor::new(&bytes))?;
        self.store()
            .replace(&entry.index, &bytes, signature.as_bytes())?;
        Ok(())
    }

    /// The device of a channel that images can be published for.
    pub fn device(
        &self,
        channel: &ChannelName,
        device: &DeviceName,
    ) -> anyhow::Result<DeviceEntry> {
        let channels = self.channels()?;
        let entry = device_of(&channels, channel, device)?;
        let found = self.channel(&channels, channel)?;
        if let Some(target) = &found.alias.as_ref().filter(|target| *target != channel) {
            bail!("channel `{channel}` is an alias of `{target}`, do it there");
        }
        if let Some(target) = found.redirect.as_ref().or(entry.redirect.as_ref()) {
            bail!("`{device}` in channel `{channel}` is redirected to `{target}`, do it there");
        }
        Ok(entry.clone())
    }
}

//! The published tree as the one process that changes it sees it: signed documents go out, and
//! everything that follows a device follows.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::bail;
use system_image_delta_build::patch::Packings;
use system_image_formats::channels::{Channels, DeviceEntry};
use system_image_formats::index::Index;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::time::GeneratedAt;
use system_image_store::{Change, Directory, Store};

use crate::aside::Aside;
use crate::budget::Budget;
use crate::history::{Entry, Event, History};
use crate::hooks;
use crate::keys::ImageSigner;
use crate::lock::{Lock, Patience};
use crate::noticed::Noticed;
use crate::published::{Published, channels_path, configuration, device_of};
use crate::root::Root;

/// How a tree is opened for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Keep every change aside and tell what it would have been.
    pub dry_run: bool,
    /// How long to wait for another command.
    pub patience: Patience,
    /// Images to make at once, if not as configured.
    pub jobs: Option<usize>,
    /// Bytes of memory for compression, if not as configured.
    pub memory: Option<u64>,
}

/// A tree that this process may change.
#[derive(Debug)]
pub struct Tree {
    published: Published,
    signer: ImageSigner,
    history: Option<History>,
    aside: Option<Arc<Aside>>,
    busy: Busy,
    memory: Budget,
    packings: Arc<Packings>,
    /// Whether a document was replaced, which mirrors want to know.
    replaced: Arc<AtomicBool>,
    lock: Arc<Lock>,
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
        let mut config = configuration(root)?;
        config.jobs = opening.jobs.unwrap_or(config.jobs);
        config.memory = opening.memory.unwrap_or(config.memory);
        let root = Root::configured(root.directory(), &config);
        let lock = Arc::new(Lock::take(&root.state(), opening.patience)?);
        let store: Arc<dyn Store> = Arc::new(Directory::open(root.www())?);
        if !opening.dry_run {
            let replaced = Arc::default();
            let store = Arc::new(Noticed::new(store, Arc::clone(&replaced)));
            let published = Published::with(root, config, store, now)?;
            let tree = Self::of(published, None, lock)?;
            return Ok(Self { replaced, ..tree });
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
            memory: Budget::new(published.config().memory),
            published,
            aside,
            busy: Busy::default(),
            packings: Arc::default(),
            replaced: Arc::default(),
            lock,
        })
    }

    /// The same tree with its keys and keyrings read again.
    pub fn reopened(&self) -> anyhow::Result<Self> {
        let (root, config) = (self.root().clone(), self.config().clone());
        let published = Published::with(root, config, self.shared_store(), self.now())?;
        let mut tree = Self::of(published, self.aside.clone(), Arc::clone(&self.lock))?;
        tree.replaced = Arc::clone(&self.replaced);
        tree.packings = Arc::clone(&self.packings);
        Ok(tree)
    }

    /// What signs.
    pub fn signer(&self) -> &ImageSigner {
        &self.signer
    }

    /// The memory that compression may use.
    pub fn memory(&self) -> &Budget {
        &self.memory
    }

    /// What the patches of this process know of each other.
    pub fn packings(&self) -> &Packings {
        &self.packings
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

    /// In a dry run: what would have changed, by relative path.
    pub fn changes(&self) -> Option<Vec<(String, Change)>> {
        self.aside.as_ref().map(|aside| aside.overlay.changes())
    }

    /// Whether readers see something else than before: not in a dry run.
    pub fn has_changed(&self) -> bool {
        self.aside.is_none() && self.replaced.load(Ordering::Relaxed)
    }

    fn publish(&self, path: &TreePath, bytes: &[u8]) -> anyhow::Result<()> {
        let signature = self.signer.sign(Cursor::new(bytes))?;
        self.store().replace(path, bytes, signature.as_bytes())?;
        Ok(())
    }

    /// Writes down what was done, and tells the hooks. A history that cannot be written is told, and
    /// no reason to fail what has already happened.
    pub fn record(&self, event: &Event) {
        let Some(history) = &self.history else {
            return;
        };
        let entry = Entry::new(self.now(), event);
        if let Err(error) = history.append(&entry) {
            eprintln!("warning: {error:#}");
        }
        hooks::run(self.root(), &entry);
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
        self.publish(&channels_path(), &channels.to_bytes())
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
        self.publish(&entry.index, &index.to_bytes())
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

//! The published tree as the one process that changes it sees it: signed documents go out, and
//! everything that follows a device follows.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::bail;
use system_image_formats::channels::{Channels, DeviceEntry};
use system_image_formats::index::Index;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::time::GeneratedAt;
use system_image_store::{Change, Overlay};

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
    overlay: Option<Arc<Overlay>>,
    busy: Busy,
    /// Whether a document was published, which mirrors want to know.
    published_something: AtomicBool,
    _lock: Lock,
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
    /// Opens the tree of a server that was set up, and locks it.
    pub fn open(root: &Root, now: i64, opening: Opening) -> anyhow::Result<Self> {
        let mut overlay = None;
        let state = Root::configured(root.directory(), &configuration(root)?).state();
        let lock = Lock::take(&state, opening.patience)?;
        let published = Published::over(root, now, |store| {
            if !opening.dry_run {
                return store;
            }
            let shared = Arc::new(Overlay::new(store, &state));
            overlay = Some(Arc::clone(&shared));
            Box::new(shared)
        })?;
        let signer = ImageSigner::load(published.root(), now)?;
        Ok(Self {
            history: (!opening.dry_run).then(|| History::of(published.root())),
            published,
            signer,
            overlay,
            busy: Busy::default(),
            published_something: AtomicBool::new(false),
            _lock: lock,
        })
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

    /// In a dry run: what would have changed, by relative path.
    pub fn changes(&self) -> Option<Vec<(String, Change)>> {
        self.overlay.as_ref().map(|overlay| overlay.changes())
    }

    /// Whether readers see something else than before: not in a dry run.
    pub fn has_changed(&self) -> bool {
        self.overlay.is_none() && self.published_something.load(Ordering::Relaxed)
    }

    fn publish(&self, path: &TreePath, bytes: &[u8]) -> anyhow::Result<()> {
        let signature = self.signer.sign(bytes)?;
        self.store().replace(path, bytes, signature.as_bytes())?;
        self.published_something.store(true, Ordering::Relaxed);
        Ok(())
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

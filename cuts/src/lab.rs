//! Where everything happens: a directory in memory that nobody else sees, and what all devices
//! have in common.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use system_image_testkit::Keys;
use tempfile::TempDir;

use crate::device::succeed;

/// The laboratory.
#[derive(Debug)]
pub(crate) struct Lab {
    scratch: TempDir,
    upgrader: PathBuf,
    seed: u64,
}

/// Whether a signal came that asks this to end.
static STOPPED: AtomicBool = AtomicBool::new(false);

impl Lab {
    /// Sets it up, before there is any thread: as root the mounts of this process are its own from
    /// here on, and those of its threads too.
    pub(crate) fn new(upgrader: PathBuf, seed: u64) -> anyhow::Result<Self> {
        ensure!(
            upgrader.is_file(),
            "`{}` is not built: cargo build --workspace",
            upgrader.display()
        );
        succeed(Command::new("strace").arg("--version")).context("strace is needed")?;
        watch_for_signals()?;
        let scratch = tempfile::Builder::new().prefix("cuts-").tempdir()?;
        if is_root() {
            isolate()?;
            mount(c"none", scratch.path(), c"tmpfs", MountFlags::empty(), None)
                .context("cannot mount a file system in memory")?;
        }
        Ok(Self {
            scratch,
            upgrader,
            seed,
        })
    }

    /// A place in its directory.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The program that is tried.
    pub(crate) fn upgrader(&self) -> &Path {
        &self.upgrader
    }

    /// What random choices begin with.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The keys of all devices. They depend on the seed alone, so that what was kept of an earlier
    /// run has them too.
    pub(crate) fn keys(&self) -> Keys {
        Keys::from_rng(&mut ChaCha8Rng::seed_from_u64(self.seed))
    }

    /// Whether somebody wants this to end.
    pub(crate) fn is_stopped() -> bool {
        STOPPED.load(Ordering::Relaxed)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if is_root() {
            let _ = succeed(Command::new("umount").arg(self.scratch.path()));
        }
    }
}

/// Whether devices with partitions can be had.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives the calling thread mounts of its own.
pub(crate) fn isolate() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot have mounts of its own")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("cannot keep mounts to itself")
}

/// Ctrl-C ends the run in order: what is attached is detached, what is mounted is unmounted.
fn watch_for_signals() -> anyhow::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    // In this thread, and in all that it starts; programs get an empty mask.
    signals.thread_block().context("cannot block signals")?;
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            STOPPED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

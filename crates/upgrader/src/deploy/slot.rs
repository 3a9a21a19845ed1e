//! The slot that does not run.
//!
//! It is made equal to the running one where a delta needs that, changed, read back from the disk
//! against a manifest, and then tried out. The manifest of each slot stays: before the next delta it
//! tells whether the base is still what was installed.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};

use camino::Utf8PathBuf;
use system_image_delta::Root;
use system_image_durable as durable;
use system_image_report::Size;
use system_image_slots::{
    BootControl, Grub, Script, SlotName, SystemdBoot, UBoot, running as running_slot,
};
use system_image_tree::manifest::{self, ManifestError};
use system_image_tree::mirror;

use super::{DeployError, Deployment, State, failed};
use crate::config::{BootLoader, Mounted, SlotAt, Slots};
use crate::log;
use crate::storage::{self, Storage};

/// The boot loader of these settings.
pub fn boot_control(slots: &Slots) -> Box<dyn BootControl> {
    let names = slots.names.clone();
    match slots.boot.clone() {
        BootLoader::Grub(path) => Box::new(Grub::new(path, names)),
        BootLoader::SystemdBoot(path) => Box::new(SystemdBoot::new(path, names)),
        BootLoader::UBoot(path) => Box::new(UBoot::new(path, names)),
        BootLoader::Script(path) => Box::new(Script::new(path, names)),
    }
}

/// The slot that runs, as the kernel was told.
pub fn running(slots: &Slots) -> Result<SlotName, DeployError> {
    let text =
        fs::read_to_string(&slots.cmdline).map_err(failed("read the kernel's command line"))?;
    running_slot(&text)
        .filter(|slot| slots.names.contains(slot))
        .ok_or(DeployError::Running)
}

/// The slot that is changed next: the one after the running one.
pub fn target(slots: &Slots) -> Result<SlotName, DeployError> {
    let running = running(slots)?;
    let at = slots.names.iter().position(|name| *name == running);
    let next = at.map(|at| (at + 1) % slots.names.len());
    next.map(|next| slots.names[next].clone())
        .ok_or(DeployError::Running)
}

/// Where the manifest of a slot is while the slot holds a complete system.
pub fn manifest_path(slots: &Slots, slot: &SlotName) -> Utf8PathBuf {
    slots.state.join(format!("slot-{slot}.manifest"))
}

/// The slots, and what is open of them.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    /// The slot that an earlier process sealed.
    sealed: Option<SlotName>,
    open: Option<(Box<dyn Storage>, Root)>,
}

impl Slot {
    /// For the slots of the settings.
    pub fn new(slots: Slots) -> Self {
        Self {
            slots,
            sealed: None,
            open: None,
        }
    }

    fn manifest(&self, slot: &SlotName) -> Utf8PathBuf {
        manifest_path(&self.slots, slot)
    }

    /// Makes `tree` equal to the running system, if that is what was installed.
    fn mirror_base(&self, tree: &Root) -> Result<(), DeployError> {
        let running = running(&self.slots)?;
        let storage = base(&self.slots)?;
        let base = storage.look()?;
        let mirrored = self.verified_base(&running, &base).and_then(|()| {
            mirror(&base, tree).map_err(failed("copy the running system to the other slot"))
        });
        storage.unmount(base)?;
        let done = mirrored?;
        log(&format!(
            "the other slot had {} of the running system, {} were copied",
            Size(done.kept),
            Size(done.copied)
        ));
        Ok(())
    }

    fn verified_base(&self, running: &SlotName, base: &Root) -> Result<(), DeployError> {
        let path = self.manifest(running);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                log("there is no manifest of the running system, as it was installed otherwise");
                return Ok(());
            }
            Err(error) => return Err(failed("read the manifest of the running system")(error)),
        };
        manifest::verify(base, &mut BufReader::new(file)).map_err(DeployError::Base)
    }
    fn write_manifest(&self, slot: &SlotName, tree: &Root) -> Result<(), DeployError> {
        let path = self.manifest(slot);
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.slots.state)?;
            let mut out = BufWriter::new(durable::Staged::create(path.as_std_path(), 0o644)?);
            manifest::write(tree, &mut out)?;
            out.flush()?;
            let staged = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            staged.commit()
        };
        write().map_err(failed("write the manifest of the new system"))
    }
}

impl Deployment for Slot {
    fn check(&self) -> Result<(), DeployError> {
        let target = target(&self.slots)?;
        boot_control(&self.slots).check()?;
        Ok(storage::slot(&self.slots.at, target.as_str())?.check()?)
    }

    fn open(&mut self, is_full: bool, _bytes: u64) -> Result<(), DeployError> {
        let target = target(&self.slots)?;
        // A slot that is about to be changed must not be tried by a power cut.
        let control = boot_control(&self.slots);
        if control.read()?.trial.is_some() {
            control.abandon()?;
        }
        durable::remove(self.manifest(&target)).map_err(failed("remove an old manifest"))?;
        let storage = storage::slot(&self.slots.at, target.as_str())?;
        let root = if is_full {
            storage.format()?;
            storage.mount()?
        } else {
            let mounted = storage.mount().or_else(|error| {
                log(&format!("the other slot is made anew: {error}"));
                storage.format()?;
                storage.mount()
            });
            mounted?
        };
        self.open = Some((storage, root));
        if is_full {
            return Ok(());
        }
        self.mirror_base(self.tree())
    }

    fn tree(&self) -> &Root {
        let (_, root) = self
            .open
            .as_ref()
            .expect("a tree is asked for after it was opened");
        root
    }

    fn seal(&mut self) -> Result<(), DeployError> {
        let target = target(&self.slots)?;
        let tree = self.tree();
        tree.sync()
            .map_err(failed("write the new system to the disk"))?;
        self.write_manifest(&target, tree)?;
        let file = File::open(self.manifest(&target)).map_err(failed("read the manifest"))?;
        manifest::verify(tree, &mut BufReader::new(file)).map_err(|error| match error {
            ManifestError::Io(source) => failed("read the new system back")(source),
            other => DeployError::ReadBack(other),
        })?;
        self.put_away()
    }

    fn commit(&mut self) -> Result<(), DeployError> {
        let target = match &self.sealed {
            // A cut came after the switch: it was tried out already.
            Some(sealed) if *sealed == running(&self.slots)? => return Ok(()),
            Some(sealed) => sealed.clone(),
            None => target(&self.slots)?,
        };
        Ok(boot_control(&self.slots).try_out(&target, self.slots.tries)?)
    }

    fn finish(&mut self) -> Result<(), DeployError> {
        self.put_away()
    }

    fn abandon(&mut self) -> Result<(), DeployError> {
        self.put_away()
    }

    fn put_away(&mut self) -> Result<(), DeployError> {
        match self.open.take() {
            Some((storage, root)) => Ok(storage.unmount(root)?),
            None => Ok(()),
        }
    }

    fn state(&mut self) -> Result<State, DeployError> {
        // One step, which has been taken or not: the running system is whole either way.
        Ok(State::Prepared)
    }

    fn slot(&self) -> Result<Option<SlotName>, DeployError> {
        target(&self.slots).map(Some)
    }

    fn resume(&mut self, slot: Option<SlotName>) {
        self.sealed = slot;
    }
}

/// The running slot, to be looked at: it is mounted elsewhere, as the root of the running system.
pub fn base(slots: &Slots) -> Result<Box<dyn Storage>, DeployError> {
    let running = running(slots)?;
    let at = match &slots.at {
        SlotAt::Directory(_) => slots.at.clone(),
        SlotAt::Device(mounted) => {
            let mountpoint = Utf8PathBuf::from(format!("{}.base", mounted.mountpoint));
            fs::create_dir_all(&mountpoint)
                .map_err(failed("make a mount point for the running system"))?;
            SlotAt::Device(Mounted {
                mountpoint,
                ..mounted.clone()
            })
        }
    };
    Ok(storage::slot(&at, running.as_str())?)
}

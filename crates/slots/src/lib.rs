//! Which slot boots next, and how a new one is tried out.
//!
//! A device has two or more slots for its system, and one of them runs. Whoever writes a system
//! into another slot makes one switch, [`BootControl::try_out`]: from then on the boot loader
//! starts that slot, notes each try before it makes it, and goes back to the default by itself
//! when the tries are used up. The new system calls [`BootControl::confirm`] when it is well.
//!
//! One back end for each boot loader keeps the [`Boot`] where that loader finds it. How the slots
//! are laid out, what is in them and when a system is well are left to the caller.

mod boot;
mod error;
mod grub;
mod program;
mod running;
mod script;
mod set;
mod systemd;
mod uboot;

use std::fmt;

pub use system_image_formats::name::{NameError, SlotName};

pub use self::boot::{Boot, Trial};
pub use self::error::BootError;
pub use self::grub::Grub;
pub use self::running::running;
pub use self::script::Script;
pub use self::systemd::SystemdBoot;
pub use self::uboot::UBoot;

/// What a boot loader will do, and how to change it.
///
/// Two callers at once are not kept apart: the last one wins. Every change is on the disk when its
/// call returns, and one that would change nothing writes nothing.
pub trait BootControl: fmt::Debug {
    /// What the boot loader will do, as far as it is written down.
    fn read(&self) -> Result<Boot, BootError>;

    /// Makes `slot` boot next, at most `tries` (at least 1) times, and the present default again
    /// after that. The default itself is not tried: it boots, and a trial is over.
    ///
    /// One atomic step: after a cut, the state is the old or the new one.
    ///
    /// # Errors
    /// Among others, when [`read`](Self::read) has one: it would have to be guessed what boots after
    /// the trial. [`confirm`](Self::confirm) needs no such guess.
    fn try_out(&self, slot: &SlotName, tries: u8) -> Result<(), BootError>;

    /// `slot` boots from now on; a trial is over.
    fn confirm(&self, slot: &SlotName) -> Result<(), BootError>;

    /// A trial is over, and the default boots.
    fn abandon(&self) -> Result<(), BootError>;

    /// Whether what this needs is there: files, tools, entries. Nothing is changed.
    fn check(&self) -> Result<(), BootError>;
}

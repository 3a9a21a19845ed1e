//! What every back end does with its boot loader: one story for all of them, told with the real
//! boot loader or its tools where these run on this machine.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panic")]

mod cuts;
mod grub;
mod model;
mod script;
mod systemd;
mod uboot;

use std::path::{Path, PathBuf};
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use system_image_slots::{Boot, BootControl, BootError, SlotName, Trial};

/// A device that can be switched on.
trait Device {
    fn control(&self) -> &dyn BootControl;

    /// Boots once, and tells the slot that the boot loader starts.
    fn boot(&mut self) -> String;

    /// As many tries as the boot loader can count, or 3.
    fn tries(&self) -> u8 {
        3
    }
}

/// Slots `a` and `b`; nothing has been written down yet.
fn conforms(device: &mut impl Device) {
    let (a, b) = (slot("a"), slot("b"));
    let tries = device.tries();
    let boots = |device: &mut dyn Device, slot: &str| {
        let state = device.control().read();
        assert_eq!(device.boot(), slot, "with {state:?}");
    };
    let is = |device: &dyn Device, boot: Boot| assert_eq!(device.control().read().unwrap(), boot);

    // Nothing yet: the first slot boots.
    device.control().check().unwrap();
    is(device, always("a"));
    boots(device, "a");

    // A new slot boots next; once it is confirmed, it stays.
    device.control().try_out(&b, tries).unwrap();
    is(device, trying("a", "b", tries));
    device.control().try_out(&b, tries).unwrap();
    is(device, trying("a", "b", tries));
    boots(device, "b");
    is(device, trying("a", "b", tries - 1));
    device.control().confirm(&b).unwrap();
    is(device, always("b"));
    boots(device, "b");
    device.control().check().unwrap();

    // Tries that fail are counted, and after them the default boots.
    device.control().try_out(&a, tries).unwrap();
    for left in (0..tries).rev() {
        boots(device, "a");
        is(device, trying("b", "a", left));
    }
    boots(device, "b");
    boots(device, "b");
    is(device, trying("b", "a", 0));

    // After a failed trial there can be another one, and its last try can be confirmed.
    device.control().try_out(&a, 1).unwrap();
    is(device, trying("b", "a", 1));
    boots(device, "a");
    is(device, trying("b", "a", 0));
    device.control().confirm(&a).unwrap();
    is(device, always("a"));
    boots(device, "a");

    // A trial can be begun again, and abandoned.
    device.control().try_out(&b, tries).unwrap();
    boots(device, "b");
    device.control().try_out(&b, tries).unwrap();
    is(device, trying("a", "b", tries));
    boots(device, "b");
    device.control().abandon().unwrap();
    is(device, always("a"));
    boots(device, "a");
    device.control().abandon().unwrap();
    is(device, always("a"));

    // A trial of the default is none, and so is one while the default is confirmed.
    device.control().try_out(&b, tries).unwrap();
    device.control().try_out(&a, tries).unwrap();
    is(device, always("a"));
    boots(device, "a");
    device.control().try_out(&b, tries).unwrap();
    device.control().confirm(&a).unwrap();
    is(device, always("a"));
    boots(device, "a");

    // What makes no sense changes nothing.
    let unknown = device.control().try_out(&slot("c"), tries).unwrap_err();
    assert!(matches!(unknown, BootError::Unknown { .. }), "{unknown:?}");
    let unknown = device.control().confirm(&slot("c")).unwrap_err();
    assert!(matches!(unknown, BootError::Unknown { .. }), "{unknown:?}");
    let none = device.control().try_out(&b, 0).unwrap_err();
    assert!(matches!(none, BootError::NoTries), "{none:?}");
    is(device, always("a"));
}

fn slot(name: &str) -> SlotName {
    name.parse().unwrap()
}

fn slots(names: &[&str]) -> Vec<SlotName> {
    names.iter().map(|name| slot(name)).collect()
}

fn always(default: &str) -> Boot {
    Boot {
        default: slot(default),
        trial: None,
    }
}

fn trying(default: &str, trial: &str, left: u8) -> Boot {
    Boot {
        trial: Some(Trial {
            slot: slot(trial),
            left,
        }),
        ..always(default)
    }
}

fn utf8(path: &Path) -> &Utf8Path {
    path.try_into().unwrap()
}

/// The file of this repository's `dist/boot`.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../dist/boot")
        .join(name)
}

/// Whether these programs or files are there; if not, says so.
fn are_there(names: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<_> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin".into(), "/sbin".into()]);
    let is_there = |name: &&&str| places.iter().any(|place| place.join(name).exists());
    let missing: Vec<_> = names.iter().filter(|name| !is_there(name)).collect();
    if !missing.is_empty() {
        eprintln!("not tested here, without {missing:?}; `cargo xtask setup` installs them");
    }
    missing.is_empty()
}

/// A virtual machine, emulated, with its serial port on standard input and output. Instead of a
/// restart it ends, and so it does after a minute.
fn qemu(megabytes: u32) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "qemu-system-x86_64", "-accel", "tcg", "-m"]);
    command.arg(megabytes.to_string());
    command.args(["-nodefaults", "-vga", "none", "-display", "none"]);
    command.args(["-serial", "stdio", "-no-reboot"]);
    command
}

/// Runs a program that must succeed; its standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[test]
fn a_device_without_two_slots_has_no_boot_control() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name| -> Utf8PathBuf { utf8(dir.path()).join(name) };
    for names in [&[][..], &["a"], &["a", "b", "a"]] {
        let backends: [Box<dyn BootControl>; 4] = [
            Box::new(system_image_slots::Grub::new(
                grub::empty_block(dir.path()),
                slots(names),
            )),
            Box::new(system_image_slots::SystemdBoot::new(
                path("x"),
                slots(names),
            )),
            Box::new(system_image_slots::UBoot::new(None, slots(names))),
            Box::new(system_image_slots::Script::new(path("x"), slots(names))),
        ];
        for backend in backends {
            let error = backend.read().unwrap_err();
            assert!(
                matches!(error, BootError::Slots(_)),
                "{backend:?}: {error:?}"
            );
            let error = backend.try_out(&slot("a"), 1).unwrap_err();
            assert!(
                matches!(error, BootError::Slots(_)),
                "{backend:?}: {error:?}"
            );
        }
    }
}

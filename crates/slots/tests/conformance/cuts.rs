//! What a power cut can leave: whatever of the steps of a change is on the disk, the state is the
//! old or the new one, the boot loader does what the state says, and the change can be made again.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use system_image_slots::BootControl;

use crate::grub::{leave, place};
use crate::{Device, always, grub, slot, systemd, trying, uboot};

type Change = fn(&dyn BootControl);

/// Each change that makes a difference, from a trial of `b` that has been tried once.
const CHANGES: [Change; 5] = [
    |control| control.try_out(&slot("b"), 3).unwrap(),
    |control| control.try_out(&slot("b"), 9).unwrap(),
    |control| control.confirm(&slot("b")).unwrap(),
    |control| control.confirm(&slot("a")).unwrap(),
    |control| control.abandon().unwrap(),
];

const BEGIN: Change = |control| control.try_out(&slot("b"), 3).unwrap();

#[test]
fn grub_has_the_old_block_or_the_new_one() {
    for (begun, change) in CHANGES
        .map(|change| (true, change))
        .into_iter()
        .chain([(false, BEGIN)])
    {
        let mut device = grub::Emulated::new(&["a", "b"]);
        // What others have reaches into the second sector.
        grub::block(
            device.dir.path(),
            &format!("kernelopts={}\n", "x".repeat(600)),
        );
        if begun {
            BEGIN(device.control());
            device.boot();
        }
        let path = device.grubenv();
        let (old, old_place) = (fs::read(&path).unwrap(), place(&path));
        let before = device.grub.read().unwrap();
        change(device.control());
        let (new, new_place) = (fs::read(&path).unwrap(), place(&path));
        let after = device.grub.read().unwrap();

        let sectors = old.chunks(512).zip(new.chunks(512));
        let changed = sectors.filter(|(old, new)| old != new).count();
        if begun {
            assert_eq!((changed, new_place), (1, old_place), "one sector, in place");
            continue;
        }
        // The first change lays the block out, in a new file.
        assert_ne!(new_place, old_place);
        let staged = path.with_file_name("grubenv.new");
        for written in (0..=new.len()).step_by(64) {
            fs::write(&path, &old).unwrap();
            leave(&staged, &new[..written]);
            assert_eq!(device.grub.read().unwrap(), before);
            assert_eq!(device.boot(), before.next().as_str());
            change(device.control());
            assert_eq!(device.grub.read().unwrap(), after);
            assert!(!staged.exists());
        }
    }
}

#[test]
fn systemd_boot_has_the_old_state_or_the_new_one_with_any_leftover() {
    for (begun, change) in CHANGES
        .map(|change| (true, change))
        .into_iter()
        .chain([(false, BEGIN)])
    {
        let mut device = systemd::Emulated::new(&["a", "b"]);
        if begun {
            BEGIN(device.control());
            device.boot();
        }
        let old = files(&device);
        let before = device.systemd.read().unwrap();
        change(device.control());
        let new = files(&device);
        let after = device.systemd.read().unwrap();

        // First comes what is new, half written under its temporary name, then whole; names that go
        // are removed after that, in any order.
        let mut states = vec![old.clone()];
        for (name, text) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            for written in [0, text.len() / 2, text.len()] {
                let mut state = old.clone();
                state.insert(format!("{name}.new"), text[..written].to_owned());
                states.push(state);
            }
            let mut state = old.clone();
            state.insert(name.clone(), text.clone());
            states.push(state.clone());
            for gone in old.keys().filter(|name| !new.contains_key(*name)) {
                state.remove(gone);
                states.push(state.clone());
            }
        }
        assert!(states.len() > 4, "{old:?} {new:?}");
        for state in states {
            put(&device, &state);
            let read = device.systemd.read().unwrap();
            assert!(read == before || read == after, "{state:?}: {read:?}");
            assert_eq!(device.boot(), read.next().as_str(), "{state:?}");

            put(&device, &state);
            change(device.control());
            assert_eq!(device.systemd.read().unwrap(), after, "{state:?}");
            assert_eq!(device.boot(), after.next().as_str(), "{state:?}");
        }
    }
}

/// A file system without a journal can lose both names of a file that is renamed.
#[test]
fn systemd_boot_boots_the_default_when_the_entry_on_trial_is_lost() {
    let mut device = systemd::Emulated::new(&["a", "b"]);
    BEGIN(device.control());
    fs::remove_file(device.entries().join("system-image-b+3.conf")).unwrap();
    assert_eq!(device.systemd.read().unwrap(), always("a"));
    assert_eq!(device.boot(), "a");
    assert!(device.systemd.check().is_err());
}

#[test]
fn u_boot_has_the_old_environment_or_the_new_one_after_each_sector() {
    for change in CHANGES {
        let Some(mut device) = uboot::Real::new(2) else {
            return;
        };
        BEGIN(device.control());
        device.boot();
        let path = device.path("environment");
        let old = fs::read(&path).unwrap();
        let before = device.uboot.read().unwrap();
        change(device.control());
        let new = fs::read(&path).unwrap();
        let after = device.uboot.read().unwrap();
        let differs = |at: &usize| old[*at..at + 512] != new[*at..at + 512];
        let changed: Vec<_> = (0..old.len()).step_by(512).filter(differs).collect();
        let mut seen = [0, 0];
        for written in 0..=changed.len() {
            let mut state = old.clone();
            for at in &changed[..written] {
                state[*at..at + 512].copy_from_slice(&new[*at..at + 512]);
            }
            fs::write(&path, state).unwrap();
            let read = device.uboot.read().unwrap();
            assert!(read == before || read == after, "{written}: {read:?}");
            seen[usize::from(read == after)] += 1;
        }
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_block_is_an_error_or_what_grub_boots(
        lines in "((system_image_(slot|trial|left)=|[ab01\n#\\\\x]){0,12}\n){0,4}",
    ) {
        let mut device = grub::Emulated::new(&["a", "b"]);
        let mut bytes = b"# GRUB Environment Block\n".to_vec();
        bytes.extend(lines.as_bytes());
        bytes.resize(bytes.len().max(1024), b'#');
        fs::write(device.grubenv(), bytes).unwrap();
        // An escaped line end is where the emulation's reading of lines ends.
        if let Ok(boot) = device.grub.read() && !lines.contains('\\') {
            prop_assert_eq!(device.boot(), boot.next().as_str());
        }
        if device.grub.confirm(&slot("b")).is_ok() {
            prop_assert_eq!(device.grub.read().unwrap(), always("b"));
        }
    }

    #[test]
    fn any_names_of_entries_are_an_error_or_what_systemd_boot_boots(
        names in prop::collection::btree_map("[ab](\\+[0-2](-[0-2])?)?", 0u64..4, 0..4),
    ) {
        let mut device = systemd::Emulated::new(&["a", "b"]);
        device.is_foreign = true;
        let state = names.iter().map(|(name, version)| {
            let slot = &name[..1];
            let text = format!(
                "sort-key system-image\nversion {version}\nlinux x\noptions system_image.slot={slot}\n"
            );
            (format!("system-image-{name}.conf"), text)
        });
        let state = state.collect();
        put(&device, &state);
        if let Ok(boot) = device.systemd.read() {
            prop_assert_eq!(device.boot(), boot.next().as_str());
        }
        put(&device, &state);
        if device.systemd.try_out(&slot("b"), 1).is_ok() {
            let boot = device.systemd.read().unwrap();
            prop_assert_eq!(boot.next(), &slot("b"));
            prop_assert_eq!(device.boot(), "b");
        }
        put(&device, &state);
        if device.systemd.confirm(&slot("b")).is_ok() {
            prop_assert_eq!(device.systemd.read().unwrap(), always("b"));
            prop_assert_eq!(device.boot(), "b");
        }
    }
}

type Files = BTreeMap<String, String>;

fn files(device: &systemd::Emulated) -> Files {
    let read = |name: &String| fs::read_to_string(device.entries().join(name)).unwrap();
    let names = device.names().into_iter();
    names.map(|name| (name.clone(), read(&name))).collect()
}

fn put(device: &systemd::Emulated, state: &Files) {
    for name in device.names() {
        fs::remove_file(device.entries().join(name)).unwrap();
    }
    for (name, text) in state {
        fs::write(device.entries().join(name), text).unwrap();
    }
}

#[test]
fn a_trial_begun_twice_is_one() {
    let device = systemd::Emulated::new(&["a", "b"]);
    BEGIN(device.control());
    let files_then = files(&device);
    BEGIN(device.control());
    assert_eq!(files(&device), files_then);
    assert_eq!(device.systemd.read().unwrap(), trying("a", "b", 3));
}

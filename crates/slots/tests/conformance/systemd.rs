//! systemd-boot: a loader that follows the Boot Loader Specification and its boot counting, and the
//! real one in a virtual machine.

use std::cmp::Reverse;
use std::fs;
use std::process::Command;

use camino::Utf8PathBuf;
use system_image_slots::{BootControl, BootError, SystemdBoot};
use tempfile::TempDir;

use crate::{Device, always, are_there, conforms, qemu, run, slot, slots, trying, utf8};

pub(crate) struct Emulated {
    pub(crate) dir: TempDir,
    pub(crate) systemd: SystemdBoot,
    /// Others have written names that meet.
    pub(crate) is_foreign: bool,
}

impl Emulated {
    /// As an integrator sets it up: the first slot has the highest version.
    pub(crate) fn new(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let entries = dir.path().join("loader/entries");
        fs::create_dir_all(&entries).unwrap();
        fs::write(entries.join("other.conf"), "title Other\nlinux /other\n").unwrap();
        for (place, name) in names.iter().enumerate() {
            let text = format!(
                "title System {name}\nsort-key system-image\nversion {}\n\
                 linux /{name}/vmlinuz\noptions quiet system_image.slot={name}\n",
                names.len() - place
            );
            fs::write(entries.join(format!("system-image-{name}.conf")), text).unwrap();
        }
        let systemd = SystemdBoot::new(utf8(dir.path()).to_owned(), slots(names));
        Self {
            dir,
            systemd,
            is_foreign: false,
        }
    }

    pub(crate) fn entries(&self) -> Utf8PathBuf {
        utf8(self.dir.path()).join("loader/entries")
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.entries()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "other.conf").collect();
        names.sort();
        names
    }
}

impl Device for Emulated {
    fn control(&self) -> &dyn BootControl {
        &self.systemd
    }

    fn boot(&mut self) -> String {
        let mut menu = Vec::new();
        for item in fs::read_dir(self.entries()).unwrap() {
            let path = Utf8PathBuf::try_from(item.unwrap().path()).unwrap();
            let Some(stem) = path.file_name().unwrap().strip_suffix(".conf") else {
                continue;
            };
            let text = fs::read_to_string(&path).unwrap();
            let key = |key: &str| {
                let value = text.lines().find_map(|line| line.strip_prefix(key));
                value.map(|value| value.trim().to_owned())
            };
            if key("linux ").is_none() {
                continue;
            }
            let (id, counter) = match stem.split_once('+') {
                Some((id, counter)) => {
                    let (left, made) = counter.split_once('-').unwrap_or((counter, "0"));
                    let number = |text: &str| text.parse::<u32>().unwrap();
                    (id.to_owned(), Some((number(left), number(made))))
                }
                None => (stem.to_owned(), None),
            };
            let bad = counter.is_some_and(|(left, _)| left == 0);
            let version = key("version ").map(|text| text.parse::<u64>().unwrap());
            let sort = key("sort-key ");
            let order = (
                bad,
                sort.is_none(),
                sort,
                Reverse(version),
                Reverse(id.clone()),
            );
            let slot = key("options ").and_then(|options| {
                let value = options
                    .split(' ')
                    .find_map(|x| x.strip_prefix("system_image.slot="));
                value.map(str::to_owned)
            });
            menu.push((order, path, id, counter, slot));
        }
        menu.sort();
        let (_, path, id, counter, slot) = menu.into_iter().next().unwrap();
        if let Some((left @ 1.., made)) = counter {
            let name = format!("{id}+{}-{}.conf", left - 1, made + 1);
            let new = path.with_file_name(name);
            // A firmware's file system refuses this, and the boot loader goes on without counting.
            assert!(self.is_foreign || !new.exists(), "{new} is there");
            fs::rename(path, new).unwrap();
        }
        slot.expect("another entry has booted")
    }
}

/// What a machine with real systemd-boot is made of.
const TOOLS: [&str; 8] = [
    "qemu-system-x86_64",
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
    "/usr/lib/grub/x86_64-efi/moddep.lst",
    "grub-mkimage",
    "mformat",
    "mcopy",
    "timeout",
];

/// The slots of that machine.
const SLOTS: [&str; 3] = ["a", "b", "c"];

/// Puts the files of `device` on a disk, boots it, and gets the entries back. Instead of a kernel,
/// each slot has a GRUB that tells its slot on the serial port.
fn boot_really(device: &Emulated) -> String {
    let work = tempfile::tempdir().unwrap();
    let path = |name: &str| utf8(work.path()).join(name);
    let disk = path("disk");
    fs::File::create(&disk).unwrap().set_len(8 << 20).unwrap();
    let mtool = |name: &str| {
        let mut command = Command::new(name);
        command.arg("-i").arg(&disk);
        command
    };
    run(mtool("mformat").args(["-T", "16384", "-h", "16", "-s", "32", "::"]));
    for name in SLOTS {
        let config = format!("serial\nterminal_output serial\necho boots={name};\nreboot\n");
        fs::write(path("config"), config).unwrap();
        let image = device.dir.path().join(name);
        fs::create_dir_all(&image).unwrap();
        run(Command::new("grub-mkimage")
            .args(["-O", "x86_64-efi", "-p", "/", "-c"])
            .arg(path("config"))
            .arg("-o")
            .arg(image.join("grub.efi"))
            .args(["serial", "terminal", "echo", "reboot"]));
    }
    let boot = device.dir.path().join("EFI/BOOT");
    fs::create_dir_all(&boot).unwrap();
    fs::copy(TOOLS[2], boot.join("BOOTX64.EFI")).unwrap();
    fs::write(device.dir.path().join("loader/loader.conf"), "timeout 0\n").unwrap();
    for name in ["EFI", "loader"].into_iter().chain(SLOTS) {
        run(mtool("mcopy")
            .arg("-s")
            .arg(device.dir.path().join(name))
            .arg("::/"));
    }

    let mut machine = qemu(128);
    machine.arg("-drive").arg(format!(
        "if=pflash,readonly=on,format=raw,file={}",
        TOOLS[1]
    ));
    machine.arg("-drive").arg(format!("format=raw,file={disk}"));
    let output = run(&mut machine);
    let (_, rest) = output.split_once("boots=").expect(&output);

    fs::remove_dir_all(device.entries()).unwrap();
    run(mtool("mcopy")
        .args(["-s", "::/loader/entries"])
        .arg(device.dir.path().join("loader")));
    rest.split(';').next().unwrap().to_owned()
}

/// Its firmware takes seconds to start, so this is one boot that shows all: the trial is before the
/// default, what has failed is behind both whatever its version is, and the try is counted.
#[test]
fn real_systemd_boot_sorts_and_counts() {
    if !are_there(&TOOLS) {
        return;
    }
    let device = Emulated::new(&SLOTS);
    for name in device.names() {
        let path = device.entries().join(name);
        let text = fs::read_to_string(&path).unwrap();
        let text = text
            .replace("linux ", "efi ")
            .replace("vmlinuz", "grub.efi");
        fs::write(path, text).unwrap();
    }
    device.systemd.check().unwrap();
    device.systemd.try_out(&slot("b"), 2).unwrap();
    let path = |name: &str| device.entries().join(name);
    let text = fs::read_to_string(path("system-image-c.conf")).unwrap();
    let text = text.replace("version 1", "version 9");
    fs::write(path("system-image-c+0-3.conf"), text).unwrap();
    assert_eq!(device.systemd.read().unwrap(), trying("a", "b", 2));
    assert_eq!(boot_really(&device), "b");
    assert_eq!(device.systemd.read().unwrap(), trying("a", "b", 1));
    assert!(path("system-image-b+1-1.conf").exists());
}

#[test]
fn emulated_systemd_boot() {
    let mut device = Emulated::new(&["a", "b"]);
    conforms(&mut device);
    assert_eq!(
        device.names(),
        ["system-image-a.conf", "system-image-b+0.conf"]
    );
}

#[test]
fn a_trial_that_is_blessed_by_systemd_is_confirmed() {
    let mut device = Emulated::new(&["a", "b"]);
    device.systemd.try_out(&slot("b"), 3).unwrap();
    assert_eq!(device.boot(), "b");
    // What systemd-bless-boot does.
    let name = |name: &str| device.entries().join(name);
    fs::rename(name("system-image-b+2-1.conf"), name("system-image-b.conf")).unwrap();
    assert_eq!(device.systemd.read().unwrap(), always("b"));
    device.systemd.confirm(&slot("b")).unwrap();
    assert_eq!(
        device.names(),
        ["system-image-a.conf", "system-image-b.conf"]
    );
}

#[test]
fn check_finds_what_would_make_another_slot_boot() {
    let device = Emulated::new(&["a", "b"]);
    let name = |name: &str| device.entries().join(name);
    let text = fs::read_to_string(name("system-image-b.conf")).unwrap();
    for (from, to) in [
        ("version 1", "version 2"),
        ("sort-key system-image", "sort-key debian"),
        ("linux ", "machine-id 0\nlinux "),
    ] {
        fs::write(name("system-image-b.conf"), text.replace(from, to)).unwrap();
        let error = device.systemd.check().unwrap_err();
        assert!(matches!(error, BootError::SetUp { .. }), "{to}: {error:?}");
    }
    fs::write(name("system-image-b.conf"), "").unwrap();
    let error = device.systemd.check().unwrap_err();
    assert!(matches!(error, BootError::NoEntry { .. }), "{error:?}");
    let error = device.systemd.try_out(&slot("b"), 1).unwrap_err();
    assert!(matches!(error, BootError::NoEntry { .. }), "{error:?}");
    fs::write(name("system-image-b.conf"), &text).unwrap();
    let conf = utf8(device.dir.path()).join("loader/loader.conf");
    for (line, fits) in [
        ("default other.conf", false),
        ("default system-image-*", true),
    ] {
        fs::write(&conf, format!("timeout 3\n{line}\n")).unwrap();
        assert_eq!(device.systemd.check().is_ok(), fits, "{line}");
    }
}

#[test]
fn confirming_gets_out_of_a_menu_in_which_every_entry_counts() {
    let device = Emulated::new(&["a", "b"]);
    let name = |name: &str| device.entries().join(name);
    for slot in ["a", "b"] {
        let (old, new) = (
            format!("system-image-{slot}.conf"),
            format!("system-image-{slot}+1.conf"),
        );
        fs::rename(name(&old), name(&new)).unwrap();
    }
    let error = device.systemd.read().unwrap_err();
    assert!(matches!(error, BootError::Damaged { .. }), "{error:?}");
    device.systemd.confirm(&slot("b")).unwrap();
    assert_eq!(device.systemd.read().unwrap(), always("b"));
    device.systemd.try_out(&slot("a"), 2).unwrap();
    assert_eq!(device.systemd.read().unwrap(), trying("b", "a", 2));
}

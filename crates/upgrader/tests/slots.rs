//! A device with slots: deployed into the one that does not run, tried, confirmed, left again.
#![allow(clippy::unwrap_used, reason = "a helper that fails ends its test")]
#![allow(
    clippy::unnecessary_debug_formatting,
    reason = "a path in quotes is a string of TOML"
)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use support::{Device, device, expected, outcome};
use system_image_slots::{BootControl, Grub};
use system_image_testkit::LoopDevice;
use system_image_testkit::tree::{Snapshot, Tree, assert_equal, snapshot};

fn one() -> Tree {
    Tree::new()
        .dir("etc")
        .file("etc/build", "1\n")
        .file("etc/same", vec![3; 5000])
        .hard_link("etc/also", "etc/same")
        .symlink("lib", "usr/lib")
        .dir("gone")
        .file("gone/x", "x")
}

fn two() -> Tree {
    one()
        .without("gone")
        .file("etc/build", "2\n")
        .dir("lib")
        .file("lib/x", "x")
}

fn want(tree: &Tree) -> Snapshot {
    let fresh = tempfile::tempdir().unwrap();
    expected(tree, fresh.path());
    snapshot(fresh.path())
}

/// A device with slots a and b, on partitions or in directories, whose boot loader is GRUB.
struct Slotted {
    device: Device,
    partitions: Vec<LoopDevice>,
}

impl Slotted {
    /// In directories, with these lines in `[slots]`.
    fn new(slots: &str) -> Self {
        let device = device();
        for slot in ["a", "b"] {
            fs::create_dir(device.path(&format!("slot-{slot}"))).unwrap();
        }
        let place = format!("directory = {:?}", device.path("slot-{slot}"));
        Self::of(device, &place, slots, Vec::new())
    }

    /// On partitions; none without root.
    fn on_partitions() -> Option<Self> {
        let partitions = [LoopDevice::attach(32 << 20)?, LoopDevice::attach(32 << 20)?];
        let device = device();
        for (slot, partition) in ["a", "b"].iter().zip(&partitions) {
            std::os::unix::fs::symlink(&partition.path, device.path(&format!("part-{slot}")))
                .unwrap();
            let made = Command::new("mkfs.ext4")
                .args(["-q", &partition.path])
                .status();
            assert!(made.unwrap().success());
        }
        let place = format!(
            "device = {:?}\nmountpoint = {:?}",
            device.path("part-{slot}"),
            device.system()
        );
        Some(Self::of(device, &place, "", partitions.into()))
    }

    fn of(device: Device, place: &str, slots: &str, partitions: Vec<LoopDevice>) -> Self {
        for slot in ["a", "b"] {
            fs::write(device.path(&format!("boot-{slot}")), [0; 100]).unwrap();
        }
        let mut grubenv = b"# GRUB Environment Block\n".to_vec();
        grubenv.resize(1024, b'#');
        fs::write(device.path("grubenv"), grubenv).unwrap();
        device.configure(&format!(
            "{place}\n[partitions]\nboot = {:?}\n[slots]\nnames = [\"a\", \"b\"]\nboot = \"grub\"\nat = {:?}\n\
             cmdline = {:?}\n{slots}",
            device.path("boot-{slot}"),
            device.path("grubenv"),
            device.path("cmdline"),
        ));
        let slotted = Self { device, partitions };
        slotted.run("a");
        slotted
    }

    /// What the boot loader does: the slot runs from now on.
    fn run(&self, slot: &str) {
        let cmdline = format!("root=/dev/x quiet system_image.slot={slot}\n");
        fs::write(self.device.path("cmdline"), cmdline).unwrap();
    }

    fn grub(&self) -> Grub {
        let names = ["a", "b"].map(|name| name.parse().unwrap()).to_vec();
        Grub::new(self.device.path("grubenv").try_into().unwrap(), names)
    }

    /// Starts the device: the boot loader's count goes down with each try.
    fn boot(&self) -> String {
        let boot = self.grub().read().unwrap();
        let next = boot.next().to_string();
        if let Some(trial) = &boot.trial
            && trial.left > 0
        {
            // As `dist/boot/grub.cfg` notes a try before it is made.
            let path = self.device.path("grubenv");
            let old = fs::read_to_string(&path).unwrap();
            let left = "system_image_left=";
            let at = old.find(left).unwrap() + left.len();
            let end = at + old[at..].find('\n').unwrap();
            let fewer = &old[at..end - 1];
            let mut new = format!("{}{fewer}{}", &old[..at], &old[end..]);
            new.push('#');
            fs::write(&path, new).unwrap();
        }
        self.run(&next);
        next
    }

    fn tree(&self, slot: &str) -> Snapshot {
        match self.partitions.get(usize::from(slot == "b")) {
            None => snapshot(&self.device.path(&format!("slot-{slot}"))),
            Some(partition) => {
                partition.mount(&self.device.system());
                let mut seen = snapshot(&self.device.system());
                assert!(
                    Command::new("umount")
                        .arg(&partition.path)
                        .status()
                        .unwrap()
                        .success()
                );
                seen.remove(&b"lost+found"[..]);
                seen
            }
        }
    }

    fn act(&self, words: &[&str]) -> Output {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_system-image-upgrader"));
        Command::new(program)
            .arg("--config")
            .arg(self.device.settings())
            .args(words)
            .output()
            .unwrap()
    }

    fn confirm(&self) -> Output {
        self.act(&["confirm"])
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_image_goes_to_the_other_slot_is_tried_and_confirmed() {
    let on_partitions = Slotted::on_partitions();
    if on_partitions.is_none() {
        eprintln!("not root: there are no partitions, so only directories are tested");
    }
    for slotted in [Some(Slotted::new("")), on_partitions]
        .into_iter()
        .flatten()
    {
        let device = &slotted.device;
        device.full(&one());
        device.upgrade_well();
        assert_eq!(outcome(device)["outcome"], "trying");
        assert_eq!(outcome(device)["slot"], "b");
        assert_equal(&slotted.tree("b"), &want(&one()), "b");
        assert_eq!(slotted.boot(), "b");
        assert!(slotted.confirm().status.success());
        assert_eq!(outcome(device)["outcome"], "installed");
        assert_eq!(slotted.boot(), "b");
        // A delta goes to the other one, on a copy of what runs.
        device.deltas(&[&one(), &two()]);
        let output = device.upgrade_well();
        assert!(said(&output).contains("were copied"), "{}", said(&output));
        assert_equal(&slotted.tree("a"), &want(&two()), "a");
        assert_equal(&slotted.tree("b"), &want(&one()), "b runs");
        assert_eq!(slotted.boot(), "a");
        assert!(slotted.confirm().status.success());
        // A patch reads what runs.
        device.patch_and_deltas(&[&two(), &one(), &two(), &one()]);
        device.upgrade_well();
        assert_equal(&slotted.tree("b"), &want(&one()), "b, patched");
        // What the other slot has already is not copied again.
        device.deltas(&[&two(), &one()]);
        let output = device.upgrade_well();
        assert!(
            said(&output).contains("0 B were copied") || said(&output).contains("copied"),
            "{}",
            said(&output)
        );
        assert_equal(&slotted.tree("b"), &want(&one()), "b again");
        assert_eq!(device.dropped(), [] as [&str; 0]);
    }
}

#[test]
fn a_slot_that_never_comes_up_is_left_after_its_tries_and_the_reason_is_kept() {
    let slotted = Slotted::new("tries = 2");
    slotted.device.full(&one());
    slotted.device.upgrade_well();
    assert_eq!(
        [slotted.boot(), slotted.boot(), slotted.boot()],
        ["b", "b", "a"]
    );
    assert!(slotted.confirm().status.success());
    let outcome = outcome(&slotted.device);
    assert_eq!(
        (&outcome["outcome"], &outcome["slot"]),
        (&"fell-back".into(), &"b".into())
    );
    assert!(
        outcome["reason"][1]
            .as_str()
            .unwrap()
            .contains("did not come up"),
        "{outcome}"
    );
    assert_eq!(slotted.grub().read().unwrap().trial, None);
    assert_eq!(slotted.boot(), "a");
}

#[test]
fn a_slot_that_fails_its_health_checks_is_not_confirmed() {
    let slotted =
        Slotted::new("tries = 1\nhealth = [[\"/bin/true\"], [\"/bin/sh\", \"-c\", \"exit 7\"]]");
    slotted.device.full(&one());
    slotted.device.upgrade_well();
    assert_eq!(slotted.boot(), "b");
    let output = slotted.confirm();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("`/bin/sh` failed with exit status: 7"),
        "{}",
        said(&output)
    );
    assert_eq!(slotted.boot(), "a");
    assert!(slotted.confirm().status.success());
    let outcome = outcome(&slotted.device);
    assert_eq!(outcome["outcome"], "fell-back");
    assert!(outcome.to_string().contains("exit status: 7"), "{outcome}");
}

#[test]
fn a_health_check_that_hangs_is_ended() {
    let slotted = Slotted::new("health = [[\"/bin/sleep\", \"1000\"]]\nhealth_seconds = 1");
    slotted.device.full(&one());
    slotted.device.upgrade_well();
    slotted.boot();
    let output = slotted.confirm();
    assert!(
        said(&output).contains("took longer than 1 s"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_base_that_was_changed_is_refused_for_a_delta_and_replaced_by_a_full_image() {
    let slotted = Slotted::new("");
    let device = &slotted.device;
    device.full(&one());
    device.upgrade_well();
    slotted.boot();
    slotted.confirm();
    fs::write(device.path("slot-b/etc/same"), "changed").unwrap();
    device.deltas(&[&one(), &two()]);
    let output = device.upgrade();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("`/etc/"), "{}", said(&output));
    assert!(
        said(&output).contains("hint: install a full image"),
        "{}",
        said(&output)
    );
    assert_eq!(slotted.boot(), "b", "nothing is tried");
    device.full(&two());
    device.upgrade_well();
    assert_equal(&slotted.tree("a"), &want(&two()), "a");
}

#[test]
fn images_go_to_the_partitions_of_the_slot() {
    let slotted = Slotted::new("");
    slotted.device.full(&one().image("boot", "a kernel"));
    slotted.device.upgrade_well();
    assert!(
        fs::read(slotted.device.path("boot-b"))
            .unwrap()
            .starts_with(b"a kernel")
    );
    assert_eq!(fs::read(slotted.device.path("boot-a")).unwrap(), [0; 100]);
}

#[test]
fn an_image_that_did_not_change_follows_the_system() {
    let slotted = Slotted::new("");
    let device = &slotted.device;
    let boot = |slot: &str| fs::read(device.path(&format!("boot-{slot}"))).unwrap();
    device.full(&one().image("boot", "a kernel"));
    device.upgrade_well();
    slotted.boot();
    slotted.confirm();
    assert_ne!(boot("a"), boot("b"));
    // The delta does not bring it.
    let trees = [one(), two()].map(|tree| tree.image("boot", "a kernel"));
    device.deltas(&[&trees[0], &trees[1]]);
    let output = device.upgrade_well();
    assert!(said(&output).contains("running system's partition `boot`"));
    assert_eq!(boot("a"), boot("b"));
    slotted.boot();
    slotted.confirm();
    device.deltas(&[&two(), &two().image("boot", "another")]);
    device.upgrade_well();
    assert!(boot("b").starts_with(b"another"));
    assert!(boot("a").starts_with(b"a kernel"));
}

/// An image of a file system as a slot holds it, of the first or of the second version.
fn image(version: &str) -> Vec<u8> {
    let root = tempfile::tempdir().unwrap();
    let lines = (0..30_000).map(|i| format!("{} {i}\n", i * i));
    fs::write(root.path().join("text"), lines.collect::<String>()).unwrap();
    fs::write(root.path().join("version"), version).unwrap();
    let image = root.path().join("../").join(format!("image-{version}"));
    let options = "hash_seed=5de5a1c2-0000-4000-8000-0000000000bb";
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-U", "5de5a1c2-0000-4000-8000-0000000000aa"])
        .args(["-E", options, "-d"])
        .arg(root.path())
        .arg(&image)
        .arg("8M")
        .status();
    assert!(made.unwrap().success());
    let bytes = fs::read(&image).unwrap();
    fs::remove_file(image).unwrap();
    bytes
}

#[test]
fn a_patch_makes_the_block_image_of_a_slot() {
    let slotted = Slotted::new("");
    let device = &slotted.device;
    let boot = |slot: &str| device.path(&format!("boot-{slot}"));
    let (old, new) = (image("1"), image("2"));
    let room = old.len() + 5000;
    for slot in ["a", "b"] {
        fs::write(boot(slot), vec![0; room]).unwrap();
    }
    let holds = |slot: &str, image: &[u8]| fs::read(boot(slot)).unwrap().starts_with(image);
    let [one, two] = [one().image("boot", &old[..]), two().image("boot", &new[..])];
    device.full(&one);
    device.upgrade_well();
    slotted.boot();
    slotted.confirm();
    assert!(holds("b", &old) && !holds("a", &old));
    let patch = system_image_testkit::patch(&one, &two);
    assert!(patch.len() < 20_000, "{}", patch.len());
    device.patch_and_deltas(&[&one, &two]);
    device.upgrade_well();
    assert!(holds("a", &new) && holds("b", &old));
    assert_eq!(slotted.boot(), "a");
    // Only what is on the slot's partition is the base of a patch, wherever else its bytes may be.
    slotted.confirm();
    fs::write(boot("a"), vec![7; room]).unwrap();
    device.patch_and_deltas(&[&two, &one]);
    let output = device.upgrade();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("comes without patches"));
    assert!(holds("b", &old));
    device.deltas(&[&two, &one]);
    device.upgrade_well();
    assert!(holds("b", &old));
}

#[test]
fn who_wants_the_old_system_back_gets_it() {
    let slotted = Slotted::new("");
    let refused = slotted.act(&["roll-back"]);
    assert!(
        said(&refused).contains("slot b holds no complete system"),
        "{}",
        said(&refused)
    );
    for tree in [one(), two()] {
        slotted.device.full(&tree);
        slotted.device.upgrade_well();
        slotted.boot();
        slotted.confirm();
    }
    let status = slotted.act(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(
        status,
        serde_json::json!({"running": "a", "default": "a", "next": "a", "trial": null})
    );
    assert!(slotted.act(&["roll-back"]).status.success());
    let shown = slotted.act(&["status"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(
        shown,
        "running  a\ndefault  a\ntrial    b, 3 tries left\nnext     b\n"
    );
    assert_eq!(slotted.boot(), "b");
    slotted.confirm();
    assert_eq!(slotted.boot(), "b");
    assert_equal(&slotted.tree("b"), &want(&one()), "as it was");
}

#[test]
fn a_device_that_does_not_know_its_slot_refuses() {
    let slotted = Slotted::new("");
    fs::write(slotted.device.path("cmdline"), "quiet\n").unwrap();
    slotted.device.full(&one());
    let output = slotted.device.upgrade();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("hint: the boot loader must pass"),
        "{}",
        said(&output)
    );
    // Nobody starts the device again for that, which would never end.
    assert_eq!(slotted.confirm().status.code(), Some(2));
}

#[test]
fn check_finds_what_is_wrong_with_a_description() {
    let slotted = Slotted::new("health = [[\"/no/such/check\"]]");
    let output = slotted.act(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ok       the boot loader"), "{text}");
    assert!(
        text.contains("problem  the health check `/no/such/check`"),
        "{text}"
    );
    fs::remove_file(slotted.device.path("boot-b")).unwrap();
    let output = slotted.act(&["check", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["ok"], false);
    let problems = found["findings"].as_array().unwrap().iter();
    let problems: Vec<_> = problems
        .filter(|f| f["problem"] != serde_json::json!([]))
        .collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let well = Slotted::new("");
    let output = well.act(&["check"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

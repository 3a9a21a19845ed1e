//! U-Boot: the real tools over an environment in a file. Its counting is played as its documentation
//! tells it, and its commands by a shell; that the real one understands them is another test.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::process::{Command, Stdio};

use camino::Utf8PathBuf;
use system_image_slots::{BootControl, BootError, UBoot};
use tempfile::TempDir;

use crate::{Device, are_there, conforms, qemu, run, shipped, slot, slots, trying, utf8};

/// Size of one copy of the environment, in bytes.
pub(crate) const COPY: usize = 8 << 10;

/// U-Boot's own commands. `saveenv` tells each variable to the test, which saves it.
const COMMANDS: &str = r#"names=
setenv() { name=$1; shift; names="$names $name"; eval "$name=\$*"; }
run() { for command; do eval "eval \"\$$command\""; done; }
saveenv() { for name in $names; do eval "printf 'saved %s=%s\n' \"$name\" \"\$$name\""; done; }
"#;

pub(crate) struct Real {
    pub(crate) dir: TempDir,
    pub(crate) uboot: UBoot,
}

impl Real {
    /// With one copy of the environment or two; `None` if the tools are not there.
    pub(crate) fn new(copies: usize) -> Option<Self> {
        if !are_there(&["fw_setenv", "fw_printenv", "sh"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = utf8(dir.path());
        fs::write(path.join("environment"), vec![0; COPY * copies]).unwrap();
        let config: String = (0..copies)
            .map(|copy| format!("{path}/environment {:#x} {COPY:#x}\n", copy * COPY))
            .collect();
        fs::write(path.join("fw_env.config"), config).unwrap();
        // Without a valid copy, the tool begins with the default environment.
        let text = fs::read_to_string(shipped("uboot.env")).unwrap();
        let is_variable = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let variables: String = text
            .lines()
            .filter(is_variable)
            .map(|x| format!("{x}\n"))
            .collect();
        fs::write(path.join("default"), variables).unwrap();
        let uboot = UBoot::new(Some(path.join("fw_env.config")), slots(&["a", "b"]));
        let device = Self { dir, uboot };
        run(device
            .tool("fw_setenv")
            .arg("-f")
            .arg(device.path("default"))
            .args(["system_image_start", "echo boots ${system_image_boot}"]));
        Some(device)
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        utf8(self.dir.path()).join(name)
    }

    pub(crate) fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.arg("-c").arg(self.path("fw_env.config"));
        command
    }

    fn set(&self, variables: &str) {
        fs::write(self.path("script"), variables).unwrap();
        run(self.tool("fw_setenv").arg("-s").arg(self.path("script")));
    }
}

impl Device for Real {
    fn control(&self) -> &dyn BootControl {
        &self.uboot
    }

    fn boot(&mut self) -> String {
        let environment = run(&mut self.tool("fw_printenv"));
        let variables: Vec<_> = environment
            .lines()
            .map(|x| x.split_once('=').unwrap())
            .collect();
        let value = |name: &str| {
            let mut found = variables.iter().filter(|variable| variable.0 == name);
            found.next().map_or("", |variable| variable.1)
        };
        let number = |name: &str| value(name).parse::<u32>().unwrap_or(0);
        let counts = number("upgrade_available") == 1;
        let count = if counts { number("bootcount") + 1 } else { 1 };
        if counts {
            self.set(&format!("bootcount={count}\n"));
        }
        let limit = number("bootlimit");
        let beyond = limit > 0 && count > limit;
        let mut script = COMMANDS.to_owned();
        for (name, value) in &variables {
            let quoted = value.replace('\'', r"'\''");
            script += &format!("{name}='{quoted}'\nnames=\"$names {name}\"\n");
        }
        script += &format!("bootcount={count}\n");
        script += if beyond {
            "run altbootcmd\n"
        } else {
            "run bootcmd\n"
        };
        let output = run(Command::new("sh").args(["-ec", &script]));
        let saved: String = output
            .lines()
            .filter_map(|line| line.strip_prefix("saved "))
            .map(|line| format!("{line}\n"))
            .collect();
        if !saved.is_empty() {
            self.set(&saved);
        }
        let slot = output.lines().find_map(|line| line.strip_prefix("boots "));
        slot.expect(&output).to_owned()
    }
}

#[test]
fn real_tools_with_one_copy_of_the_environment() {
    if let Some(mut device) = Real::new(1) {
        conforms(&mut device);
    }
}

#[test]
fn real_tools_with_a_redundant_environment() {
    if let Some(mut device) = Real::new(2) {
        conforms(&mut device);
        let left = run(&mut device.tool("fw_printenv"));
        assert!(
            left.contains("altbootcmd="),
            "others' variables stay: {left}"
        );
    }
}

/// The counting is not built into U-Boot for this machine; its language is.
#[test]
fn real_u_boot_understands_the_shipped_commands() {
    const FIRMWARE: &str = "/usr/lib/u-boot/qemu-x86/u-boot.rom";
    if !are_there(&["qemu-system-x86_64", "timeout", FIRMWARE]) {
        return;
    }
    let text = fs::read_to_string(shipped("uboot.env")).unwrap();
    let mut commands = String::new();
    for name in ["system_image_first", "system_image_choose", "bootcmd"] {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        commands += &format!("setenv {name} '{}'\n", value.unwrap());
    }
    commands += "setenv system_image_start 'echo boots=${system_image_boot}.'\n";
    let states = [
        ("upgrade_available", "0", "a"),
        ("system_image_slot", "b", "b"),
        ("upgrade_available", "1", "b"),
        ("system_image_trial", "a", "a"),
        ("upgrade_available", "0", "b"),
    ];
    for (name, value, _) in states {
        commands += &format!("setenv {name} {value}\nrun bootcmd\n");
    }
    commands += "reset\n";

    let mut machine = qemu(256)
        .args(["-bios", FIRMWARE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = machine.stdin.take().unwrap();
    let mut screen = BufReader::new(machine.stdout.take().unwrap());
    let mut until = |last: &[u8]| {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(last) && screen.read(&mut byte).unwrap() > 0 {
            seen.extend(byte);
        }
        String::from_utf8_lossy(&seen).into_owned()
    };
    until(b"Hit any key");
    keyboard.write_all(b"\n").unwrap();
    until(b"=> ");
    keyboard.write_all(commands.as_bytes()).unwrap();
    let output = until(b"resetting");
    machine.wait().unwrap();
    // Beside what is booted, the screen has the command that tells it.
    let booted = output
        .split("boots=")
        .skip(1)
        .filter_map(|rest| rest.split('.').next());
    let booted: Vec<_> = booted.filter(|slot| !slot.contains('$')).collect();
    assert_eq!(booted, states.map(|(_, _, slot)| slot), "{output}");
}

#[test]
fn what_would_never_fall_back_is_found() {
    let Some(device) = Real::new(2) else { return };
    device.uboot.try_out(&slot("b"), 3).unwrap();
    device.set("bootlimit=\n");
    let error = device.uboot.read().unwrap_err();
    assert!(matches!(error, BootError::Answer { .. }), "{error:?}");
    device.uboot.confirm(&slot("a")).unwrap();
    device.uboot.check().unwrap();
    device.set("system_image_first=b\n");
    let error = device.uboot.check().unwrap_err();
    assert!(error.to_string().contains("first"), "{error:?}");
    device.set("altbootcmd=\n");
    let error = device.uboot.check().unwrap_err();
    assert!(error.to_string().contains("altbootcmd"), "{error:?}");
}

#[test]
fn an_environment_without_a_valid_copy_is_an_error() {
    let Some(device) = Real::new(2) else { return };
    fs::write(device.path("environment"), vec![0xff; 2 * COPY]).unwrap();
    let error = device.uboot.read().unwrap_err();
    assert!(matches!(error, BootError::Failed { .. }), "{error:?}");
    let missing = UBoot::new(Some(device.path("nothing")), slots(&["a", "b"]));
    assert!(missing.check().is_err());
}

#[test]
fn a_count_that_another_tool_has_left_is_no_trial() {
    let Some(device) = Real::new(2) else { return };
    device.set("upgrade_available=1\nbootcount=1\nsystem_image_trial=x\n");
    assert_eq!(device.uboot.read().unwrap(), crate::always("a"));
    device.uboot.try_out(&slot("b"), 2).unwrap();
    assert_eq!(device.uboot.read().unwrap(), trying("a", "b", 2));
}

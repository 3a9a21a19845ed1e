//! Runs the real client for a device of the testkit, and looks at what it left.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test program uses its part, and fails by panic"
)]

pub(crate) mod daemon;
pub(crate) mod faults;

use std::fs;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use system_image_formats::command::{Command as Line, CommandFile, SignedFile};
use system_image_testkit::{DEVICE, Device};
use system_image_trust::{Chain, Now};

/// How a run of the client ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The client for a device, ready for more options.
pub(crate) fn client(device: &Device) -> Command {
    impatient(device);
    let mut command = Command::new(env!("CARGO_BIN_EXE_system-image-cli"));
    command.args(["-C", device.config().as_str()]);
    command.env("TZ", "UTC").env_remove("http_proxy");
    // Whatever runs on this machine is none of the device's.
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
    command
}

/// Lets the device try twice without waiting in between. It still waits long for an answer,
/// because machines that run tests are busy.
fn impatient(device: &Device) {
    let text = "[downloads]\nattempts: 2\nretry_wait: 0.01s\n";
    device.configure("05_downloads.ini", text);
}

/// Lets the device give up on a silent server before a test gets tired.
pub(crate) fn give_up_soon(device: &Device) {
    let text = "[downloads]\nconnect_timeout: 0.5s\nstall_timeout: 0.5s\n";
    device.configure("06_downloads.ini", text);
}

/// Runs the client in any way.
pub(crate) fn run(device: &Device, options: &[&str]) -> Ran {
    client(device).args(options).output().unwrap().into()
}

/// Runs the client, which must succeed; its standard output.
pub(crate) fn succeed(device: &Device, options: &[&str]) -> String {
    let ran = run(device, options);
    assert_eq!(ran.code, Some(0), "{options:?}: {}", ran.err);
    ran.out
}

/// Runs the client, which must fail as programs of ours do and leave the drop box as it was; its
/// standard error.
pub(crate) fn refuse(device: &Device, options: &[&str]) -> String {
    let before = device.dropped();
    let ran = run(device, options);
    let err = ran.err;
    assert_eq!(ran.code, Some(1), "{options:?}: {err}");
    let first = ["Exception occurred during ", "error: the configuration in "];
    assert!(first.iter().any(|text| err.starts_with(text)), "{err}");
    assert_eq!(err.matches("hint: ").count(), 1, "{err}");
    assert!(!err.contains("panicked"), "{err}");
    let now = device.dropped();
    assert_eq!(
        device.command_file().is_some(),
        before.contains_key("ubuntu_command")
    );
    for (name, content) in before {
        assert!(now.get(&name) == Some(&content), "{name} has changed");
    }
    err
}

/// Checks what the upgrader will check: whatever the command file names is there and good.
/// Returns the names of the updates.
pub(crate) fn prepared(device: &Device) -> Option<Vec<String>> {
    let commands = CommandFile::parse(device.command_file()?.as_bytes()).unwrap();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Now::from_clock(clock.as_secs().try_into().unwrap());
    let anchor = fs::read(device.archive_master()).unwrap();
    let mut chain = Chain::new(&anchor, DEVICE.parse().unwrap(), now).unwrap();
    let read = |signed: &SignedFile| {
        [signed.file(), signed.signature()].map(|name| {
            let path = device.drop_box().join(name.as_str());
            fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        })
    };
    let mut updates = Vec::new();
    for command in commands.commands() {
        match command {
            Line::LoadKeyring(signed) => {
                let [archive, signature] = read(signed);
                chain.load(&archive, &signature).unwrap();
            }
            Line::Update(signed) => {
                let [archive, signature] = read(signed);
                let signers = chain.index_signers().unwrap();
                let _ = signers.verify(&archive[..], &signature).unwrap();
                updates.push(signed.file().to_string());
            }
            _ => {}
        }
    }
    Some(updates)
}

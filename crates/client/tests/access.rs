//! Who may do what over the bus (client spec, section 15.1, without quirk Q27).

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod support;

use std::process::{Command, Output};

use system_image_testkit::{Bus, Device, Keys, Mock};

use support::daemon::Daemon;

/// Whom every system knows, and nobody is.
const NOBODY: &str = "nobody";

/// Calls a method of the original's interface as another user. None where that is not allowed,
/// which only root is.
fn call_as(user: &str, bus: &Bus, method: &str, arguments: &[&str]) -> Option<Output> {
    if Command::new("id").arg("-u").output().unwrap().stdout != b"0\n" {
        eprintln!("not tested: only root may call as other users");
        return None;
    }
    let mut call = bus.program("setpriv");
    call.args([
        "--reuid",
        user,
        "--clear-groups",
        "gdbus",
        "call",
        "--system",
    ]);
    call.args([
        "--dest",
        "com.canonical.SystemImage",
        "--object-path",
        "/Service",
        "--method",
    ]);
    call.arg(format!("com.canonical.SystemImage.{method}"));
    Some(call.args(arguments).output().unwrap())
}

const HARMLESS: [(&str, &[&str]); 5] = [
    ("Information", &[]),
    ("GetSetting", &["auto_download"]),
    ("GetChannels", &[]),
    ("GetBuild", &[]),
    ("SupportsFirmwareUpdate", &[]),
];

const CHANGES: [(&str, &[&str]); 12] = [
    ("DownloadUpdate", &[]),
    ("PauseDownload", &[]),
    ("CancelUpdate", &[]),
    ("ForceAllowGSMDownload", &[]),
    ("SetSetting", &["auto_download", "2"]),
    ("SetChannel", &["devel"]),
    ("SetBuild", &["0"]),
    ("ApplyUpdate", &[]),
    ("UpdateFirmware", &[]),
    ("FactoryReset", &[]),
    ("ProductionReset", &[]),
    ("Exit", &[]),
];

#[test]
fn without_polkit_only_root_and_the_person_at_the_screen_change_the_device() {
    let keys = Keys::generate();
    let device = Device::new(&keys);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    for (method, arguments) in HARMLESS {
        let Some(output) = call_as(NOBODY, &bus, method, arguments) else {
            return;
        };
        assert!(output.status.success(), "{method}: {output:?}");
    }
    for (method, arguments) in CHANGES {
        let output = call_as(NOBODY, &bus, method, arguments).unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(
            err.contains("org.freedesktop.DBus.Error.AccessDenied"),
            "{method}: {err}"
        );
        assert!(err.contains("run this as root"), "{method}: {err}");
    }
    assert!(device.command_file().is_none());
    assert_eq!(daemon.call("GetSetting", &["auto_download"]), "('1',)");
}

#[test]
fn polkit_decides_where_it_runs() {
    let keys = Keys::generate();
    let device = Device::new(&keys);
    let bus = Bus::start();
    let polkit = Mock::start(&bus, "polkitd", "{}");
    let _daemon = Daemon::start(&bus, &device);
    let Some(output) = call_as(NOBODY, &bus, "FactoryReset", &[]) else {
        return;
    };
    assert!(!output.status.success(), "{output:?}");
    assert!(device.command_file().is_none());
    polkit.call("SetAllowed", &["['com.canonical.SystemImage.reset']"]);
    let output = call_as(NOBODY, &bus, "FactoryReset", &[]).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(device.command_file().unwrap(), "format data\n");
    // Another action is another question.
    let output = call_as(NOBODY, &bus, "ApplyUpdate", &[]).unwrap();
    assert!(!output.status.success(), "{output:?}");
}

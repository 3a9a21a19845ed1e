//! Our own interface beside the original's, on the same object.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod support;

use system_image_testkit::{Bus, Device, Fault, Keys, Published};

use support::daemon::Daemon;

const OURS: &str = "com.canonical.SystemImage1";

fn call(daemon: &Daemon<'_>, method: &str) -> Result<String, String> {
    let output = daemon.try_call(&format!("{OURS}.{method}"), &[]);
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

#[test]
fn properties_tell_what_is_going_on_and_when_it_changes() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).at_version(5).served_by(&web);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    daemon.call("SetSetting", &["auto_download", "0"]);
    assert_eq!(daemon.property("State"), "(<'idle'>,)");
    assert_eq!(daemon.property("CurrentVersion"), "(<uint32 5>,)");
    assert_eq!(daemon.property("TargetVersion"), "(<uint32 5>,)");
    call(&daemon, "Check").unwrap();
    daemon.signals_until("UpdateAvailableStatus");
    let changed = daemon.line_with("PropertiesChanged");
    assert!(changed.contains("'TargetVersion': <uint32 7>"), "{changed}");
    assert!(changed.contains("'State': <'idle'>"), "{changed}");
    assert_eq!(daemon.property("TargetVersion"), "(<uint32 7>,)");
    call(&daemon, "Download").unwrap();
    let progress = daemon.line_with("SystemImage1.Progress");
    assert!(
        progress.contains("uint64 "),
        "sizes have 64 bits: {progress}"
    );
    daemon.signals_until("UpdateDownloaded");
    assert!(daemon.property("Total").starts_with("(<uint64 "));
    assert_eq!(daemon.property("Received"), daemon.property("Total"));
    assert_eq!(call(&daemon, "Pause").unwrap(), "(false,)");
    assert_eq!(call(&daemon, "Cancel").unwrap(), "(false,)");
    let status = call(&daemon, "Status").unwrap();
    assert!(
        status.contains(r#""schema": 1"#) && status.contains(r#""prepared""#),
        "{status}"
    );
}

#[test]
fn properties_are_told_when_they_change_and_not_with_each_byte() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).at_version(5).served_by(&web);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    daemon.call("SetSetting", &["auto_download", "0"]);
    call(&daemon, "Check").unwrap();
    let checking = daemon.line_with("PropertiesChanged");
    assert!(checking.contains("'State': <'checking'>"), "{checking}");
    let found = daemon.line_with("PropertiesChanged");
    assert!(found.contains("'TargetVersion': <uint32 7>"), "{found}");
    assert!(!found.contains("CurrentVersion"), "it is the same: {found}");

    call(&daemon, "Download").unwrap();
    let (mut progress, mut received) = (0, 0);
    loop {
        let line = daemon.line_with("/Service: ");
        progress += u32::from(line.contains("SystemImage1.Progress"));
        received += u32::from(line.contains("'Received': "));
        if line.contains("'State': <'idle'>") {
            break;
        }
    }
    assert!(
        received > 0 && received <= progress + 1,
        "{received} of {progress}"
    );
    daemon.call("SetBuild", &["3"]);
    let changed = daemon.line_with("PropertiesChanged");
    assert!(
        changed.contains("'CurrentVersion': <uint32 3>"),
        "{changed}"
    );
}

#[test]
fn a_decision_is_explained_and_planned() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(6).full(7).delta(5, 7);
    let web = tree.serve();
    let device = Device::new(&keys).at_version(5).served_by(&web);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    let explained = call(&daemon, "Explain").unwrap();
    assert!(explained.contains("another one costs less"), "{explained}");
    let plan = call(&daemon, "Plan").unwrap();
    assert!(
        plan.contains(r#""download": "#) && plan.contains(r#""reboots": 1"#),
        "{plan}"
    );
}

#[test]
fn errors_have_names() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    device.installed("nowhere", 1, "");
    let refused = call(&daemon, "Plan").unwrap_err();
    assert!(
        refused.contains("SystemImage1.Error.NotOffered"),
        "{refused}"
    );
    device.installed("stable", 1, "");
    web.fails("/channels.json", Fault::Status("404 Not Found"));
    let refused = call(&daemon, "Plan").unwrap_err();
    assert!(refused.contains("SystemImage1.Error.Network"), "{refused}");
    web.recovers();
    let _tree = tree.signed_by("/channels.json", &keys.archive_master);
    let refused = call(&daemon, "Explain").unwrap_err();
    assert!(
        refused.contains("SystemImage1.Error.Signature"),
        "{refused}"
    );
}

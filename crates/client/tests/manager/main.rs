//! Updates by the download manager on the bus, and without it where it fails (client spec, 13.2 and
//! 13.4).
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "in tests a panic is the report"
)]

mod stand_in;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use stand_in::{Does, StandIn};
use support::{Ran, client, prepared, succeed};
use system_image_testkit::{Bus, Device, Fault, Keys, Published, Web};

const PROGRAM: &str = "/usr/bin/lomiri-download-manager";
const FULL_1: &str = "/pool/ubuntu-1.full.tar.xz";

/// The client on this bus.
fn on(bus: &Bus, device: &Device) -> Command {
    let mut client = client(device);
    client.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
    client.args(["-p", "0"]);
    client
}

fn run(mut client: Command) -> Ran {
    client.output().unwrap().into()
}

fn log(device: &Device) -> String {
    fs::read_to_string(device.log()).unwrap()
}

/// How often a file was asked for.
fn times(web: &Web, path: &str) -> usize {
    web.paths().iter().filter(|asked| *asked == path).count()
}

/// Whether something half is left of the manager's work.
fn leftovers(device: &Device) -> bool {
    let mut names = device.dropped().into_keys();
    names.any(|name| name.contains(".tmp"))
}

/// A download manager that others wrote, ended when dropped.
struct Daemon(Child);

impl Daemon {
    fn start(bus: &Bus, device: &Device) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            eprintln!("not tested: {PROGRAM} is not installed");
            return None;
        }
        let home = device.path("manager");
        fs::create_dir_all(&home).unwrap();
        let mut daemon = bus.program(PROGRAM);
        daemon.args(["-disable-timeout", "-log-dir", home.as_str()]);
        daemon.env("HOME", &home).env("XDG_DATA_HOME", &home);
        let daemon = daemon.stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = Self(daemon.spawn().unwrap());
        bus.wait_for("com.lomiri.applications.Downloader");
        Some(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn lomiris_manager_brings_an_update_and_resumes_nothing_that_is_damaged() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1).delta(1, 2);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let bus = Bus::start();
    let Some(_daemon) = Daemon::start(&bus, &device) else {
        return;
    };
    fs::create_dir_all(device.drop_box()).unwrap();
    for stale in ["ubuntu-1.full.tar.xz", "ubuntu-1.full.tar.xz.tmp"] {
        fs::write(device.drop_box().join(stale), "of an earlier one").unwrap();
    }
    let mut client = on(&bus, &device);
    client.args(["--override-gsm", "--progress", "json"]);
    let ran = run(client);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert_eq!(prepared(&device).unwrap().len(), 4);
    assert!(!log(&device).contains("without it"), "{}", log(&device));
    let last: serde_json::Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["now"], last["total"], "{}", ran.out);
    let asked = web.asked();
    let mut payloads = asked.iter().filter(|asked| asked.path == FULL_1);
    assert_eq!(payloads.clone().count(), 1);
    let agent = "Ubuntu System Image Upgrade Client: device=lamp;channel=stable;build=0";
    assert_eq!(payloads.next().unwrap().header("User-Agent"), Some(agent));
    assert!(!leftovers(&device));
}

#[test]
fn what_lomiris_manager_finds_damaged_or_missing_is_no_reason_to_do_without_it() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let bus = Bus::start();
    let Some(_daemon) = Daemon::start(&bus, &device) else {
        return;
    };
    let good = tree.bytes(FULL_1);
    let tree = tree.damage(FULL_1);
    let ran = run(on(&bus, &device));
    assert_eq!(ran.code, Some(1));
    let what = format!("caused by: HASH ERROR: {}", device.drop_box());
    assert!(ran.err.contains(&what), "{}", ran.err);
    assert!(ran.err.contains("\nhint: try again; "), "{}", ran.err);
    assert!(log(&device).contains("; fetching it once more"));
    assert!(log(&device).contains("; trying with a full image"));
    assert_eq!(times(&web, FULL_1), 4);

    web.fails(FULL_1, Fault::Status("404 Not Found"));
    let ran = run(on(&bus, &device));
    let what = "\ncaused by: The requested URL returned error: 404: http://127.0.0.1:";
    assert!(ran.err.contains(what), "{}", ran.err);
    assert_eq!(prepared(&device), None);
    assert!(!log(&device).contains("without it"), "{}", log(&device));

    web.recovers();
    let _tree = tree.put(FULL_1, &good);
    assert_eq!(run(on(&bus, &device)).code, Some(0));
    assert!(prepared(&device).is_some());
}

#[test]
fn without_a_manager_or_with_one_that_fails_first_the_client_downloads_itself() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    for does in [
        None,
        Some(Does::Refuses),
        Some(Does::Dies),
        Some(Does::Lies),
    ] {
        let web = tree.serve();
        let device = Device::new(&keys).served_by(&web);
        let bus = Bus::start();
        let manager = does.map(|does| StandIn::start(&bus, does));
        let ran = run(on(&bus, &device));
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{does:?}");
        assert!(prepared(&device).is_some(), "{does:?}");
        assert!(!leftovers(&device));
        let told = log(&device).contains("; downloading without it");
        assert_eq!(told, does.is_some(), "{does:?}: {}", log(&device));
        let calls = manager.map_or(0, |manager| manager.calls().len());
        assert_eq!(calls > 0, does.is_some(), "{does:?}");
    }
}

#[test]
fn environment_and_configuration_choose() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let bus = Bus::start();
    let manager = StandIn::start(&bus, Does::Refuses);
    let asked = |configured: &str, environment: Option<&str>, options: &[&str]| {
        let text = format!("[updater]\ndownloader: {configured}\n");
        device.configure("20_downloader.ini", &text);
        let _ = fs::remove_dir_all(device.drop_box());
        let before = manager.calls().len();
        let mut client = on(&bus, &device);
        client.args(options);
        if let Some(value) = environment {
            client.env("SYSTEMIMAGE_PYCURL", value);
        }
        assert_eq!(run(client).code, Some(0));
        manager.calls().len() > before
    };
    assert!(asked("auto", None, &[]));
    assert!(asked("manager", None, &[]));
    assert!(!asked("built-in", None, &[]));
    assert!(!asked("manager", Some("Yes"), &[]));
    assert!(asked("built-in", Some("0"), &[]));
    assert!(!asked("manager", None, &["--dry-run"]));
}

#[test]
fn a_manager_that_writes_something_else_is_not_believed() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let size = tree.bytes(FULL_1).len();
    let zeros: &'static [u8] = vec![0; size].leak();
    for (bytes, want) in [
        (&b"short"[..], " bytes instead of "),
        (zeros, "bytes instead of"),
    ] {
        let device = Device::new(&keys).served_by(&web);
        let bus = Bus::start();
        let _manager = StandIn::start(&bus, Does::Writes(bytes));
        let ran = run(on(&bus, &device));
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains(want), "{}", ran.err);
        assert_eq!(prepared(&device), None);
        // What has the right size but not the right content is not taken for the file.
        let device = device.served_by(&web);
        assert_eq!(support::run(&device, &["-p", "0"]).code, Some(0));
        assert!(prepared(&device).is_some());
    }
}

#[test]
fn a_manager_that_is_silent_or_never_ends_is_told_to_stop() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    for (does, want) in [
        (
            Does::Nothing,
            "the download manager has been silent for 0.5 s",
        ),
        (
            Does::Has(100),
            "the download manager has been silent for 0.5 s",
        ),
        (Does::Has(1 << 40), "the files have more than "),
    ] {
        let device = Device::new(&keys).served_by(&web);
        let bus = Bus::start();
        let manager = StandIn::start(&bus, does);
        let mut client = on(&bus, &device);
        client.env("SYSTEMIMAGE_REACTOR_TIMEOUT", "0.5");
        let ran = run(client);
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains(want), "{}", ran.err);
        assert_eq!(ran.err.matches("hint: ").count(), 1, "{}", ran.err);
        assert_eq!(manager.calls().last().unwrap(), "cancel()");
        assert_eq!(times(&web, FULL_1), 0);
    }
}

#[test]
fn the_settings_and_the_user_allow_mobile_data() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    for (setting, options, allowed) in [
        ("1", &[][..], "false"),
        ("1", &["--override-gsm"], "true"),
        ("2", &[], "true"),
        ("0", &[], "true"),
    ] {
        let device = Device::new(&keys).served_by(&web);
        succeed(&device, &["--set", &format!("auto_download={setting}")]);
        let bus = Bus::start();
        let manager = StandIn::start(&bus, Does::Dies);
        let mut client = on(&bus, &device);
        client.args(options);
        assert_eq!(run(client).code, Some(0));
        let wanted = [
            "createDownloadGroup()",
            &format!("allowGSMDownload({allowed})"),
            "start()",
        ];
        assert_eq!(manager.calls(), wanted, "{setting} {options:?}");
    }
}

#[test]
fn whoever_interrupts_the_client_interrupts_the_manager() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let bus = Bus::start();
    let manager = StandIn::start(&bus, Does::Has(100));
    let child = on(&bus, &device).stderr(Stdio::piped()).spawn().unwrap();
    while manager.calls().last().is_none_or(|call| call != "start()") {
        std::thread::yield_now();
    }
    let id = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.starts_with("interrupted: "), "{}", ran.err);
    assert_eq!(manager.calls().last().unwrap(), "cancel()");
}

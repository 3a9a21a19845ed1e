//! The battery and the network as the services on the bus tell them.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::process::Command;

use support::{Ran, client, succeed};
use system_image_testkit::{Bus, Device, Keys, Mock, Published};

fn on(bus: &Bus, device: &Device, options: &[&str]) -> Command {
    let mut client = client(device);
    client.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
    client.args(options);
    client
}

fn run(bus: &Bus, device: &Device, options: &[&str]) -> Ran {
    on(bus, device, options).output().unwrap().into()
}

/// Sets what is shown as the battery: discharging is 2, charging is 1.
fn battery(upower: &Mock<'_>, state: &str, percent: &str) {
    let rest = ["43.7", "100.0", "1.5", "1200", "0", "true", "battery", "1"];
    let arguments = [&["2", state, percent][..], &rest].concat();
    upower.call("SetupDisplayDevice", &arguments);
}

#[test]
fn an_update_is_applied_only_with_enough_in_the_battery() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(1);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let bus = Bus::start();
    let upower = Mock::start(&bus, "upower", r#"{"OnBattery": true}"#);
    battery(&upower, "2", "39.9");
    succeed(&device, &["--set", "min_battery=40"]);

    let ran = run(&bus, &device, &["-p", "0"]);
    assert_eq!(ran.code, Some(1));
    let what = "caused by: the battery is at 39 %, and updates are applied from 40 % on\n";
    assert!(ran.err.contains(what), "{}", ran.err);
    assert!(
        ran.err.contains("hint: plug in the charger, or "),
        "{}",
        ran.err
    );
    assert!(device.command_file().is_some(), "it is prepared");
    assert!(!succeed(&device, &["--history"]).contains("handed over"));
    assert_eq!(run(&bus, &device, &["--apply"]).err, ran.err);

    battery(&upower, "1", "39.9");
    assert_eq!(run(&bus, &device, &["--apply"]).code, Some(0));
    assert!(succeed(&device, &["--history"]).contains("handed over"));
}

#[test]
fn a_preflight_tells_of_network_and_battery() {
    let device = Device::new(&Keys::generate());
    let bus = Bus::start();
    let upower = Mock::start(&bus, "upower", r#"{"OnBattery": true}"#);
    battery(&upower, "2", "15");
    let _manager = Mock::start(&bus, "networkmanager", r#"{"NetworkingEnabled": false}"#);
    succeed(&device, &["--set", "min_battery=20"]);
    let ran = run(&bus, &device, &["--preflight"]);
    assert_eq!(ran.code, Some(3), "{}", ran.out);
    let battery = "STOPS   battery: the battery is at 15 %, and updates are applied from 20 % on\n";
    assert!(ran.out.contains(battery), "{}", ran.out);
    assert!(ran.out.contains(" network: "), "{}", ran.out);
}

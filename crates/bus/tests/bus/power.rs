use system_image_bus::{Battery, Kernel, Source};
use system_image_testkit::{Bus, Mock};

use crate::{connect, kernel, run};

/// A kernel that knows a battery at 80 percent.
fn phone(dir: &tempfile::TempDir) -> Kernel {
    let files = [
        ("sys/class/power_supply/battery/type", "Battery\n"),
        ("sys/class/power_supply/battery/capacity", "80\n"),
        ("sys/class/power_supply/battery/status", "Charging\n"),
        ("sys/class/power_supply/usb/type", "USB\n"),
    ];
    kernel(dir, &files)
}

fn battery(percent: u8, discharging: bool, source: Source) -> Battery {
    Battery {
        percent,
        discharging,
        source,
    }
}

#[test]
fn upower_tells_how_full_the_shown_battery_is() {
    run(async {
        let (bus, dir) = (Bus::start(), tempfile::tempdir().unwrap());
        let (connection, kernel) = (connect(&bus).await, phone(&dir));
        let upower = Mock::start(&bus, "upower", r#"{"OnBattery": true}"#);
        let now = async || Battery::now(Some(&connection), &kernel).await;
        assert_eq!(
            now().await,
            None,
            "its word counts, whatever the kernel has"
        );

        upower.call("AddDischargingBattery", &["phone", "Phone", "43.7", "1200"]);
        let shown = |state, percent| {
            let rest = ["43.7", "100.0", "1.5", "1200", "0", "true", "battery", "1"];
            let arguments = [&["2", state, percent][..], &rest].concat();
            upower.call("SetupDisplayDevice", &arguments);
        };
        shown("2", "43.7");
        assert_eq!(now().await, Some(battery(43, true, Source::Service)));
        shown("1", "44.0");
        assert_eq!(now().await, Some(battery(44, false, Source::Service)));
        let path = "/org/freedesktop/UPower/devices/DisplayDevice";
        upower.call("SetDeviceProperties", &[path, "{'State': <uint32 0>}"]);
        assert_eq!(now().await, Some(battery(44, true, Source::Service)));
    });
}

#[test]
fn the_kernel_tells_where_there_is_no_upower() {
    run(async {
        let (bus, dir) = (Bus::start(), tempfile::tempdir().unwrap());
        let (connection, kernel) = (connect(&bus).await, phone(&dir));
        let told = Some(battery(80, false, Source::Kernel));
        assert_eq!(Battery::now(Some(&connection), &kernel).await, told);
        assert_eq!(Battery::now(None, &kernel).await, told, "nor a bus");
        let bare = Kernel::below("/nonexistent");
        assert_eq!(Battery::now(Some(&connection), &bare).await, None);
    });
}

#[test]
fn the_kernel_tells_where_upower_does_not_start() {
    run(async {
        let services = [("org.freedesktop.UPower", "/bin/false")];
        let (bus, dir) = (Bus::with_services(&services), tempfile::tempdir().unwrap());
        let (connection, kernel) = (connect(&bus).await, phone(&dir));
        let told = Some(battery(80, false, Source::Kernel));
        assert_eq!(Battery::now(Some(&connection), &kernel).await, told);
    });
}

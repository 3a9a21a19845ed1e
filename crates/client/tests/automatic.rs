//! What the timer does, and when it does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod support;

use system_image_testkit::{Bus, Device, Keys, Published};

use support::{client, succeed};

#[test]
fn what_is_allowed_is_done_and_what_is_not_is_told() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let bus = Bus::start();
    let automatic = || {
        let mut command = client(&device);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
        let output = command.args(["-p", "0", "--automatic"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (hold, said) in [
        (
            "forever",
            "updates are held back until that is taken back\n",
        ),
        ("9999-12-31", "updates are held back until 9999-12-31\n"),
    ] {
        succeed(&device, &["--set", &format!("hold={hold}")]);
        assert_eq!(automatic(), said);
    }
    assert_eq!(web.paths().len(), 0, "not even a check");
    succeed(&device, &["--del", "hold", "--del", "nothing"]);

    device.configure("40_automatic.ini", "[automatic]\ndefer: 1d\n");
    assert_eq!(
        automatic(),
        "version 7 is deferred for another 1441 minutes\n"
    );
    device.configure("40_automatic.ini", "");

    succeed(&device, &["--set", "auto_download=0"]);
    let said = automatic();
    assert!(
        said.starts_with("version 7 is there: nothing is downloaded unasked"),
        "{said}"
    );
    assert!(device.command_file().is_none());

    succeed(&device, &["--set", "auto_download=2"]);
    let said = automatic();
    assert!(
        said.starts_with("version 7 is prepared: nothing is applied unasked"),
        "{said}"
    );
    assert!(device.command_file().is_some());

    device.configure("40_automatic.ini", "[automatic]\napply: yes\n");
    assert_eq!(automatic(), "version 7 is handed over\n");
    device.installed("stable", 7, "");
    assert_eq!(automatic(), "no update\n");
    assert!(succeed(&device, &["--history"]).contains(" installed stable 0 -> 7\n"));
}

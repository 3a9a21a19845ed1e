//! The service is killed wherever it may be, and the next one goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod support;

use std::thread::sleep;
use std::time::Duration;

use system_image_testkit::{Bus, Device, Keys, Published};

use support::daemon::Daemon;
use support::prepared;

/// How often it is killed.
const KILLS: u64 = 40;

#[test]
fn a_service_that_is_killed_leaves_nothing_that_is_not_verified_and_the_next_goes_on() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let bus = Bus::start();
    for kill in 0..KILLS {
        let device = Device::new(&keys).served_by(&web);
        {
            let daemon = Daemon::start(&bus, &device);
            daemon.call("SetSetting", &["auto_download", "2"]);
            daemon.call("CheckForUpdate", &[]);
            // From before the first request until after the last file.
            sleep(Duration::from_millis(50 + kill * 6));
            daemon.kill();
        }
        // Whatever a command file names is there and good, or this panics.
        let _ = prepared(&device);
        let daemon = Daemon::start(&bus, &device);
        daemon.call("CheckForUpdate", &[]);
        daemon.signals_until("UpdateDownloaded");
        assert!(prepared(&device).is_some(), "kill {kill}");
    }
}

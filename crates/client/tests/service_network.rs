//! Servers that are broken in every way, seen from the bus: the signals say what is wrong, and the
//! next check and download converge.
#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod support;

use system_image_testkit::{Bus, Device};

use support::daemon::Daemon;
use support::faults::{Face, each_document_fails};

impl Face for Daemon<'_> {
    fn fails(&self, _: &Device) -> String {
        self.call("CheckForUpdate", &[]);
        let told = self.signals_until("UpdateAvailableStatus").pop().unwrap();
        if !told.ends_with(", '')") {
            let nothing = "UpdateAvailableStatus (false, false, '', 0, ";
            assert!(told.starts_with(nothing), "{told}");
            return told;
        }
        // What is wrong shows only when the update is downloaded.
        assert!(
            told.starts_with("UpdateAvailableStatus (true, false, '2', "),
            "{told}"
        );
        self.call("DownloadUpdate", &[]);
        let told = self.signals_until("UpdateFailed").pop().unwrap();
        assert!(told.starts_with("UpdateFailed (1, "), "{told}");
        if told == "UpdateFailed (1, 'TimeoutError')" {
            // All that callers of the original know of it; ours are told more.
            return self.property("LastError");
        }
        told
    }

    fn updates(&self, _: &Device) {
        self.call("CheckForUpdate", &[]);
        let told = self.signals_until("UpdateAvailableStatus").pop().unwrap();
        assert!(
            told.starts_with("UpdateAvailableStatus (true, false, '2', "),
            "{told}"
        );
        assert!(told.ends_with(", '')"), "{told}");
        self.call("DownloadUpdate", &[]);
        self.signals_until("UpdateDownloaded");
    }
}

#[test]
fn each_document_may_fail_in_each_way_and_the_next_check_and_download_converge() {
    each_document_fails(|device, run| {
        let bus = Bus::start();
        let daemon = Daemon::start(&bus, device);
        daemon.call("SetSetting", &["auto_download", "0"]);
        run(&daemon);
    });
}

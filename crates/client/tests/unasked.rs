//! What is downloaded without being asked for, over the network that there really is.

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod support;

use system_image_testkit::{Bus, Device, Keys, Mock, Published};

use support::daemon::Daemon;

/// Lets an active connection of this type be the one that leads to the world.
fn network(manager: &Mock<'_>, name: &str, kind: &str) {
    const MANAGER: &str = "org.freedesktop.NetworkManager";
    let path = format!("/org/freedesktop/NetworkManager/ActiveConnection/{name}");
    let properties = format!(
        "{{'Type': <'{kind}'>, 'State': <uint32 2>, 'SpecificObject': <objectpath '/'>, \
         'Devices': <@ao []>}}"
    );
    manager.add(&path, &format!("{MANAGER}.Connection.Active"), &properties);
    manager.set(
        MANAGER,
        "ActiveConnections",
        &format!("<[objectpath '{path}']>"),
    );
    manager.set(
        MANAGER,
        "PrimaryConnection",
        &format!("<objectpath '{path}'>"),
    );
}

#[test]
fn on_wifi_only_means_it() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let bus = Bus::start();
    let manager = Mock::start(&bus, "networkmanager", "{}");
    for (setting, kind, downloads) in [
        ("1", "gsm", false),
        ("0", "802-11-wireless", false),
        ("2", "gsm", true),
        ("1", "802-11-wireless", true),
        ("1", "802-3-ethernet", true),
    ] {
        network(&manager, &format!("n{setting}{}", kind.len()), kind);
        let device = Device::new(&keys).served_by(&web);
        let daemon = Daemon::start(&bus, &device);
        daemon.call("SetSetting", &["auto_download", setting]);
        daemon.call("CheckForUpdate", &[]);
        let signals = daemon.signals_until("UpdateAvailableStatus");
        let told = signals.last().unwrap();
        let begin = format!("UpdateAvailableStatus (true, {downloads}, '7', ");
        assert!(told.starts_with(&begin), "{setting} over {kind}: {told}");
        if downloads {
            daemon.signals_until("UpdateDownloaded");
        } else {
            // Somebody who asks for it gets it.
            assert!(device.command_file().is_none());
            daemon.call("DownloadUpdate", &[]);
            daemon.signals_until("UpdateDownloaded");
        }
        assert!(device.command_file().is_some());
    }
}

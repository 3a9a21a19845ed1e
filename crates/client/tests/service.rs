//! The service on the bus, from a check to an applied update (client spec, section 15).

#![allow(clippy::unwrap_used, reason = "a test fails by panic")]

mod support;

use std::fs;

use system_image_testkit::{Bus, Device, Fault, Keys, Published};

use support::daemon::{Daemon, command};
use support::{give_up_soon, prepared, run};

/// Starts nothing unasked.
const MANUAL: (&str, &[&str]) = ("SetSetting", &["auto_download", "0"]);

fn image(version: u32) -> String {
    format!("pool/ubuntu-{version}.full.tar.xz")
}

fn status(signal: &str) -> Vec<&str> {
    let arguments = signal.strip_prefix("UpdateAvailableStatus (").unwrap();
    arguments.strip_suffix(')').unwrap().split(", ").collect()
}

#[test]
fn an_update_is_checked_downloaded_and_applied_with_the_originals_signals() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).at_version(5).served_by(&web);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    assert_eq!(daemon.call(MANUAL.0, MANUAL.1), "()");
    assert_eq!(daemon.signal(), "SettingChanged ('auto_download', '0')");
    let information = daemon.call("Information", &[]);
    assert!(
        information.contains("'target_build_number': '-1'"),
        "{information}"
    );
    assert!(
        information.contains("'last_check_date': ''"),
        "{information}"
    );

    assert_eq!(daemon.call("CheckForUpdate", &[]), "()");
    let signal = daemon.signal();
    let told = status(&signal);
    assert_eq!(told[..3], ["true", "false", "'7'"], "{signal}");
    let size: u64 = told[3].parse().unwrap();
    assert_eq!(told[5], "''", "{signal}");
    let information = daemon.call("Information", &[]);
    for part in [
        "'current_build_number': '5'",
        "'target_build_number': '7'",
        "'device_name': 'lamp'",
        "'channel_name': 'stable'",
    ] {
        assert!(information.contains(part), "{information}");
    }
    assert!(
        !information.contains("'last_check_date': ''"),
        "{information}"
    );

    assert_eq!(daemon.call("DownloadUpdate", &[]), "()");
    let signals = daemon.signals_until("UpdateDownloaded");
    assert_eq!(signals[0], "UpdateProgress (0, 0.0)");
    assert_eq!(signals[1], "DownloadStarted ()");
    let last = signals.iter().rev().nth(1).unwrap();
    assert!(last.starts_with("UpdateProgress (100, "), "{signals:?}");
    let files = prepared(&device).unwrap();
    let sizes = files.iter().map(|file| {
        let file = device.drop_box().join(file);
        fs::metadata(file).unwrap().len()
    });
    assert_eq!(sizes.sum::<u64>(), size);
    // Once more: it is all there.
    daemon.call("DownloadUpdate", &[]);
    let signals = daemon.signals_until("UpdateDownloaded");
    assert_eq!(signals, ["UpdateProgress (0, 0.0)", "UpdateDownloaded ()"]);

    assert_eq!(daemon.call("ApplyUpdate", &[]), "('',)");
    assert_eq!(daemon.signal(), "Applied (true,)");
}

#[test]
fn with_the_setting_for_it_a_download_follows_the_check() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    daemon.call("SetSetting", &["auto_download", "2"]);
    daemon.call("CheckForUpdate", &[]);
    let signals = daemon.signals_until("UpdateDownloaded");
    assert_eq!(signals[0], "SettingChanged ('auto_download', '2')");
    assert_eq!(status(&signals[1])[..2], ["true", "true"]);
    assert_eq!(signals[2], "UpdateProgress (0, 0.0)");
}

#[test]
fn no_update_a_failure_and_an_unknown_channel_are_told_apart() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).at_version(7).served_by(&web);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    daemon.call("CheckForUpdate", &[]);
    let signal = daemon.signal();
    let told = status(&signal);
    assert_eq!(
        (told[0], told[2], told[3], told[5]),
        ("false", "''", "0", "''")
    );
    let information = daemon.call("Information", &[]);
    assert!(
        information.contains("'target_build_number': '7'"),
        "{information}"
    );
    assert_eq!(daemon.call("GetChannels", &[]), "(['stable'],)");

    web.fails("/channels.json", Fault::Status("404 Not Found"));
    daemon.call("CheckForUpdate", &[]);
    let signal = daemon.signal();
    let url = format!("http://127.0.0.1:{}/channels.json", web.port());
    let why = format!("'The requested URL returned error: 404: {url}'");
    assert_eq!(status(&signal)[5], why);
    // The channels of the last check that worked are still known.
    assert_eq!(daemon.call("GetChannels", &[]), "(['stable'],)");

    web.recovers();
    device.installed("nowhere", 1, "");
    daemon.call("CheckForUpdate", &[]);
    let signal = daemon.signal();
    let told = status(&signal);
    assert_eq!((told[0], told[5]), ("false", "''"));
}

#[test]
fn a_download_that_failed_is_told_and_may_be_tried_again() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    give_up_soon(&device);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    daemon.call(MANUAL.0, MANUAL.1);
    daemon.call("CheckForUpdate", &[]);
    daemon.signals_until("UpdateAvailableStatus");
    web.fails(&format!("/{}", image(7)), Fault::Status("404 Not Found"));
    for count in 1..=2 {
        daemon.call("DownloadUpdate", &[]);
        let signals = daemon.signals_until("UpdateFailed");
        let url = format!("http://127.0.0.1:{}/{}", web.port(), image(7));
        let why = format!("FileNotFoundError: The requested URL returned error: 404: {url}");
        assert_eq!(
            signals.last().unwrap(),
            &format!("UpdateFailed ({count}, '{why}')")
        );
        assert!(prepared(&device).is_none());
    }
    web.recovers();
    daemon.call("DownloadUpdate", &[]);
    daemon.signals_until("UpdateDownloaded");
    assert!(prepared(&device).is_some());
}

#[test]
fn an_update_that_is_withdrawn_after_it_was_found_is_told() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, &device);
    daemon.call(MANUAL.0, MANUAL.1);
    daemon.call("CheckForUpdate", &[]);
    daemon.signals_until("UpdateAvailableStatus");
    daemon.call("Exit", &[]);
    daemon.wait();
    drop(daemon);
    let _tree = tree.index(|index| index.images.clear());
    let daemon = Daemon::start(&bus, &device);
    daemon.call("DownloadUpdate", &[]);
    let signals = daemon.signals_until("UpdateFailed");
    let last = signals.last().unwrap();
    assert!(
        last.contains("the update is not offered any more"),
        "{last}"
    );
}

#[test]
fn a_download_stands_still_goes_on_and_is_given_up() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    daemon.call(MANUAL.0, MANUAL.1);
    assert_eq!(daemon.call("PauseDownload", &[]), "('not downloading',)");
    // Idle: it must not poison what comes later.
    assert_eq!(daemon.call("CancelUpdate", &[]), "('',)");
    daemon.call("CheckForUpdate", &[]);
    daemon.signals_until("UpdateAvailableStatus");
    web.fails(&format!("/{}", image(7)), Fault::Stall(100_000));
    daemon.call("DownloadUpdate", &[]);
    daemon.signals_until("DownloadStarted");
    assert_eq!(daemon.call("PauseDownload", &[]), "('',)");
    let signals = daemon.signals_until("UpdatePaused");
    assert!(signals.last().unwrap().starts_with("UpdatePaused ("));
    assert_eq!(daemon.call("PauseDownload", &[]), "('not downloading',)");
    // A check meanwhile is answered with what is known.
    daemon.call("CheckForUpdate", &[]);
    let signal = daemon.signal();
    assert_eq!(status(&signal)[..3], ["true", "true", "'7'"]);
    assert_eq!(daemon.call("CancelUpdate", &[]), "('',)");
    assert_eq!(daemon.signal(), "UpdateFailed (1, 'Canceled')");

    web.recovers();
    daemon.call("DownloadUpdate", &[]);
    daemon.signals_until("UpdateDownloaded");
    assert!(prepared(&device).is_some());
}

#[test]
fn what_was_found_and_downloaded_survives_the_service() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7);
    let web = tree.serve();
    let device = Device::new(&keys).served_by(&web);
    device.configure("30_dbus.ini", "[dbus]\nlifetime: 1s\n");
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, &device);
    daemon.call(MANUAL.0, MANUAL.1);
    daemon.call("CheckForUpdate", &[]);
    daemon.signals_until("UpdateAvailableStatus");
    assert_eq!(daemon.wait(), Some(0), "it leaves when nobody asks");
    drop(daemon);

    let mut daemon = Daemon::start(&bus, &device);
    let information = daemon.call("Information", &[]);
    assert!(
        information.contains("'target_build_number': '7'"),
        "{information}"
    );
    assert_eq!(daemon.call("GetChannels", &[]), "(['stable'],)");
    daemon.call("DownloadUpdate", &[]);
    daemon.signals_until("UpdateDownloaded");
    daemon.call("Exit", &[]);
    assert_eq!(daemon.wait(), Some(0));
    drop(daemon);

    // Offline, days later.
    drop(web);
    let daemon = Daemon::start(&bus, &device);
    daemon.call("ApplyUpdate", &[]);
    assert_eq!(daemon.signal(), "Applied (true,)");
    drop(daemon);
    device.installed("stable", 7, "");
    let daemon = Daemon::start(&bus, &device);
    let history = daemon.try_call("com.canonical.SystemImage1.History", &[]);
    let history = String::from_utf8(history.stdout).unwrap();
    assert!(history.contains(r#""event": "installed""#), "{history}");
}

#[test]
fn a_service_that_nobody_calls_leaves_too() {
    let keys = Keys::generate();
    let device = Device::new(&keys);
    device.configure("30_dbus.ini", "[dbus]\nlifetime: 0.2s\n");
    let bus = Bus::start();
    let mut service = command(&bus, &device).spawn().unwrap();
    assert_eq!(service.wait().unwrap().code(), Some(0));
}

#[test]
fn nothing_is_applied_when_nothing_is_prepared() {
    let keys = Keys::generate();
    let device = Device::new(&keys);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    assert_eq!(daemon.call("ApplyUpdate", &[]), "('',)");
    assert_eq!(daemon.signal(), "Applied (false,)");
}

#[test]
fn another_channel_is_followed_until_its_image_is_installed() {
    let keys = Keys::generate();
    let tree = Published::new(&keys).full(7).alias("devel");
    let web = tree.serve();
    let device = Device::new(&keys).at_version(7).served_by(&web);
    let bus = Bus::start();
    let mut daemon = Daemon::start(&bus, &device);
    daemon.call(MANUAL.0, MANUAL.1);
    assert_eq!(
        daemon.call("SetChannel", &["devel"]),
        "(false,)",
        "before any check"
    );
    daemon.call("CheckForUpdate", &[]);
    daemon.signals_until("UpdateAvailableStatus");
    assert_eq!(
        daemon.call("GetChannels", &[]),
        "(['stable'],)",
        "an alias is not shown"
    );
    assert_eq!(daemon.call("SetChannel", &["nowhere"]), "(false,)");
    assert_eq!(daemon.call("SetChannel", &["devel"]), "(true,)");
    daemon.call("SetBuild", &["0"]);
    assert_eq!(daemon.call("GetChannel", &[]), "('devel',)");
    assert_eq!(daemon.call("GetBuild", &[]), "(0,)");
    daemon.call("Exit", &[]);
    daemon.wait();
    drop(daemon);

    let daemon = Daemon::start(&bus, &device);
    assert_eq!(daemon.call("GetChannel", &[]), "('devel',)");
    daemon.call("CheckForUpdate", &[]);
    let signal = daemon.signal();
    assert_eq!(status(&signal)[2], "'7'");
    daemon.call("DownloadUpdate", &[]);
    daemon.signals_until("UpdateDownloaded");
    let status = run(&device, &["--status"]).out;
    assert!(status.contains("prepared: version 7 of devel"), "{status}");
    // What another client chooses is followed, too.
    run(&device, &["-p", "0", "-g", "--switch", "stable", "-b", "3"]);
    assert_eq!(daemon.call("GetBuild", &[]), "(3,)");
    assert_eq!(daemon.call("GetChannel", &[]), "('stable',)");
    device.installed("devel", 7, "");
    assert_eq!(
        daemon.call("GetBuild", &[]),
        "(7,)",
        "the configuration is read again"
    );
}

#[test]
fn settings_are_checked_and_told() {
    let keys = Keys::generate();
    let device = Device::new(&keys);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    assert_eq!(daemon.call("GetSetting", &["auto_download"]), "('1',)");
    assert_eq!(daemon.call("GetSetting", &["nothing"]), "('',)");
    for (key, value) in [
        ("min_battery", "101"),
        ("min_battery", "-1"),
        ("min_battery", "x"),
        ("auto_download", "3"),
        ("auto_download", "1"),
    ] {
        daemon.call("SetSetting", &[key, value]);
    }
    for (key, value) in [("min_battery", "30"), ("any", "thing")] {
        daemon.call("SetSetting", &[key, value]);
        let told = format!("SettingChanged ('{key}', '{value}')");
        assert_eq!(daemon.signal(), told, "values that cannot be are ignored");
        assert_eq!(daemon.call("GetSetting", &[key]), format!("('{value}',)"));
    }
    assert_eq!(run(&device, &["--get", "min_battery"]).out, "30\n");
}

#[test]
fn resets_write_the_command_file() {
    let keys = Keys::generate();
    let device = Device::new(&keys);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    daemon.call("FactoryReset", &[]);
    assert_eq!(device.command_file().unwrap(), "format data\n");
    daemon.call("ProductionReset", &[]);
    assert_eq!(
        device.command_file().unwrap(),
        "format data\nenable factory_wipe\n"
    );
}

#[test]
fn a_second_service_is_refused_and_a_wrong_directory_too() {
    let keys = Keys::generate();
    let device = Device::new(&keys);
    let bus = Bus::start();
    let _daemon = Daemon::start(&bus, &device);
    let second = command(&bus, &device).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    let err = String::from_utf8(second.stderr).unwrap();
    assert_eq!(err, "Cannot get exclusive ownership of bus name.\n");
    let mut wrong = bus.program(env!("CARGO_BIN_EXE_system-image-dbus"));
    let wrong = wrong.args(["-C", "/nonexistent"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn the_introspection_lists_everything_with_the_originals_signatures() {
    let keys = Keys::generate();
    let device = Device::new(&keys);
    let bus = Bus::start();
    let daemon = Daemon::start(&bus, &device);
    let mut introspect = bus.program("gdbus");
    introspect.args([
        "introspect",
        "--system",
        "--dest",
        "com.canonical.SystemImage",
    ]);
    let output = introspect
        .args(["--object-path", "/Service"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let begin = text.find("interface com.canonical.SystemImage {").unwrap();
    let end = begin + text[begin..].find("\n  };").unwrap();
    // Without blanks, because GLib lines arguments up.
    let lines: String = text[begin..end].split_whitespace().collect();
    for member in [
        "CheckForUpdate();",
        "DownloadUpdate();",
        "PauseDownload(outs",
        "CancelUpdate(outs",
        "ApplyUpdate(outs",
        "ForceAllowGSMDownload(outs",
        "Information(outa{ss}",
        "SetSetting(inskey,insvalue);",
        "GetSetting(inskey,outs",
        "FactoryReset();",
        "ProductionReset();",
        "Exit();",
        "GetChannels(outas",
        "SetChannel(inschannel,outb",
        "SetBuild(inibuild);",
        "GetChannel(outs",
        "GetBuild(outi",
        "SupportsFirmwareUpdate(outb",
        "CheckForFirmwareUpdate(outs",
        "UpdateFirmware(outs",
        "Reboot();",
        "UpdateAvailableStatus(bis_available,bdownloading,savailable_version,iupdate_size,\
         slast_update_date,serror_reason);",
        "DownloadStarted();",
        "UpdateProgress(ipercentage,deta);",
        "UpdatePaused(ipercentage);",
        "UpdateDownloaded();",
        "UpdateFailed(iconsecutive_failure_count,slast_reason);",
        "SettingChanged(skey,snew_value);",
        "Applied(bstatus);",
        "Rebooting(bstatus);",
    ] {
        assert!(lines.contains(member), "{member} is missing in {text}");
    }
    drop(daemon);
}

//! What is on the bus: both families, introspection that others can read, calls that are not there
//! (specification, sections 1 to 4).

use std::process::Command;

use system_image_testkit::Bus;

use crate::support::{Daemon, NAME, Place};

#[test]
fn both_families_are_served_each_on_its_paths() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    let canonical = "com.canonical.applications";
    let answer = bus.call(
        &format!("{canonical}.Downloader"),
        "/",
        &format!("{canonical}.DownloadManager.createDownload"),
        &["('http://h/x', '', '', {'objectpath': <'x'>}, @a{ss} {})"],
    );
    assert_eq!(
        answer,
        "(objectpath '/com/canonical/applications/download/x',)"
    );
    let line =
        daemon.line_with("downloadCreated (objectpath '/com/lomiri/applications/download/x',)");
    assert!(
        line.starts_with("/: com.lomiri.applications.DownloadManager."),
        "{line}"
    );
    for family in ["canonical", "lomiri"] {
        let path = format!("/com/{family}/applications/download/x");
        let state = format!("com.{family}.applications.Download.state");
        assert_eq!(bus.call(NAME, &path, &state, &[]), "(0,)");
        let other = if family == "lomiri" {
            "canonical"
        } else {
            "lomiri"
        };
        let state = format!("com.{other}.applications.Download.state");
        let refused = daemon.refused(&path, &state, &[]);
        assert!(refused.contains("UnknownMethod"), "{refused}");
    }
}

#[test]
fn introspection_is_read_by_others_and_lists_everything() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    let one = daemon.create("http://h/x", "", "", "@a{sv} {}");
    let group = daemon.group(&[("http://h/x".into(), place.file("x"), "")]);
    for (path, parts) in [
        (
            "/",
            &[
                "createMmsDownload",
                "getAllDownloads",
                "downloadCreated",
                "DownloadManager",
            ][..],
        ),
        (
            &one,
            &[
                "setDestinationDir",
                "hashError",
                "DestinationApp",
                "GetMachineId",
            ],
        ),
        (
            &group,
            &["GroupDownload", "processError", "isGSMDownloadAllowed"],
        ),
        ("/com/lomiri", &["applications"]),
    ] {
        let mut gdbus = bus.program("gdbus");
        gdbus.args([
            "introspect",
            "--system",
            "--dest",
            NAME,
            "--object-path",
            path,
        ]);
        let told = gdbus.output().unwrap();
        let text = String::from_utf8(told.stdout).unwrap();
        assert!(told.status.success(), "{path}: {text}");
        for part in parts {
            assert!(text.contains(part), "{part} of {path}: {text}");
        }
    }
}

#[test]
fn what_is_not_there_is_refused() {
    let (bus, place) = (Bus::start(), Place::new());
    let daemon = Daemon::start(&bus, &place);
    let manager = "com.lomiri.applications.DownloadManager";
    for (path, method, arguments, error) in [
        (
            "/nowhere",
            format!("{manager}.exit"),
            &[][..],
            "UnknownObject",
        ),
        ("/", format!("{manager}.fly"), &[], "UnknownMethod"),
        ("/", "org.example.X.fly".into(), &[], "UnknownMethod"),
        (
            "/",
            format!("{manager}.setDefaultThrottle"),
            &["1", "2"],
            "InvalidArgs",
        ),
        (
            "/",
            "org.freedesktop.DBus.Properties.Set".into(),
            &["a", "b", "<1>"],
            "AccessDenied",
        ),
    ] {
        let refused = daemon.refused(path, &method, arguments);
        assert!(refused.contains(error), "{method}: {refused}");
    }
    assert_eq!(
        bus.call(NAME, "/", "org.freedesktop.DBus.Peer.Ping", &[]),
        "()"
    );
    let unknown = daemon.manager("getDownloadState", &["nobody"]);
    assert_eq!(unknown, "((-1, '', '', '', @a{sv} {}),)");
}

#[test]
fn without_permission_nobody_ends_it() {
    let (bus, place) = (Bus::start(), Place::new());
    let mut command = bus.program(env!("CARGO_BIN_EXE_system-image-downloader"));
    command.args(["-disable-timeout", "-what", "ever", "-state-dir"]);
    command.arg(place.file("state"));
    let daemon = Daemon::with(&bus, command);
    let refused = daemon.refused("/", "com.lomiri.applications.DownloadManager.exit", &[]);
    let text = "Daemon should have been started with -stoppable";
    assert!(
        refused.contains("NotSupported") && refused.contains(text),
        "{refused}"
    );
    let mut second: Command = crate::support::command(&bus, &place);
    let second = second.output().unwrap();
    assert_eq!(second.status.code(), Some(1), "the name is taken");
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(
        said.contains("hint: another download service runs"),
        "{said}"
    );
}

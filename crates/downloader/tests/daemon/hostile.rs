//! Callers and servers that mean no good cannot starve or crash it (specification, section 12).

use system_image_testkit::Bus;
use system_image_testkit::http::{Answer, Server};

use crate::support::{Daemon, NAME, Place};

/// Many downloads of one owner, calls with the wrong types, and a flood of questions.
const FLOOD: &str = r#"
import sys, time, dbus, dbus.bus
bus = dbus.bus.BusConnection(sys.argv[1])
service = bus.get_object("com.lomiri.applications.Downloader", "/", introspect=False)
manager = dbus.Interface(service, "com.lomiri.applications.DownloadManager")
request = lambda url, meta: dbus.Struct((url, "", "", dbus.Dictionary(meta, signature="sv"),
    dbus.Dictionary({}, signature="ss")), signature="sssa{sv}a{ss}")
paths = []
for n in range(1000):
    path = manager.createDownload(request(sys.argv[2], {"app-id": "flood"}))
    download = dbus.Interface(bus.get_object(service.bus_name, path, introspect=False),
        "com.lomiri.applications.Download")
    download.start(ignore_reply=True)
    paths.append(path)
def refused(error, call):
    try:
        call()
    except dbus.DBusException as e:
        assert e.get_dbus_name().endswith(error), e
    else:
        raise AssertionError(error)
refused("InvalidArgs", lambda: manager.createDownload(request(sys.argv[2], {"x": "y" * 300000})))
refused("InvalidArgs", lambda: manager.createDownload(1))
refused("UnknownMethod", lambda: manager.createDownloads())
for _ in range(20000):
    manager.defaultThrottle(ignore_reply=True)
while True:
    try:
        assert len(manager.getAllDownloads("flood", False)) == 1000
        break
    except dbus.DBusException as e:
        # The bus itself turns away who still has too many questions open.
        assert e.get_dbus_name().endswith("LimitsExceeded"), e
        time.sleep(0.05)
print("done")
"#;

#[test]
fn a_flood_of_downloads_and_calls_keeps_nobody_else_from_his() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| match asked.path.as_str() {
        "/endless" => Answer::endless(),
        _ => Answer::file(asked, b"x", "\"1\""),
    });
    let daemon = Daemon::start(&bus, &place);
    let throttled = daemon.create(&server.url("/endless"), "", "", "{'app-id': <'endless'>}");
    daemon.call(&throttled, "setThrottle", &["100000"]);
    daemon.call(&throttled, "start", &[]);
    let mut flood = bus.program("/usr/bin/python3");
    let hangs = Server::start(|_| Answer::whole(b"xy", "").hang(1));
    flood.args(["-c", FLOOD, bus.address(), &hangs.url("/x")]);
    let flood = flood.output().unwrap();
    let text = String::from_utf8_lossy(&flood.stderr);
    assert!(flood.status.success(), "{text}");
    let file = place.file("mine");
    let path = daemon.fetch(&server.url("/x"), &file);
    daemon.call(&path, "start", &[]);
    daemon.until(&path, "finished");
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(
        peak < 128 << 10,
        "{peak} kB, although this is not an optimised build"
    );
    daemon.call(&throttled, "cancel", &[]);
    assert_eq!(
        bus.call(NAME, "/", "org.freedesktop.DBus.Peer.Ping", &[]),
        "()"
    );
}

#[test]
fn headers_without_end_are_an_error() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|_| {
        let header = format!("X: {}\r\n", "y".repeat(2 << 20));
        Answer::whole(b"x", &header)
    });
    let daemon = Daemon::start(&bus, &place);
    let path = daemon.fetch(&server.url("/x"), &place.file("x"));
    daemon.call(&path, "start", &[]);
    let signals = daemon.until(&path, "error");
    assert_eq!(signals.last().unwrap(), "error ('NETWORK ERROR',)");
    assert_eq!(place.files(), [""; 0]);
}

//! The queue, mobile data and limits (specification, section 14).

use std::fs;
use std::time::Instant;

use system_image_testkit::http::{Answer, Server};
use system_image_testkit::{Bus, Mock};

use crate::support::{DOWNLOAD, Daemon, Place, noise, path_of};

const NM: &str = "org.freedesktop.NetworkManager";
const NM_PATH: &str = "/org/freedesktop/NetworkManager";

/// Makes a connection of this type, and lets it lead to the world.
fn lead(manager: &Mock<'_>, kind: &str) {
    let path = format!("{NM_PATH}/ActiveConnection/{}", kind.replace('-', "_"));
    let properties = format!("{{'Type': <'{kind}'>, 'State': <uint32 2>, 'Devices': <@ao []>}}");
    let active = "org.freedesktop.NetworkManager.Connection.Active";
    manager.add(&path, active, &properties);
    manager.set(NM, "ActiveConnections", &format!("<[objectpath '{path}']>"));
    manager.set(NM, "PrimaryConnection", &format!("<objectpath '{path}'>"));
}

#[test]
fn one_runs_per_owner_and_owners_do_not_wait_for_each_other() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| Answer::file(asked, &noise(300_000), "\"1\""));
    let daemon = Daemon::start(&bus, &place);
    let owned = |owner: &str| format!("{{'app-id': <'{owner}'>}}");
    let first = daemon.create(&server.url("/1"), "", "", &owned("one"));
    let second = daemon.create(&server.url("/2"), "", "", &owned("one"));
    let other = daemon.create(&server.url("/3"), "", "", &owned("two"));
    for path in [&first, &second, &other] {
        daemon.call(path, "setThrottle", &["100000"]);
    }
    daemon.call(&second, "start", &[]);
    daemon.until(&second, "started");
    daemon.call(&first, "start", &[]);
    assert_eq!(daemon.call(&first, "state", &[]), "(1,)");
    let waits = daemon.waits();
    assert!(
        waits.contains(&first) && waits.contains("'turn'"),
        "{waits}"
    );
    daemon.call(&other, "start", &[]);
    daemon.until(&other, "started");
    daemon.call(&second, "setThrottle", &["0"]);
    daemon.until(&second, "finished");
    let signals = daemon.until(&first, "started");
    assert_eq!(signals, ["started (true,)"]);
    let listed = daemon.manager("getAllDownloads", &["one", "false"]);
    assert!(
        listed.contains(&first) && !listed.contains(&other),
        "{listed}"
    );
}

#[test]
fn wifi_only_waits_for_wifi_and_stops_when_it_is_gone() {
    let (bus, place) = (Bus::start(), Place::new());
    let body = noise(1_000_000);
    let content = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &content, "\"1\""));
    let manager = Mock::start(&bus, "networkmanager", "{}");
    lead(&manager, "gsm");
    let daemon = Daemon::start(&bus, &place);
    let file = place.file("x");
    let path = daemon.fetch(&server.url("/x"), &file);
    daemon.call(&path, "allowGSMDownload", &["false"]);
    daemon.call(&path, "setThrottle", &["200000"]);
    daemon.call(&path, "start", &[]);
    let waits = daemon.waits();
    assert!(
        waits.contains("('wifi', 'waits for Wi-Fi or a cable')"),
        "{waits}"
    );
    assert_eq!(server.asked().len(), 0);

    lead(&manager, "802-11-wireless");
    daemon.until(&path, "started");
    place.waits_for("x.tmp");
    lead(&manager, "cdma");
    let signals = daemon.until(&path, "paused");
    assert_eq!(signals.last().unwrap(), "paused (true,)");
    assert_eq!(daemon.call(&path, "state", &[]), "(1,)", "the wish stays");
    daemon.call(&path, "setThrottle", &["0"]);
    lead(&manager, "802-3-ethernet");
    let signals = daemon.until(&path, "finished");
    assert_eq!(signals[0], "resumed (true,)");
    let asked = server.asked();
    assert!(asked.last().unwrap().range().is_some_and(|first| first > 0));
    assert_eq!(fs::read(&file).unwrap(), body);
}

#[test]
fn allowing_mobile_data_lets_a_waiting_download_go() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| Answer::file(asked, b"x", "\"1\""));
    let manager = Mock::start(&bus, "networkmanager", "{}");
    lead(&manager, "gsm");
    let daemon = Daemon::start(&bus, &place);
    let path = daemon.fetch(&server.url("/x"), &place.file("x"));
    daemon.manager("allowGSMDownload", &["false"]);
    daemon.call(&path, "start", &[]);
    daemon.waits();
    daemon.call(&path, "allowGSMDownload", &["true"]);
    daemon.until(&path, "finished");
}

#[test]
fn a_limit_limits_and_can_be_changed() {
    let (bus, place) = (Bus::start(), Place::new());
    let server = Server::start(|asked| Answer::file(asked, &noise(200_000), "\"1\""));
    let daemon = Daemon::start(&bus, &place);
    let path = daemon.fetch(&server.url("/x"), &place.file("x"));
    daemon.call(&path, "setThrottle", &["1000"]);
    let begun = Instant::now();
    daemon.call(&path, "start", &[]);
    let mut last = 0_u64;
    while last < 1500 {
        let line = daemon.line_with(&format!("{path}: {DOWNLOAD}.progress"));
        let received = line.split("uint64 ").nth(1).unwrap();
        last = received.split(',').next().unwrap().parse().unwrap();
    }
    let took = begun.elapsed().as_secs_f64();
    assert!(took > 1.0, "1500 bytes at 1000 a second took {took} s");
    assert!(last < 20_000, "without a limit all would be there: {last}");
    daemon.call(&path, "setThrottle", &["0"]);
    daemon.until(&path, "finished");
    assert!(begun.elapsed().as_secs() < 60, "the rest was not limited");
}

#[test]
fn a_message_comes_through_its_proxy_and_waits_for_nobody() {
    let (bus, place) = (Bus::start(), Place::new());
    let proxy = Server::start(|asked| match asked.path.as_str() {
        "http://mms.example/message" => Answer::whole(b"mms", ""),
        _ => Answer::status("400 Bad Request"),
    });
    let slow = Server::start(|asked| Answer::file(asked, &noise(100_000), "\"1\""));
    let daemon = Daemon::start(&bus, &place);
    let first = daemon.fetch(&slow.url("/x"), &place.file("x"));
    daemon.call(&first, "setThrottle", &["1000"]);
    daemon.call(&first, "start", &[]);
    daemon.until(&first, "started");
    let port = proxy.port().to_string();
    let arguments = ["http://mms.example/message", "127.0.0.1", &port];
    let path = path_of(&daemon.manager("createMmsDownload", &arguments));
    daemon.call(&path, "start", &[]);
    let signals = daemon.until(&path, "finished");
    let file = place.downloads().join("message");
    assert_eq!(signals.last().unwrap(), &format!("finished ('{file}',)"));
    assert_eq!(fs::read(file).unwrap(), b"mms");
    assert!(
        daemon
            .call(&path, "metadata", &[])
            .contains("'indicator-shown': <false>")
    );
}

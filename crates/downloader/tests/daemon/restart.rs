//! Downloads outlive the process (specification, sections 17 and 21).

use std::fs;

use system_image_testkit::Bus;
use system_image_testkit::http::{Answer, Server};

use crate::support::{Daemon, Place, names, noise};

#[test]
fn what_ran_goes_on_and_what_rested_rests() {
    let (bus, place) = (Bus::start(), Place::new());
    let body = noise(2_000_000);
    let content = body.clone();
    let server = Server::start(move |asked| Answer::file(asked, &content, "\"1\""));
    let daemon = Daemon::start(&bus, &place);
    let owned = |owner: &str| {
        let place = place.file(owner);
        format!("{{'app-id': <'{owner}'>, 'local-path': <'{place}'>, 'n': <uint32 7>}}")
    };
    let running = daemon.create(&server.url("/x"), "", "", &owned("running"));
    let paused = daemon.create(&server.url("/x"), "", "", &owned("paused"));
    let idle = daemon.create(&server.url("/x"), "", "", &owned("idle"));
    let complete = daemon.create(&server.url("/x"), "", "", &owned("complete"));
    let group = daemon.group(&[
        (server.url("/a"), place.file("ga"), ""),
        (server.url("/b"), place.file("gb"), ""),
    ]);
    for (path, name) in [(&running, "running.tmp"), (&paused, "paused.tmp")] {
        daemon.call(path, "setThrottle", &["300000"]);
        daemon.call(path, "start", &[]);
        place.waits_for(name);
    }
    daemon.call(&paused, "pause", &[]);
    daemon.until(&paused, "paused");
    daemon.call(&complete, "start", &[]);
    daemon.until(&complete, "finished");
    let throttle = "com.lomiri.applications.GroupDownload.setThrottle";
    bus.call(crate::support::NAME, &group, throttle, &["300000"]);
    daemon.call_group(&group, "start");
    place.waits_for("ga.tmp");
    daemon.kill();

    let before = server.asked().len();
    let daemon = Daemon::start(&bus, &place);
    for (path, state) in [
        (&running, "(1,)"),
        (&paused, "(2,)"),
        (&idle, "(0,)"),
        (&complete, "(5,)"),
    ] {
        assert_eq!(daemon.call(path, "state", &[]), state, "{path}");
        assert!(
            daemon
                .call(path, "metadata", &[])
                .contains("'n': <uint32 7>")
        );
    }
    assert_eq!(daemon.call(&running, "throttle", &[]), "(uint64 300000,)");
    daemon.call(&running, "setThrottle", &["0"]);
    bus.call(crate::support::NAME, &group, throttle, &["0"]);
    let signals = daemon.until(&running, "finished");
    assert_eq!(names(&signals).last(), Some(&"finished"));
    daemon.call(&paused, "setThrottle", &["0"]);
    daemon.call(&paused, "resume", &[]);
    daemon.until(&paused, "finished");
    for name in ["running", "paused", "complete"] {
        assert_eq!(fs::read(place.file(name)).unwrap(), body, "{name}");
    }
    let asked = server.asked();
    let resumed = asked[before..]
        .iter()
        .filter(|asked| asked.range().is_some());
    assert!(resumed.count() >= 2, "{asked:?}");
    // The group may have ended before anybody listened.
    loop {
        let listed = daemon.manager("getAllDownloads", &["", "false"]);
        if !listed.contains(&group) {
            break;
        }
    }
    for name in ["ga", "gb"] {
        assert_eq!(fs::read(place.file(name)).unwrap(), body, "{name}");
    }
    daemon.call(&complete, "collected", &[]);
    let left: Vec<String> = place
        .files()
        .into_iter()
        .filter(|name| name.contains(".tmp"))
        .collect();
    assert_eq!(left, [""; 0], "nothing is orphaned");
    assert_eq!(daemon.manager("exit", &[]), "()");
    assert_eq!(daemon.wait(), Some(0));
}

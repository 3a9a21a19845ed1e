//! The same against a download manager that others wrote.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use camino::Utf8Path;
use sha2::Digest;
use system_image_bus::download::{Cause, Event, Failure, Group, Record};
use system_image_formats::checksum::Sha256;
use system_image_testkit::{Bus, Fault, Web};

use crate::{connect, run};

const PROGRAM: &str = "/usr/bin/lomiri-download-manager";

/// The daemon on a bus, ended when dropped.
struct Daemon(Child);

impl Daemon {
    fn start(bus: &Bus, home: &Utf8Path) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            eprintln!("not tested: {PROGRAM} is not installed");
            return None;
        }
        let mut daemon = bus.program(PROGRAM);
        daemon.arg("-disable-timeout");
        daemon.args(["-log-dir", home.as_str()]);
        daemon.env("HOME", home).env("XDG_DATA_HOME", home);
        let daemon = daemon.stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = Self(daemon.spawn().unwrap());
        bus.wait_for("com.lomiri.applications.Downloader");
        Some(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn digest(bytes: &[u8]) -> Sha256 {
    <[u8; 32]>::from(sha2::Sha256::digest(bytes)).into()
}

/// Starts a group and waits for its last event.
async fn outcome(group: &Group) -> Event {
    group.allow_mobile(true).await.unwrap();
    group.start().await.unwrap();
    loop {
        let event = group.next().await.unwrap().unwrap();
        if event.is_last() {
            return event;
        }
    }
}

#[test]
fn lomiris_manager_downloads_pauses_and_fails() {
    run(async {
        let (bus, dir) = (Bus::start(), tempfile::tempdir().unwrap());
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let (served, cache) = (dir.join("served"), dir.join("cache"));
        fs::create_dir(&served).unwrap();
        fs::create_dir(&cache).unwrap();
        fs::write(served.join("a"), b"the file").unwrap();
        fs::write(served.join("a.asc"), b"its signature").unwrap();
        let Some(_daemon) = Daemon::start(&bus, dir) else {
            return;
        };
        let (web, connection) = (Web::of(&served), connect(&bus).await);
        let record = |name: &str, sha256| Record {
            url: format!("http://127.0.0.1:{}/{name}", web.port()),
            destination: cache.join(name),
            sha256,
        };
        let headers = [("User-Agent", "system-image test")];

        let records = [
            record("a", Some(digest(b"the file"))),
            record("a.asc", None),
        ];
        let group = Group::create(&connection, &records, false, &headers).await;
        let Event::Finished(mut paths) = outcome(&group.unwrap()).await else {
            panic!("not finished");
        };
        paths.sort();
        assert_eq!(paths, [cache.join("a"), cache.join("a.asc")]);
        assert_eq!(fs::read(cache.join("a")).unwrap(), b"the file");
        let agents = web.asked();
        let agents = agents.iter().map(|asked| asked.header("User-Agent"));
        assert!(agents.into_iter().all(|agent| agent == Some(headers[0].1)));

        let missing = record("missing", None);
        let url = missing.url.clone();
        let group = Group::create(&connection, &[missing], false, &headers).await;
        let failed = outcome(&group.unwrap()).await;
        let Event::Failed(Failure { text, cause }) = failed else {
            panic!("{failed:?}");
        };
        assert_eq!(text, format!("{url}:NETWORK ERROR"));
        assert!(
            matches!(&cause, Some(Cause::Http { status: 404, url: known, .. }) if *known == url),
            "{cause:?}"
        );

        fs::write(served.join("b"), [7; 4096]).unwrap();
        web.fails("/b", Fault::Stall(1024));
        let group = Group::create(&connection, &[record("b", None)], false, &headers).await;
        let group = group.unwrap();
        group.start().await.unwrap();
        let until = async |wanted: fn(&Event) -> bool| {
            while !wanted(&group.next().await.unwrap().unwrap()) {}
        };
        until(|event| *event == Event::Started).await;
        group.pause().await.unwrap();
        until(|event| *event == Event::Paused).await;
        group.resume().await.unwrap();
        until(|event| *event == Event::Resumed).await;
        group.cancel().await.unwrap();
        until(|event| *event == Event::Canceled).await;
        assert!(!cache.join("b").exists());
    });
}

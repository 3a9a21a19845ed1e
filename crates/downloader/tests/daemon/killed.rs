//! The process is killed again and again while twenty downloads are under way: each ends right in the
//! end, or says why not; none is corrupt, none is lost, nothing is left.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use camino::Utf8PathBuf;
use system_image_testkit::Bus;
use system_image_testkit::http::{Answer, Server};

use crate::support::{Daemon, NAME, Place, noise, sha256};

const ROUNDS: usize = 8;
const KILLS: usize = 25;

/// Bytes of each file, and how many of them come in a second: enough for some kills.
const LEN: usize = 1_500_000;
const THROTTLE: &str = "700000";

/// What a download is to bring.
struct Wanted {
    path: String,
    files: Vec<Utf8PathBuf>,
    group: bool,
    /// Whether the server has it.
    there: bool,
}

/// A number that looks random.
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    *state >> 33
}

#[test]
fn twenty_downloads_survive_two_hundred_kills() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut random = u64::from(since.unwrap().subsec_nanos());
    eprintln!("seed {random}");
    let body = noise(LEN);
    let (digest, content) = (sha256(&body), body.clone());
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/gone" => Answer::status("404 Not Found"),
        _ => Answer::file(asked, &content, "\"1\""),
    });
    let bus = Bus::start();
    for _ in 0..ROUNDS {
        let place = Place::new();
        let mut daemon = Daemon::start(&bus, &place);
        let wanted = begin(&daemon, &place, &server, &digest);
        for _ in 0..KILLS {
            sleep(Duration::from_millis(next(&mut random) % 300));
            daemon.kill();
            for file in wanted.iter().flat_map(|one| &one.files) {
                if let Ok(found) = fs::read(file) {
                    assert!(found == body, "`{file}` is corrupt");
                }
            }
            daemon = Daemon::start(&bus, &place);
        }
        end(&daemon, &wanted, &body);
        let parts: Vec<String> = place
            .files()
            .into_iter()
            .filter(|name| name.contains(".tmp"))
            .collect();
        assert_eq!(parts, [""; 0]);
        daemon.kill();
    }
}

fn begin(daemon: &Daemon<'_>, place: &Place, server: &Server, digest: &str) -> Vec<Wanted> {
    let mut all = Vec::new();
    for n in 0..17 {
        let file = place.file(&format!("f{n}"));
        let metadata = format!("{{'app-id': <'{n}'>, 'local-path': <'{file}'>}}");
        let there = n != 3;
        let url = server.url(if there { "/x" } else { "/gone" });
        let hash = if n % 2 == 0 { digest } else { "" };
        let path = daemon.create(&url, hash, "sha256", &metadata);
        all.push(Wanted {
            path,
            files: vec![file],
            group: false,
            there,
        });
    }
    for n in 0..3 {
        let files = [place.file(&format!("g{n}a")), place.file(&format!("g{n}b"))];
        let hashes = [digest, ""];
        let records: Vec<_> = files
            .iter()
            .zip(hashes)
            .map(|(file, hash)| (server.url("/x"), file.clone(), hash))
            .collect();
        all.push(Wanted {
            path: daemon.group(&records),
            files: files.to_vec(),
            group: true,
            there: true,
        });
    }
    for one in &all {
        let interface = if one.group {
            "GroupDownload"
        } else {
            "Download"
        };
        let call = |method: &str, arguments: &[&str]| {
            let method = format!("com.lomiri.applications.{interface}.{method}");
            daemon.bus.call(NAME, &one.path, &method, arguments)
        };
        call("setThrottle", &[THROTTLE]);
        call("start", &[]);
    }
    all
}

/// Lets everything end, and looks at it.
fn end(daemon: &Daemon<'_>, wanted: &[Wanted], body: &[u8]) {
    for one in wanted {
        let interface = if one.group {
            "GroupDownload"
        } else {
            "Download"
        };
        let throttle = format!("com.lomiri.applications.{interface}.setThrottle");
        // It may be over.
        daemon.bus.try_call(NAME, &one.path, &throttle, &["0"]);
    }
    let is_listed = |one: &Wanted| {
        let listed = daemon.manager("getAllDownloads", &["", "false"]);
        listed.contains(&one.path)
    };
    for one in wanted {
        let id = one.path.rsplit('/').next().unwrap();
        if one.group {
            while is_listed(one) {}
        } else {
            let state = if one.there { "((5, " } else { "((7, " };
            while !daemon.manager("getDownloadState", &[id]).starts_with(state) {
                sleep(Duration::from_millis(20));
            }
        }
        for file in &one.files {
            let found = fs::read(file).ok();
            assert_eq!(found.is_some(), one.there, "{file}");
            assert!(found.is_none_or(|found| found == body), "{file}");
        }
    }
}

//! The download service beside the one of Debian, `curl` and `aria2c`: a large file at full speed, and
//! what it holds while it waits, while much is queued, and while much runs.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use camino::Utf8Path;
use system_image_demo::measure::Cost;
use system_image_formats::hash::Hasher;
use system_image_testkit::{Bus, Monitor};

use crate::contest::{Side, contest};
use crate::lab::{Lab, settle, shell};
use crate::nginx::Nginx;
use crate::process;
use crate::table::{Limit, Table};

const NAME: &str = "com.lomiri.applications.Downloader";
const MANAGER: &str = "com.lomiri.applications.DownloadManager";
const DOWNLOAD: &str = "com.lomiri.applications.Download";

/// Size of the large file in MiB.
const MEBIBYTES: usize = 1024;

/// After so long it has given back what it does not need while it waits.
const NOTICES: Duration = Duration::from_secs(4);

/// Makes many downloads, starts them, and times calls of one of them: `ADDRESS URL DIRECTORY COUNT THROTTLE
/// CALLS`. Prints the 99th percentile in seconds.
const MANY: &str = r#"
import sys, time, dbus, dbus.bus
address, url, directory, count, throttle, calls = sys.argv[1:]
bus = dbus.bus.BusConnection(address)
service = bus.get_object("com.lomiri.applications.Downloader", "/", introspect=False)
manager = dbus.Interface(service, "com.lomiri.applications.DownloadManager")
downloads = []
for n in range(int(count)):
    metadata = dbus.Dictionary({"app-id": str(n), "local-path": f"{directory}/many-{n}"}, signature="sv")
    path = manager.createDownload(dbus.Struct((url, "", "", metadata, dbus.Dictionary({}, signature="ss"))))
    one = bus.get_object(service.bus_name, path, introspect=False)
    downloads.append(dbus.Interface(one, "com.lomiri.applications.Download"))
if int(throttle):
    for one in downloads:
        one.setThrottle(dbus.UInt64(int(throttle)))
        one.start()
    time.sleep(1)
took = []
for n in range(int(calls)):
    begun = time.monotonic()
    downloads[n % len(downloads)].state()
    took.append(time.monotonic() - begun)
took.sort()
print(took[len(took) * 99 // 100] if took else 0)
"#;

/// A service that downloads.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    ours: bool,
}

const KINDS: [Kind; 2] = [
    Kind {
        name: "system-image-downloader",
        ours: true,
    },
    Kind {
        name: "lomiri-download-manager",
        ours: false,
    },
];

pub(crate) fn run(lab: &Lab, table: &mut Table) -> anyhow::Result<()> {
    let www = lab.path("downloads-www")?;
    fs::create_dir_all(&www)?;
    let digest = write_large(&www.join("large"))?;
    let nginx = Nginx::start(&lab.path("downloads-nginx")?, &www)?;
    let url = format!("http://{}/large", nginx.address);
    let place = lab.path("downloaded")?;
    let bus = Bus::start();
    settle()?;
    let by = |kind: Kind, hash: &str| {
        let (bus, url, place) = (&bus, url.clone(), place.clone());
        let hash = hash.to_owned();
        Side::new(kind.name, move || {
            let service = Service::start(lab, kind, bus)?;
            let cost = service.fetch(&url, &hash, &place)?;
            drop(service);
            fs::remove_file(&place)?;
            settle()?;
            Ok(cost)
        })
    };
    let tool = |script: &'static str| {
        let (url, place) = (url.clone(), place.clone());
        move || {
            let cost = shell(script, &[&url, place.as_str()])?;
            fs::remove_file(&place)?;
            settle()?;
            Ok(cost)
        }
    };
    let what = format!("downloading {MEBIBYTES} MiB over the loopback");
    let curl = "curl --silent --show-error --fail --output \"$2\" \"$1\"";
    let aria = "aria2c --quiet --file-allocation=none --dir=/ --out=\"$2\" \"$1\"";
    let mut sides = vec![
        by(KINDS[0], ""),
        Side::new("curl", tool(curl)),
        Side::new("aria2c", tool(aria)),
        by(KINDS[1], ""),
    ];
    let costs = contest(&what, lab.rounds, &mut sides)?;
    let names: Vec<String> = sides.iter().map(|side| side.name.clone()).collect();
    drop(sides);
    table.row(&what, names.iter().map(String::as_str).zip(&costs), None);

    let what = format!("{what}, with its SHA-256");
    let mut sides = vec![by(KINDS[0], &digest), by(KINDS[1], &digest)];
    let costs = contest(&what, lab.rounds, &mut sides)?;
    drop(sides);
    table.row(
        &what,
        KINDS.map(|kind| kind.name).into_iter().zip(&costs),
        None,
    );

    waiting(lab, &bus, table)?;
    many(lab, &bus, &url, table)
}

/// What it holds while nobody asks.
fn waiting(lab: &Lab, bus: &Bus, table: &mut Table) -> anyhow::Result<()> {
    let what = "the download service, waiting";
    let mut sides = KINDS.map(|kind| {
        Side::new(kind.name, move || {
            let service = Service::start(lab, kind, bus)?;
            sleep(NOTICES);
            let used = process::used(service.child.id())?;
            Ok(Cost {
                seconds: 0.0,
                cpu: used.cpu,
                memory: used.resident,
            })
        })
    });
    let costs = contest(what, lab.rounds, &mut sides)?;
    drop(sides);
    let limit = Limit {
        seconds: None,
        memory: 8.0,
    };
    table.row_within(
        what,
        KINDS.map(|kind| kind.name).into_iter().zip(&costs),
        limit,
    );
    Ok(())
}

/// A thousand that are queued, and calls while twenty run.
fn many(lab: &Lab, bus: &Bus, url: &str, table: &mut Table) -> anyhow::Result<()> {
    let directory = lab.path("many")?;
    let ours = |count: &'static str, throttle: &'static str, calls: &'static str| {
        let directory = directory.clone();
        move || {
            fs::create_dir_all(&directory)?;
            let service = Service::start(lab, KINDS[0], bus)?;
            let mut python = Command::new("/usr/bin/python3");
            python.args([
                "-c",
                MANY,
                bus.address(),
                url,
                directory.as_str(),
                count,
                throttle,
                calls,
            ]);
            let told = python.output().context("cannot run python3")?;
            ensure!(told.status.success(), "{told:?}");
            let seconds = String::from_utf8(told.stdout)?.trim().parse()?;
            let used = process::used(service.child.id())?;
            drop(service);
            fs::remove_dir_all(&directory)?;
            Ok(Cost {
                seconds,
                cpu: used.cpu,
                memory: used.most,
            })
        }
    };
    let what = "1,000 downloads that are queued";
    let mut sides = [Side::new("ours", ours("1000", "0", "0"))];
    let costs = contest(what, lab.rounds, &mut sides)?;
    let limit = Limit {
        seconds: None,
        memory: 64.0,
    };
    table.row_within(what, [(KINDS[0].name, &costs[0])], limit);
    let what = "a call while 20 downloads run at 20 MB/s each, 99th percentile of 2,000";
    let mut sides = [Side::new("ours", ours("20", "20000000", "2000"))];
    let costs = contest(what, lab.rounds, &mut sides)?;
    let limit = Limit {
        seconds: Some(0.020),
        memory: 64.0,
    };
    table.row_within(what, [(KINDS[0].name, &costs[0])], limit);
    Ok(())
}

/// Writes the large file; its digest. Not zeros: some file systems store those for nothing.
fn write_large(path: &Utf8Path) -> anyhow::Result<String> {
    let mut file = File::create(path)?;
    let mut hasher = Hasher::default();
    let piece: Vec<u8> = (0..1_u32 << 20)
        .map(|n| n.to_le_bytes()[(n % 3) as usize])
        .collect();
    for _ in 0..MEBIBYTES {
        file.write_all(&piece)?;
        hasher.update(&piece);
    }
    Ok(hasher.finish().to_string())
}

/// A service on a bus. It ends when dropped.
struct Service<'a> {
    bus: &'a Bus,
    child: Child,
}

impl<'a> Service<'a> {
    fn start(lab: &Lab, kind: Kind, bus: &'a Bus) -> anyhow::Result<Self> {
        let mut program = if kind.ours {
            let mut program = bus.program(lab.programs.join(kind.name).as_str());
            let state = lab.path("downloads-state")?;
            if state.exists() {
                fs::remove_dir_all(&state)?;
            }
            program.args(["-state-dir", state.as_str()]);
            program
        } else {
            bus.program(kind.name)
        };
        program.args(["-disable-timeout", "-stoppable"]);
        program.stdout(Stdio::null()).stderr(Stdio::null());
        let child = program.spawn().context(kind.name)?;
        bus.wait_for(NAME);
        Ok(Self { bus, child })
    }

    /// Downloads a file, and tells what that took.
    fn fetch(&self, url: &str, hash: &str, to: &Utf8Path) -> anyhow::Result<Cost> {
        let monitor = Monitor::of(self.bus, NAME);
        let request =
            format!("('{url}', '{hash}', 'sha256', {{'local-path': <'{to}'>}}, @a{{ss}} {{}})");
        let create = format!("{MANAGER}.createDownload");
        let answer = self.bus.call(NAME, "/", &create, &[&request]);
        let path = answer.split('\'').nth(1).context("no path")?;
        let before = process::used(self.child.id())?;
        let begun = Instant::now();
        self.bus.call(NAME, path, &format!("{DOWNLOAD}.start"), &[]);
        loop {
            let signal = monitor.signal(path, DOWNLOAD);
            ensure!(!signal.starts_with("error "), "{signal}");
            if signal.starts_with("finished ") {
                break;
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let used = process::used(self.child.id())?;
        Ok(Cost {
            seconds,
            cpu: used.cpu - before.cpu,
            memory: used.most,
        })
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

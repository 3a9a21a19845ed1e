//! The real daemon on a bus of its own, called and listened to by `GLib`'s tools.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use system_image_formats::hash::Hasher;
use system_image_testkit::{Bus, Monitor};
use tempfile::TempDir;

pub(crate) const NAME: &str = "com.lomiri.applications.Downloader";
pub(crate) const MANAGER: &str = "com.lomiri.applications.DownloadManager";
pub(crate) const DOWNLOAD: &str = "com.lomiri.applications.Download";
pub(crate) const GROUP: &str = "com.lomiri.applications.GroupDownload";

/// Longer than anything takes that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A place for a daemon's files, which outlives the daemon.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Utf8Path {
        Utf8Path::from_path(self.0.path()).unwrap()
    }

    /// A path for a file that is not there.
    pub(crate) fn file(&self, name: &str) -> Utf8PathBuf {
        self.path().join(name)
    }

    /// The directory of downloads for which no place is given.
    pub(crate) fn downloads(&self) -> Utf8PathBuf {
        self.path().join("state/Downloads")
    }

    /// Waits until a file has some bytes.
    pub(crate) fn waits_for(&self, name: &str) {
        let begun = Instant::now();
        while fs::metadata(self.file(name)).map_or(0, |found| found.len()) == 0 {
            assert!(begun.elapsed() < PATIENCE, "`{name}` stays empty");
            sleep(Duration::from_millis(10));
        }
    }

    /// Everything in it that is no database: files of downloads, however they are called.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        for directory in [self.path().to_owned(), self.downloads()] {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    names.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        names.sort();
        names
    }
}

/// The daemon.
pub(crate) struct Daemon<'a> {
    pub(crate) bus: &'a Bus,
    child: Child,
    monitor: Monitor,
}

impl<'a> Daemon<'a> {
    pub(crate) fn start(bus: &'a Bus, place: &Place) -> Self {
        Self::with(bus, command(bus, place))
    }

    pub(crate) fn with(bus: &'a Bus, mut command: Command) -> Self {
        let monitor = Monitor::of(bus, NAME);
        let child = command.spawn().unwrap();
        bus.wait_for(NAME);
        Self {
            bus,
            child,
            monitor,
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Calls the manager.
    pub(crate) fn manager(&self, method: &str, arguments: &[&str]) -> String {
        self.bus
            .call(NAME, "/", &format!("{MANAGER}.{method}"), arguments)
    }

    /// Calls the manager and expects an error; what `gdbus` prints of it.
    pub(crate) fn refused(&self, path: &str, method: &str, arguments: &[&str]) -> String {
        let answer = self.bus.try_call(NAME, path, method, arguments);
        assert!(
            !answer.status.success(),
            "{method} {arguments:?}: {answer:?}"
        );
        String::from_utf8(answer.stderr).unwrap()
    }

    /// Makes a download; its path.
    pub(crate) fn create(&self, url: &str, hash: &str, algorithm: &str, metadata: &str) -> String {
        let request = format!("('{url}', '{hash}', '{algorithm}', {metadata}, @a{{ss}} {{}})");
        path_of(&self.manager("createDownload", &[&request]))
    }

    /// Makes a download for an exact place, without anything else.
    pub(crate) fn fetch(&self, url: &str, to: &Utf8Path) -> String {
        self.create(url, "", "", &local_path(to))
    }

    /// Makes a group of (URL, place, digest).
    pub(crate) fn group(&self, files: &[(String, Utf8PathBuf, &str)]) -> String {
        let files: Vec<String> = files
            .iter()
            .map(|(url, place, hash)| format!("('{url}', '{place}', '{hash}')"))
            .collect();
        let files = format!("@a(sss) [{}]", files.join(", "));
        let arguments = [&files[..], "'sha256'", "true", "@a{sv} {}", "@a{ss} {}"];
        path_of(&self.manager("createDownloadGroup", &arguments))
    }

    /// Calls a download.
    pub(crate) fn call(&self, path: &str, method: &str, arguments: &[&str]) -> String {
        self.bus
            .call(NAME, path, &format!("{DOWNLOAD}.{method}"), arguments)
    }

    /// Calls a group.
    pub(crate) fn call_group(&self, path: &str, method: &str) -> String {
        self.bus.call(NAME, path, &format!("{GROUP}.{method}"), &[])
    }

    /// The signals of a download up to one of this name, without repeated progress.
    pub(crate) fn until(&self, path: &str, name: &str) -> Vec<String> {
        self.until_of(path, DOWNLOAD, name)
    }

    pub(crate) fn group_until(&self, path: &str, name: &str) -> Vec<String> {
        self.until_of(path, GROUP, name)
    }

    fn until_of(&self, path: &str, interface: &str, name: &str) -> Vec<String> {
        let mut signals: Vec<String> = Vec::new();
        loop {
            let signal = self.monitor.signal(path, interface);
            let is = |name: &str| signal.starts_with(&format!("{name} "));
            let found = is(name);
            if is("progress")
                && signals
                    .last()
                    .is_some_and(|last| last.starts_with("progress "))
            {
                signals.pop();
            }
            signals.push(signal);
            if found {
                return signals;
            }
        }
    }

    /// The next line of the monitor with this in it.
    pub(crate) fn line_with(&self, text: &str) -> String {
        loop {
            let line = self.monitor.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// What a download waits for, when that changes.
    pub(crate) fn waits(&self) -> String {
        loop {
            let line = self.line_with("Download1.Waits");
            if line.starts_with("/com/lomiri") {
                return line;
            }
        }
    }

    /// Kills it where it stands.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has left by itself; its exit status.
    pub(crate) fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The daemon, ready to start.
pub(crate) fn command(bus: &Bus, place: &Place) -> Command {
    let mut command = bus.program(env!("CARGO_BIN_EXE_system-image-downloader"));
    command.args(["-disable-timeout", "-stoppable", "-state-dir"]);
    command.arg(place.path().join("state"));
    for proxy in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        command.env_remove(proxy);
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn local_path(to: &Utf8Path) -> String {
    format!("{{'local-path': <'{to}'>}}")
}

/// The path in an answer like `(objectpath '/a/b',)`.
pub(crate) fn path_of(answer: &str) -> String {
    let path = answer.split('\'').nth(1);
    path.unwrap_or_else(|| panic!("no path: {answer}"))
        .to_owned()
}

/// The names of signals.
pub(crate) fn names(signals: &[String]) -> Vec<&str> {
    signals
        .iter()
        .map(|signal| signal.split(' ').next().unwrap())
        .collect()
}

/// Bytes that look like nothing.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// The digest of bytes, as text.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish().to_string()
}

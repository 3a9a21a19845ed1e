//! A server whose commands are killed at random, and a client that never notices.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How many commands are killed.
const KILLS: usize = 200;

/// A small generator: a run that fails can be repeated with its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Lab {
    place: tempfile::TempDir,
    programs: PathBuf,
}

impl Lab {
    fn root(&self) -> PathBuf {
        self.place.path().join("server")
    }

    fn server(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("system-image-server"));
        command.arg("--root").arg(self.root()).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.server(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        output
    }

    /// The source that imports read, with other content.
    fn source(&self, round: usize) {
        let tree = self.place.path().join("tree");
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/version"), "x".repeat(round + 1)).unwrap();
        fs::write(tree.join(format!("etc/only-{}", round % 3)), "y").unwrap();
        let archive = self.place.path().join("source.tar");
        let status = Command::new("tar")
            .args(["-c", "--sort=name", "--mtime=@1700000000", "-f"])
            .arg(archive.with_extension("new"))
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .status();
        assert!(status.unwrap().success());
        fs::rename(archive.with_extension("new"), archive).unwrap();
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn serve(lab: &Lab) -> (Running, u16) {
    let mut child = lab
        .server(&["serve", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = child.stdout.take().unwrap();
    let running = Running(child);
    BufReader::new(output).read_line(&mut line).unwrap();
    let port = line
        .trim()
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap();
    (running, port.parse().unwrap())
}

/// A device's configuration for this server.
fn device(lab: &Lab, port: u16) -> PathBuf {
    let place = lab.place.path().join("device");
    let config = place.join("config.d");
    fs::create_dir_all(&config).unwrap();
    let at = |name: &str| place.join(name).display().to_string();
    let text = format!(
        "[service]\nbase: localhost\nhttp_port: {port}\nhttps_port: disabled\nchannel: devel\n\
         device: tango\nbuild_number: 0\n\
         [system]\ntimeout: 1h\ntempdir: {}\nlogfile: {}\nloglevel: info\nsettings_db: {}\n\
         [updater]\ncache_partition: {}\ndata_partition: {}\n\
         [gpg]\narchive_master: {}\nimage_master: {}\nimage_signing: {}\ndevice_signing: {}\n",
        at("tmp"),
        at("log"),
        at("settings.db"),
        at("cache"),
        at("data"),
        lab.root()
            .join("secret/gpg/keyrings/archive-master.tar.xz")
            .display(),
        at("keyrings/image-master.tar.xz"),
        at("keyrings/image-signing.tar.xz"),
        at("keyrings/device-signing.tar.xz"),
    );
    for directory in ["tmp", "cache", "data", "keyrings"] {
        fs::create_dir_all(place.join(directory)).unwrap();
    }
    fs::write(config.join("00_test.ini"), text).unwrap();
    config
}

/// One look of a client.
fn look(programs: &Path, config: &Path) -> Output {
    Command::new(programs.join("system-image-cli"))
        .arg("-C")
        .arg(config)
        .arg("--dry-run")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn two_hundred_killed_commands_are_nothing_that_a_client_sees() {
    let lab = Lab {
        place: tempfile::tempdir().unwrap(),
        programs: system_image_tests::programs(),
    };
    lab.run(&["init", "--key-type", "ed25519", "--compression-level", "0"]);
    for channel in ["daily", "stable"] {
        lab.run(&["channel", "create", channel]);
        lab.run(&["device", "add", channel, "tango"]);
    }
    lab.run(&["channel", "alias", "devel", "stable"]);
    let config = lab.root().join("etc/config.d");
    fs::create_dir_all(&config).unwrap();
    let source = lab.place.path().join("source.tar");
    let text_of = format!(
        "[global]\ngrace_days = 0\n[channel_daily]\ntype = auto\nfullcount = 3\n\
         files = rootfs, keyring, version\nfile_rootfs = tar;{}\n\
         file_keyring = keyring;archive-master\nfile_version = version\n\
         [channel_stable]\nfullcount = 3\n",
        source.display()
    );
    fs::write(config.join("all.conf"), text_of).unwrap();
    lab.source(0);
    lab.run(&["import"]);
    lab.run(&["promote", "daily", "stable", "tango"]);

    let (_running, port) = serve(&lab);
    let device = device(&lab, port);
    let (done, looks) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let client = {
        let (done, looks) = (Arc::clone(&done), Arc::clone(&looks));
        let (programs, device) = (lab.programs.clone(), device.clone());
        thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let output = look(&programs, &device);
                assert!(
                    output.status.success(),
                    "the client failed: {}",
                    text(&output)
                );
                looks.fetch_add(1, Ordering::Relaxed);
            }
        })
    };

    let seed = u64::from(std::process::id()) | 1 << 32;
    eprintln!("seed {seed}");
    let mut dice = Dice(seed);
    let script: [&[&str]; 7] = [
        &["import"],
        &["promote", "daily", "stable", "tango", "--numbered", "OTA-"],
        &["phase", "set", "stable", "tango", "50"],
        &["resign", "--all"],
        &["gc", "--grace", "1"],
        &["keys", "rotate", "image-signing", "--key-type", "ed25519"],
        &["phase", "set", "stable", "tango", "100"],
    ];
    let (mut killed, mut round) = (0, 0);
    // How long each command takes, so that it is killed anywhere within.
    let mut usual = [Duration::from_millis(100); 7];
    while killed < KILLS {
        round += 1;
        lab.source(round);
        for (at, arguments) in script.iter().enumerate() {
            let mut child = lab
                .server(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let micros = u64::try_from(usual[at].as_micros()).unwrap();
            thread::sleep(Duration::from_micros(dice.below(micros + micros / 4)));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                killed += 1;
            }
            child.wait().unwrap();
            assert!(!client.is_finished(), "after {arguments:?}, {killed} kills");
        }
        // The next run converges.
        for (at, arguments) in script.iter().enumerate() {
            let started = Instant::now();
            let output = lab.server(arguments).output().unwrap();
            let said = text(&output);
            let fine = output.status.success() || said.contains("has these files already");
            assert!(fine, "{arguments:?}: {said}");
            usual[at] = started.elapsed();
        }
        lab.run(&["verify", "--deep"]);
    }
    done.store(true, Ordering::Relaxed);
    client.join().unwrap();
    let looks = looks.load(Ordering::Relaxed);
    eprintln!("{killed} commands killed in {round} rounds, {looks} looks of a client");
    assert!(looks > 50, "only {looks} looks");
}

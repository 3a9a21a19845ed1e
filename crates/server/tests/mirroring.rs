//! Copies of a tree: pulled over a real socket, pushed by rsync, triggered through ssh.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use support::{CHANNEL, DEVICE, Server, hex, stderr};
use system_image_testkit::{Fault, Web};

/// A server with two images, on a socket.
struct Origin {
    server: Server,
    web: Web,
}

impl Origin {
    fn new() -> Self {
        let server = Server::new();
        server.publish(&server.archive("one", &[("etc/version", "1"), ("usr/a", "aaa")]));
        server.publish(&server.archive("two", &[("etc/version", "22"), ("usr/a", "aaa")]));
        let web = Web::of(camino::Utf8Path::from_path(&server.www()).unwrap());
        Self { server, web }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.web.port())
    }

    fn anchor(&self) -> PathBuf {
        let keyrings = self.server.root().join("secret/gpg/keyrings");
        keyrings.join("archive-master.tar.xz")
    }

    fn copy(&self) -> PathBuf {
        self.server.place().join("copy")
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let (anchor, copy) = (self.anchor(), self.copy());
        let mut arguments: Vec<_> = [
            "mirror",
            "pull",
            &self.url(),
            "--trust",
            anchor.to_str().unwrap(),
            "--into",
            copy.to_str().unwrap(),
            "--json",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend(more.iter().map(|text| (*text).to_owned()));
        arguments
    }

    fn try_pull(&self, more: &[&str]) -> Output {
        // Its own directory is of no importance.
        Command::new(env!("CARGO_BIN_EXE_system-image-server"))
            .args(self.arguments(more))
            .current_dir(self.server.place())
            .output()
            .unwrap()
    }

    fn pull(&self, more: &[&str]) -> Value {
        let output = self.try_pull(more);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A pull that fails; readers see what they saw before.
    fn refused(&self, more: &[&str]) -> String {
        let seen = || {
            let mut documents = snapshot(&self.copy());
            documents.retain(|name, _| name.contains("index.json") || !name.contains('-'));
            documents
        };
        let before = seen();
        let output = self.try_pull(more);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(seen(), before);
        String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
    }

    fn payload(&self) -> PathBuf {
        let image = self.server.index()["images"][1].clone();
        let path = image["files"][0]["path"].as_str().unwrap().to_owned();
        self.server.www().join(&path[1..])
    }
}

/// What a reader can see: names and digests.
fn snapshot(directory: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if directory.exists() {
        support::walk(directory, directory, &mut found);
    }
    found
}

/// What a reader of the copy must find at any moment: a document and its signature that belong
/// together, and every file that the index names.
fn whole(copy: &Path, keyring: &Path) -> usize {
    let read = |path: &str| fs::read(copy.join(path.trim_start_matches('/')));
    let mut images = 0;
    let Ok(channels) = read("channels.json") else {
        return 0;
    };
    let channels: Value = serde_json::from_slice(&channels).unwrap();
    for channel in channels.as_object().unwrap().values() {
        for device in channel["devices"].as_object().unwrap().values() {
            let path = device["index"].as_str().unwrap();
            let index = pair(copy, path, keyring);
            let index: Value = serde_json::from_slice(&index).unwrap();
            for image in index["images"].as_array().unwrap() {
                images += 1;
                for file in image["files"].as_array().unwrap() {
                    let place = file["path"].as_str().unwrap();
                    let bytes = read(place).unwrap_or_else(|error| panic!("{place}: {error}"));
                    assert_eq!(file["checksum"], hex(&bytes), "{place}");
                    assert!(read(file["signature"].as_str().unwrap()).is_ok());
                }
            }
        }
    }
    images
}

/// A document whose signature is good. Between two opens it may be replaced, as on any server.
fn pair(copy: &Path, path: &str, keyring: &Path) -> Vec<u8> {
    let place = copy.join(path.trim_start_matches('/'));
    let scratch = tempfile::tempdir().unwrap();
    loop {
        let (before, signature) = (
            fs::read(&place),
            fs::read(format!("{}.asc", place.display())),
        );
        if fs::read(&place).ok() != before.as_ref().ok().cloned() {
            continue;
        }
        let (before, signature) = (before.unwrap(), signature.unwrap());
        let (document, detached) = (scratch.path().join("d"), scratch.path().join("d.asc"));
        fs::write(&document, &before).unwrap();
        fs::write(&detached, signature).unwrap();
        let checked = Command::new("gpgv")
            .args(["--keyring", keyring.to_str().unwrap()])
            .args([&detached, &document])
            .output()
            .unwrap();
        assert!(checked.status.success(), "{path}: {}", stderr(&checked));
        return before;
    }
}

fn keyring(server: &Server) -> PathBuf {
    let place = server.place().join("reader.gpg");
    let archive = server.www().join("gpg/image-signing.tar.xz");
    let output = Command::new("tar")
        .args(["--extract", "--xz", "--to-stdout", "--file"])
        .arg(archive)
        .arg("keyring.gpg")
        .output()
        .unwrap();
    fs::write(&place, output.stdout).unwrap();
    place
}

#[test]
fn a_copy_is_the_same_bytes_and_fetches_only_what_is_missing() {
    let origin = Origin::new();
    // Two deltas of one content under two names.
    let three = origin
        .server
        .archive("three", &[("etc/version", "333"), ("usr/a", "aaa")]);
    let bases = ["--base", "1", "--base", "2"];
    let publish = ["publish", CHANNEL, DEVICE, three.to_str().unwrap()];
    origin.server.run(&[&publish[..], &bases].concat());
    let index = origin.server.index();
    let delta = |at: usize| &index["images"][at]["files"][0];
    assert_eq!(delta(4)["checksum"], delta(5)["checksum"]);
    let dry = origin.pull(&["--dry-run"]);
    assert!(
        dry["files"].as_u64().unwrap() > 4 && !origin.copy().exists(),
        "{dry:#}"
    );
    let first = origin.pull(&[]);
    assert_eq!(first["files"], dry["files"]);
    assert_eq!(first["documents"], dry["documents"]);
    assert_eq!(snapshot(&origin.copy()), origin.server.snapshot());
    assert_eq!(whole(&origin.copy(), &keyring(&origin.server)), 6);

    // Nothing changed: documents only.
    let before = origin.web.paths().len();
    let second = origin.pull(&[]);
    assert_eq!((&second["files"], &second["bytes"]), (&0.into(), &0.into()));
    assert_eq!(second["documents"].as_array().unwrap().len(), 0);
    let asked = &origin.web.paths()[before..];
    assert!(
        asked.iter().all(|path| !path.starts_with("/pool")),
        "{asked:?}"
    );

    // What was lost, damaged or badly signed comes again.
    let payload = origin.payload();
    let ours = origin
        .copy()
        .join("pool")
        .join(payload.file_name().unwrap());
    let good = fs::read(&ours).unwrap();
    fs::remove_file(&ours).unwrap();
    assert_eq!(origin.pull(&[])["files"], 1);
    let signature = format!("{}.asc", ours.display());
    fs::write(&signature, "nothing").unwrap();
    let again = origin.pull(&[]);
    assert_eq!((&again["files"], &again["bytes"]), (&1.into(), &0.into()));
    let mut bad = good.clone();
    bad[20] ^= 1;
    fs::write(&ours, bad).unwrap();
    assert_eq!(origin.pull(&[])["files"], 0);
    assert_eq!(origin.pull(&["--deep"])["files"], 1);
    assert_eq!(snapshot(&origin.copy()), origin.server.snapshot());
}

#[test]
fn what_is_gone_there_goes_here_after_its_grace_and_foreign_files_stay() {
    let origin = Origin::new();
    origin.pull(&[]);
    let (foreign, seen) = (origin.copy().join("robots.txt"), origin.server.snapshot());
    fs::write(&foreign, "User-agent: *\n").unwrap();
    origin
        .server
        .run(&["image", "remove", CHANNEL, DEVICE, "1"]);
    origin.server.run(&["gc", "--grace", "0"]);
    let waiting = origin.pull(&["--delete"]);
    assert!(
        !waiting["collected"]["waiting"]
            .as_object()
            .unwrap()
            .is_empty(),
        "{waiting:#}"
    );
    assert!(seen.keys().all(|name| origin.copy().join(name).exists()));
    let gone = origin.pull(&["--delete", "--grace", "0"]);
    assert!(!gone["collected"]["removed"].as_array().unwrap().is_empty());
    assert_eq!(
        gone["collected"]["foreign"],
        serde_json::json!(["robots.txt"])
    );
    assert!(foreign.exists());
    let mut now = snapshot(&origin.copy());
    now.remove("robots.txt");
    assert_eq!(now, origin.server.snapshot());
}

#[test]
fn a_part_of_a_tree_is_copied_and_what_it_lacks_is_told() {
    let origin = Origin::new();
    let server = &origin.server;
    server.run(&["channel", "create", "daily"]);
    server.run(&["device", "add", "daily", DEVICE]);
    server.run(&["device", "add", "daily", "bravo"]);
    server.run(&["promote", CHANNEL, "daily", DEVICE]);
    let pulled = origin.pull(&["--channel", "daily", "--device", DEVICE]);
    assert_eq!(
        pulled["left_out"],
        serde_json::json!({"channels": 1, "devices": 2, "images": 0})
    );
    let read = |root: PathBuf, path: &str| fs::read(root.join(path)).ok();
    for path in [
        "channels.json",
        "channels.json.asc",
        &format!("daily/{DEVICE}/index.json"),
    ] {
        assert_eq!(
            read(origin.copy(), path),
            read(server.www(), path),
            "{path}"
        );
    }
    assert!(!origin.copy().join(CHANNEL).exists());
    assert!(!origin.copy().join("daily/bravo").exists());
    assert!(
        origin
            .refused(&["--channel", "weekly"])
            .contains("hint: there are")
    );
    // Another part later: the first one stays, whatever is deleted.
    origin.pull(&[
        "--channel",
        CHANNEL,
        "--newest",
        "1",
        "--delete",
        "--grace",
        "0",
    ]);
    assert!(
        origin
            .copy()
            .join(format!("daily/{DEVICE}/index.json"))
            .exists()
    );
    assert!(
        origin
            .copy()
            .join(format!("{CHANNEL}/{DEVICE}/version-2.tar.xz"))
            .exists()
    );
    assert!(
        !origin
            .copy()
            .join(format!("{CHANNEL}/{DEVICE}/version-1.tar.xz"))
            .exists()
    );
    origin.pull(&[]);
    assert_eq!(snapshot(&origin.copy()), server.snapshot());
}

#[test]
fn what_is_not_trusted_is_not_copied() {
    let origin = Origin::new();
    origin.pull(&[]);
    let three = origin.server.archive("three", &[("etc/version", "333")]);
    origin.server.publish(&three);
    let index = origin.server.index();
    let path = index["images"][3]["files"][0]["path"].as_str().unwrap();
    // A file that is not what its index says: the copy keeps the index that it had.
    origin.web.fails(path, Fault::LogInPage);
    assert!(origin.refused(&[]).contains("could not be copied"));
    origin.web.fails(path, Fault::Longer);
    assert!(origin.refused(&[]).contains("could not be copied"));
    assert!(!origin.copy().join(&path[1..]).exists());
    origin.web.recovers();
    origin.web.fails("/gpg/image-signing.tar.xz", Fault::Longer);
    assert!(origin.refused(&[]).contains("cannot be trusted"));
    origin.web.recovers();
    let endless = format!("/{CHANNEL}/{DEVICE}/index.json.asc");
    origin.web.fails(&endless, Fault::Endless);
    assert!(origin.refused(&[]).contains("index.json"));
    origin.web.recovers();
    // Somebody else's anchor, and somebody else's tree.
    let other = Origin::new();
    let (theirs, ours) = (other.anchor(), origin.anchor());
    let saved = fs::read(&ours).unwrap();
    fs::copy(theirs, &ours).unwrap();
    assert!(origin.refused(&[]).contains("cannot be trusted"));
    fs::write(&ours, saved).unwrap();
    fs::remove_dir_all(origin.copy()).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .args([other.server.www(), origin.copy()])
        .status();
    assert!(copied.unwrap().success());
    let told = origin.refused(&[]);
    assert!(told.contains("another server's tree"), "{told}");
    assert!(!origin.copy().join(".mirror").exists());
    fs::remove_dir_all(origin.copy()).unwrap();
    origin.pull(&[]);
    assert_eq!(snapshot(&origin.copy()), origin.server.snapshot());
}

#[test]
fn a_server_without_a_key_serves_and_checks_its_copy() {
    let origin = Origin::new();
    let root = origin.server.place().join("mirror");
    fs::create_dir_all(root.join("etc/remotes")).unwrap();
    let server = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_system-image-server"));
        command
            .arg("--root")
            .arg(&root)
            .args(arguments)
            .output()
            .unwrap()
    };
    let url = origin.url();
    let told = stderr(&server(&["mirror", "pull", &url]));
    assert!(told.contains("--into"), "{told}");
    fs::write(root.join("etc/config"), "[global]\n").unwrap();
    let told = stderr(&server(&["mirror", "pull", &url]));
    assert!(told.contains("etc/remotes/127.0.0.1.tar.xz"), "{told}");
    fs::copy(origin.anchor(), root.join("etc/remotes/127.0.0.1.tar.xz")).unwrap();
    for arguments in [
        &["mirror", "pull", &url][..],
        &["verify", "--deep"],
        &["status"],
    ] {
        let output = server(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
    assert_eq!(snapshot(&root.join("www")), origin.server.snapshot());
    let history = String::from_utf8(server(&["history"]).stdout).unwrap();
    assert!(history.contains("mirror pull"), "{history}");
    // The origin does not copy itself over its own tree.
    let www = origin.server.www();
    let anchor = origin.anchor();
    let into = [
        "--trust",
        anchor.to_str().unwrap(),
        "--into",
        www.to_str().unwrap(),
    ];
    let output = origin
        .server
        .command(&["mirror", "pull", &url])
        .args(into)
        .output()
        .unwrap();
    assert!(
        stderr(&output).contains("signs itself"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_reader_never_fails_however_often_a_pull_is_killed() {
    let origin = Origin::new();
    origin.pull(&[]);
    let (copy, keyring) = (origin.copy(), keyring(&origin.server));
    let stop = AtomicBool::new(false);
    let mut kills = 0;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                assert!(whole(&copy, &keyring) >= 3);
                reads += 1;
            }
            reads
        });
        // Whatever ends here, the reader must.
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (round, calls) in ["?rename", "fsync", "?symlink,symlinkat", "?mkdir,mkdirat"]
                .into_iter()
                .enumerate()
            {
                let text = "x".repeat(round + 3);
                let name = format!("round{round}");
                origin
                    .server
                    .publish(&origin.server.archive(&name, &[("etc/version", &text)]));
                let mut n = 1;
                while support::killed_at(calls, n, origin.arguments(&[])) {
                    kills += 1;
                    // What is done is not done again, so that a later call is reached each time.
                    n += 1;
                }
                origin.pull(&[]);
                assert_eq!(snapshot(&copy), origin.server.snapshot(), "{calls}");
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let reads: u32 = reader.join().unwrap();
        eprintln!("{kills} kills, {reads} reads");
        assert!(killed.is_ok() && reads > 0);
    });
    assert!(kills > 20, "only {kills} calls were killed");
    let left: Vec<_> = fs::read_dir(copy.join(".mirror/downloads"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A program that stands before the real one on the path.
fn stand_in(server: &Server, name: &str, script: &str) -> String {
    let place = server.place().join("bin");
    fs::create_dir_all(&place).unwrap();
    let program = place.join(name);
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", place.display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_push_sends_the_tree_to_a_directory_or_through_ssh() {
    let origin = Origin::new();
    let server = &origin.server;
    let (copy, keyring) = (origin.copy(), keyring(server));
    let push = |target: &str, more: &[&str]| {
        // Logs in to this machine, whatever the host.
        let path = stand_in(
            server,
            "ssh",
            "while [ \"$1\" != images.example.net ]; do shift; done; shift; exec sh -c \"$*\"",
        );
        let mut command = server.command(&["mirror", "push", target, "--json"]);
        let output = command.args(more).env("PATH", path).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let dry = push(copy.to_str().unwrap(), &["--dry-run"]);
    assert!(
        !copy.exists() && !dry["sent"].as_array().unwrap().is_empty(),
        "{dry:#}"
    );
    push(copy.to_str().unwrap(), &[]);
    assert_eq!(snapshot(&copy), server.snapshot());
    assert_eq!(whole(&copy, &keyring), 3);
    let unchanged = push(copy.to_str().unwrap(), &[]);
    assert_eq!(
        unchanged["sent"].as_array().unwrap().len(),
        0,
        "{unchanged:#}"
    );

    let far = format!("operator@images.example.net:{}", copy.display());
    fs::write(copy.join("robots.txt"), "x").unwrap();
    server.publish(&server.archive("three", &[("etc/version", "333")]));
    push(&far, &[]);
    assert_eq!(whole(&copy, &keyring), 5);
    assert!(copy.join("robots.txt").exists());
    let removed = push(&far, &["--delete"]);
    assert_eq!(removed["removed"], serde_json::json!(["robots.txt"]));
    assert_eq!(snapshot(&copy), server.snapshot());
    let broken = server.command(&["mirror", "push", "-x"]).output().unwrap();
    assert!(!broken.status.success());
}

#[test]
fn mirrors_are_told_when_readers_see_something_new_and_only_then() {
    let origin = Origin::new();
    let server = &origin.server;
    let config = server.root().join("etc/config");
    let text = fs::read_to_string(&config).unwrap();
    let mirrors = "[mirror_default]\nssh_user = pull\nssh_key = secret/ssh/key\nssh_port = 22\n\
                   ssh_command = sync-mirror\n[mirror_a]\nssh_host = a.example.net\n\
                   [mirror_b]\nssh_host = b.example.net\n";
    let text = text.replacen("[global]", "[global]\nmirrors = b, a", 1);
    fs::write(&config, text + mirrors).unwrap();
    let log = server.place().join("ssh.log");
    let script = format!(
        "echo \"$*\" >> {0}\ncase \"$*\" in *b.example.net*) exit 7;; esac",
        log.display()
    );
    let path = stand_in(server, "ssh", &script);
    let told = |arguments: &[&str]| {
        let _ = fs::remove_file(&log);
        let output = server
            .command(arguments)
            .env("PATH", &path)
            .output()
            .unwrap();
        let lines = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = lines.lines().map(str::to_owned).collect();
        (output, lines)
    };
    let three = server.archive("three", &[("etc/version", "333")]);
    let publish = [
        "publish",
        CHANNEL,
        DEVICE,
        three.to_str().unwrap(),
        "--phased",
        "10",
    ];
    let (output, lines) = told(&publish);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: mirror `b.example.net`"));
    let key = server.root().join("secret/ssh/key");
    let want = |host: &str| {
        format!(
            "-i {} -l pull -p 22 -o BatchMode=yes {host} sync-mirror",
            key.display()
        )
    };
    assert_eq!(lines, [want("a.example.net"), want("b.example.net")]);
    for (arguments, count) in [
        (&publish[..], 0),
        (&["status"], 0),
        (&["phase", "set", CHANNEL, DEVICE, "50", "--dry-run"], 0),
        (&["phase", "set", CHANNEL, DEVICE, "50"], 2),
        (&["phase", "set", CHANNEL, DEVICE, "50"], 0),
        (&["tag", CHANNEL, DEVICE, "3", "OTA-1"], 2),
        (&["withdraw", CHANNEL, DEVICE, "4"], 2),
        (&["channel", "create", "daily"], 2),
        (&["keys", "list"], 0),
        (&["keys", "renew", "image-signing"], 2),
        (&["channel", "create", "daily"], 0),
        (&["mirror", "trigger", "--dry-run"], 0),
        (&["mirror", "trigger"], 2),
    ] {
        // A keyring that is signed twice within a second is the same to the byte.
        if arguments.starts_with(&["keys", "renew"]) {
            std::thread::sleep(std::time::Duration::from_millis(1100));
        }
        let (output, lines) = told(arguments);
        assert_eq!(lines.len(), count, "{arguments:?}: {}", stderr(&output));
    }
    let (output, _) = told(&["mirror", "trigger"]);
    assert_eq!(output.status.code(), Some(1), "one of them was not told");
}

#[test]
fn the_newest_image_is_shown_of_any_server_and_whether_it_was_verified() {
    let origin = Origin::new();
    let shown = |arguments: &[&str]| -> Value {
        let all = [
            &["check-latest", "--channel", CHANNEL, DEVICE, "--json"],
            arguments,
        ]
        .concat();
        serde_json::from_str(&origin.server.run(&all)).unwrap()
    };
    let (url, anchor) = (origin.url(), origin.anchor());
    let here = shown(&[]);
    assert_eq!(here["verified"], true);
    assert_eq!(here["latest"]["version"], 2);
    assert_eq!(here["latest"]["deltas"][0]["base"], 1);
    let trusted = shown(&["--server", &url, "--trust", anchor.to_str().unwrap()]);
    assert_eq!(trusted, here);
    let believed = shown(&["--server", &url]);
    assert_eq!(
        (&believed["verified"], &believed["latest"]),
        (&false.into(), &here["latest"])
    );
    let text = origin.server.run(&[
        "check-latest",
        "--server",
        &url,
        "--channel",
        CHANNEL,
        DEVICE,
    ]);
    assert!(
        text.starts_with("unverified") && text.contains("delta from 1"),
        "{text}"
    );
    // Even then all must be in order with itself.
    origin
        .web
        .fails(&format!("/{CHANNEL}/{DEVICE}/index.json"), Fault::Longer);
    let spoilt = [
        "check-latest",
        "--server",
        &url,
        "--channel",
        CHANNEL,
        DEVICE,
    ];
    let output = origin.server.command(&spoilt).output().unwrap();
    assert!(
        stderr(&output).contains("cannot be trusted"),
        "{}",
        stderr(&output)
    );
    let output = origin
        .server
        .command(&["check-latest", DEVICE])
        .output()
        .unwrap();
    assert!(
        stderr(&output).contains("no channel `devel-proposed`"),
        "{}",
        stderr(&output)
    );
}

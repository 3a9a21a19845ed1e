//! A server's directory in a temporary place, driven by the real program.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "shared by several test programs"
)]

pub(crate) mod serving;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sha2::{Digest, Sha256};

pub(crate) const CHANNEL: &str = "24.04/stable";
pub(crate) const DEVICE: &str = "tango";

/// Every archive's times.
pub(crate) const MTIME: &str = "--mtime=@1700000000";

/// A server without images, removed when dropped.
pub(crate) struct Server {
    directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn new() -> Self {
        let server = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        server.run(&["init", "--key-type", "ed25519", "--compression-level", "0"]);
        server.run(&["channel", "create", CHANNEL]);
        server.run(&["device", "add", CHANNEL, DEVICE]);
        server
    }

    /// Where the server's directory and the inputs are.
    pub(crate) fn place(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.place().join("server")
    }

    pub(crate) fn www(&self) -> PathBuf {
        self.root().join("www")
    }

    /// The program with its root, ready for more.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_system-image-server"));
        command.arg("--root").arg(self.root()).args(arguments);
        command
    }

    /// Runs the program; it must succeed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Publishes an archive; returns the version.
    pub(crate) fn publish(&self, archive: &Path) -> String {
        self.run(&["publish", CHANNEL, DEVICE, archive.to_str().unwrap()])
            .trim()
            .to_owned()
    }

    /// Packs files into an archive of a root file system.
    pub(crate) fn archive(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let tree = self.place().join(format!("{name}.tree"));
        for (path, content) in files {
            let place = tree.join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, content).unwrap();
        }
        let archive = self.place().join(format!("{name}.tar"));
        // The time of writing is nothing that images should differ in.
        let (from, to) = (tree.to_str().unwrap(), archive.to_str().unwrap());
        tar(&["--create", MTIME, "--file", to, "-C", from, "."]);
        archive
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.www().join(CHANNEL).join(DEVICE).join("index.json")
    }

    pub(crate) fn index(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.index_path()).unwrap()).unwrap()
    }

    /// The digest of every file of the tree that a web server would serve.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        walk(&self.www(), &self.www(), &mut found);
        found
    }

    /// Checks with gpgv, xz and tar that what is visible is whole: each document and each file
    /// that an index names is there, signed, and has its size and digest.
    pub(crate) fn assert_consistent(&self) {
        let keyring = self.place().join("image-signing.gpg");
        let archive = self.www().join("gpg/image-signing.tar.xz");
        let output = Command::new("tar")
            .args(["--extract", "--xz", "--to-stdout", "--file"])
            .arg(archive)
            .arg("keyring.gpg")
            .output()
            .unwrap();
        fs::write(&keyring, output.stdout).unwrap();
        let check = |file: &Path| {
            let output = Command::new("gpgv")
                .arg("--keyring")
                .arg(&keyring)
                .arg(format!("{}.asc", file.display()))
                .arg(file)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}: {}",
                file.display(),
                stderr(&output)
            );
        };
        check(&self.www().join("channels.json"));
        check(&self.index_path());
        for image in self.index()["images"].as_array().unwrap() {
            for file in image["files"].as_array().unwrap() {
                let place = self.www().join(&file["path"].as_str().unwrap()[1..]);
                check(&place);
                let bytes = fs::read(&place).unwrap();
                assert_eq!(file["size"], bytes.len());
                assert_eq!(file["checksum"], hex(&bytes));
                assert!(
                    Command::new("xz")
                        .arg("--test")
                        .arg(&place)
                        .status()
                        .unwrap()
                        .success()
                );
                tar(&["--list", "--xz", "--file", place.to_str().unwrap()]);
            }
        }
    }
}

/// Runs the program and kills it at its n-th call of a kind. False when it made fewer calls and
/// succeeded.
pub(crate) fn killed_at(
    calls: &str,
    n: u32,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> bool {
    let status = Command::new("strace")
        .args([
            "--follow-forks",
            "--quiet=all",
            "--output=/dev/null",
            "--trace",
            calls,
        ])
        .arg(format!("--inject={calls}:signal=KILL:when={n}"))
        .arg(env!("CARGO_BIN_EXE_system-image-server"))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    match (status.code(), status.signal()) {
        (Some(0), _) => false,
        (_, Some(9)) | (Some(137), _) => true,
        other => panic!("{other:?} at {calls} {n}"),
    }
}

/// Copies a directory over another one.
pub(crate) fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

pub(crate) fn walk(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if path.file_name().unwrap().to_str().unwrap().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, found);
        } else {
            found.insert(name, hex(&fs::read(&path).unwrap()));
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(crate) fn tar(arguments: &[&str]) -> String {
    let output = Command::new("tar").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

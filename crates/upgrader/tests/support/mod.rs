//! A device with a drop box, and a publisher who signs what is put into it. The real program is
//! run, as its own process.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part, and fails by panic"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use liblzma::write::XzEncoder;
use rand_core::OsRng;
use system_image_delta_build::{Options, delta};
use system_image_formats::keyring::{KeyringInfo, KeyringType};
use system_image_testkit::tree::Tree;
use system_image_trust::{KeyKind, Keyring, SecretKey};

/// When keys and signatures are made, in Unix seconds.
pub(crate) const MADE: i64 = 1_750_000_000;

/// A key for each keyring.
pub(crate) struct Publisher(Vec<(KeyringType, SecretKey)>);

impl Publisher {
    pub(crate) fn new() -> Self {
        Self(KeyringType::ALL.map(|kind| (kind, key())).into())
    }

    pub(crate) fn key(&self, kind: KeyringType) -> &SecretKey {
        &self.0.iter().find(|(k, _)| *k == kind).unwrap().1
    }

    /// The keyring of a type, packed.
    pub(crate) fn keyring(&self, kind: KeyringType) -> Vec<u8> {
        let certificates = self.key(kind).certificate().clone();
        Keyring {
            info: KeyringInfo::new(kind),
            certificates,
        }
        .pack()
    }
}

pub(crate) fn key() -> SecretKey {
    SecretKey::generate(&mut OsRng, KeyKind::Ed25519, "Test", MADE, None).unwrap()
}

pub(crate) fn sign(key: &SecretKey, bytes: &[u8]) -> String {
    key.sign(bytes, MADE + 10).unwrap()
}

pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut xz = XzEncoder::new(Vec::new(), 1);
    xz.write_all(bytes).unwrap();
    xz.finish().unwrap()
}

/// The delta between two trees.
pub(crate) fn between(base: &Tree, target: &Tree) -> Vec<u8> {
    let stored = |tree: &Tree| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&tree.tar()).unwrap();
        file
    };
    let mut out = Vec::new();
    delta(&stored(base), &stored(target), Options::default(), &mut out).unwrap();
    out
}

/// A device, with its system in a directory unless a test says otherwise.
pub(crate) struct Device {
    pub(crate) publisher: Publisher,
    directory: tempfile::TempDir,
}

impl Device {
    pub(crate) fn new() -> Self {
        let device = Self {
            publisher: Publisher::new(),
            directory: tempfile::tempdir().unwrap(),
        };
        for path in ["cache/recovery", "cache/system", "data", "etc"] {
            fs::create_dir_all(device.path(path)).unwrap();
        }
        let anchor = device.publisher.keyring(KeyringType::ArchiveMaster);
        fs::write(device.path("etc/archive-master.tar.xz"), anchor).unwrap();
        device.configure(&directory(&device.system()));
        device
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(crate) fn system(&self) -> PathBuf {
        self.path("cache/system")
    }

    /// Writes the settings, with these lines in `[system]`.
    pub(crate) fn configure(&self, system: &str) {
        let path = |path: &str| self.path(path).display().to_string();
        let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
        let privileges = if root { "root" } else { "user" };
        let text = format!(
            "archive_master = {:?}\ndevice = \"tango\"\ndrop_box = {:?}\ndata = {:?}\n\
             [system]\nprivileges = {privileges:?}\n{system}\n",
            path("etc/archive-master.tar.xz"),
            path("cache/recovery"),
            path("data"),
        );
        fs::write(self.path("etc/upgrader.toml"), text).unwrap();
    }

    /// Puts a file into the drop box.
    pub(crate) fn drop_file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path("cache/recovery").join(name), content).unwrap();
    }

    /// Puts a file with its signature into the drop box.
    pub(crate) fn drop_signed(&self, name: &str, content: &[u8], key: &SecretKey) {
        self.drop_file(name, content);
        self.drop_file(&format!("{name}.asc"), sign(key, content));
    }

    pub(crate) fn drop_keyring(&self, kind: KeyringType) -> String {
        let name = format!("{kind}.tar.xz");
        let signer = self.publisher.key(kind.signer());
        self.drop_signed(&name, &self.publisher.keyring(kind), signer);
        format!("load_keyring {name} {name}.asc\n")
    }

    /// Puts the two keyrings that each update needs into the drop box; their lines.
    pub(crate) fn drop_keyrings(&self) -> String {
        self.drop_keyring(KeyringType::ImageMaster) + &self.drop_keyring(KeyringType::ImageSigning)
    }

    /// Puts an uncompressed archive into the drop box as a signed tarball; its line.
    pub(crate) fn drop_update(&self, name: &str, archive: &[u8]) -> String {
        self.drop_signed(
            name,
            &xz(archive),
            self.publisher.key(KeyringType::ImageSigning),
        );
        format!("update {name} {name}.asc\n")
    }

    pub(crate) fn command_file(&self) -> PathBuf {
        self.path("cache/recovery/ubuntu_command")
    }

    pub(crate) fn command(&self, text: &str) {
        fs::write(self.command_file(), text).unwrap();
    }

    /// Leaves all that the client leaves for an installation from nothing.
    pub(crate) fn full(&self, tree: &Tree) {
        let lines = self.drop_keyrings();
        let update = self.drop_update("ubuntu-full.tar.xz", &tree.tar());
        self.command(&format!(
            "{lines}format system\nmount system\n{update}unmount system\n"
        ));
    }

    /// Leaves all that the client leaves for deltas along these trees.
    pub(crate) fn deltas(&self, trees: &[&Tree]) {
        let mut lines = self.drop_keyrings() + "mount system\n";
        for (number, pair) in trees.windows(2).enumerate() {
            let name = format!("ubuntu-{number}.tar.xz");
            lines += &self.drop_update(&name, &between(pair[0], pair[1]));
        }
        self.command(&(lines + "unmount system\n"));
    }

    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_system-image-upgrader"));
        command
            .arg("--config")
            .arg(self.path("etc/upgrader.toml"))
            .arg(self.command_file());
        command
    }

    /// Runs the upgrader to its end.
    pub(crate) fn upgrade(&self) -> Output {
        self.program().output().unwrap()
    }

    /// Runs it and asserts that everything was installed.
    pub(crate) fn upgrade_well(&self) -> Output {
        let output = self.upgrade();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// Starts it with its progress readable.
    pub(crate) fn start(&self) -> Child {
        self.program()
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Starts it with its log readable.
    pub(crate) fn start_logging(&self) -> Child {
        self.program()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The names in the drop box, sorted.
    pub(crate) fn dropped(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("cache/recovery")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn result(&self) -> serde_json::Value {
        let path = self.path("cache/system-image-result.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

/// The line of the settings for a system in a directory.
fn directory(path: &Path) -> String {
    format!("directory = \"{}\"", path.display())
}

/// Installs a tree in a directory, as an undisturbed device would.
pub(crate) fn expected(tree: &Tree, directory: &Path) {
    let fresh = Device::new();
    fresh.configure(&self::directory(directory));
    fresh.full(tree);
    fresh.upgrade_well();
}

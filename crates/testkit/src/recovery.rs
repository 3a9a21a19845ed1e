//! A device as its recovery finds it: what the client left in the drop box, the settings of the
//! upgrader, and the system that it is to change. The upgrader itself is the caller's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use system_image_formats::keyring::KeyringType;
use system_image_trust::SecretKey;
use tempfile::TempDir;

use crate::keys::{Keys, keyring, sign};
use crate::loop_device::LoopDevice;
use crate::pack::{between, patch, xz};
use crate::tree::Tree;

/// The device's model in its settings.
const MODEL: &str = "tango";

/// The drop box, below the device's storage.
const DROP_BOX: &str = "cache/recovery";

/// A device with an empty system, in a directory unless it is given a partition.
///
/// | directory | what a device has there |
/// | --- | --- |
/// | `etc` | what is part of the recovery: settings, trust root |
/// | `storage/cache`, `storage/data` | what stays between starts: drop box, outcome, user data |
/// | `storage/cache/system` | the system, or where it is mounted |
#[derive(Debug)]
pub struct Recovery {
    /// Its trust root is the first of them.
    pub keys: Keys,
    upgrader: PathBuf,
    place: PathBuf,
    temporary: Option<TempDir>,
}

impl Recovery {
    /// A device in a temporary directory, with keys of its own, whose upgrader is this program.
    pub fn new(upgrader: impl Into<PathBuf>) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut device = Self::at(temporary.path(), upgrader, Keys::generate());
        device.temporary = Some(temporary);
        device
    }

    /// A device in a directory that the caller removes.
    pub fn at(place: &Path, upgrader: impl Into<PathBuf>, keys: Keys) -> Self {
        let device = Self {
            keys,
            upgrader: upgrader.into(),
            place: place.to_owned(),
            temporary: None,
        };
        device.furnish();
        fs::create_dir_all(place.join("etc")).unwrap();
        let anchor = device.keys.keyring(KeyringType::ArchiveMaster).pack();
        fs::write(device.archive_master(), anchor).unwrap();
        device.in_directory(&device.system());
        device
    }

    /// Makes the directories of what stays between starts, where they are not there.
    pub fn furnish(&self) {
        for path in [DROP_BOX, "cache/system", "data"] {
            fs::create_dir_all(self.path(path)).unwrap();
        }
    }

    /// A place on what stays between starts.
    pub fn path(&self, path: &str) -> PathBuf {
        self.storage().join(path)
    }

    /// What stays between starts; a file system may be mounted here.
    pub fn storage(&self) -> PathBuf {
        self.place.join("storage")
    }

    /// Where the system is while it can be seen.
    pub fn system(&self) -> PathBuf {
        self.path("cache/system")
    }

    /// The upgrader's settings.
    pub fn settings(&self) -> PathBuf {
        self.place.join("etc/upgrader.toml")
    }

    fn archive_master(&self) -> PathBuf {
        self.place.join("etc/archive-master.tar.xz")
    }

    /// Has its system in this directory.
    pub fn in_directory(&self, directory: &Path) {
        self.configure(&format!("directory = {}", quoted(directory)));
    }

    /// Has its system on a block device.
    pub fn on_partition(&self, partition: &LoopDevice) {
        let (device, mountpoint) = (&partition.path, quoted(&self.system()));
        self.configure(&format!("device = {device:?}\nmountpoint = {mountpoint}"));
    }

    /// Writes the settings, with these lines in `[system]`.
    pub fn configure(&self, system: &str) {
        let root = rustix::process::geteuid().is_root();
        let privileges = if root { "root" } else { "user" };
        let text = format!(
            "archive_master = {}\ndevice = {MODEL:?}\ndrop_box = {}\ndata = {}\n\
             [system]\nprivileges = {privileges:?}\n{system}\n",
            quoted(&self.archive_master()),
            quoted(&self.path(DROP_BOX)),
            quoted(&self.path("data")),
        );
        fs::write(self.settings(), text).unwrap();
    }

    /// Puts a file into the drop box.
    pub fn drop_file(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(DROP_BOX).join(name), content).unwrap();
    }

    /// Puts a file with its signature into the drop box.
    pub fn drop_signed(&self, name: &str, content: &[u8], key: &SecretKey) {
        self.drop_file(name, content);
        self.drop_file(&format!("{name}.asc"), sign(key, content));
    }

    /// Puts a keyring into the drop box; its line. A blacklist is of a key that signs nothing.
    pub fn drop_keyring(&self, kind: KeyringType) -> String {
        let packed = match kind {
            KeyringType::Blacklist => keyring(kind, &[&self.keys.stranger]).pack(),
            kind => self.keys.keyring(kind).pack(),
        };
        let name = format!("{kind}.tar.xz");
        self.drop_signed(&name, &packed, self.keys.of(kind.signer()));
        format!("load_keyring {name} {name}.asc\n")
    }

    /// Puts the two keyrings that each update needs into the drop box; their lines.
    pub fn drop_keyrings(&self) -> String {
        self.drop_keyring(KeyringType::ImageMaster) + &self.drop_keyring(KeyringType::ImageSigning)
    }

    /// Puts an uncompressed archive into the drop box as a signed tarball; its line.
    pub fn drop_update(&self, name: &str, archive: &[u8]) -> String {
        self.drop_packed_update(name, &xz(archive))
    }

    /// The same for an archive that is compressed already.
    pub fn drop_packed_update(&self, name: &str, packed: &[u8]) -> String {
        self.drop_signed(name, packed, &self.keys.image_signing);
        format!("update {name} {name}.asc\n")
    }

    /// The command file.
    pub fn command_file(&self) -> PathBuf {
        self.path(DROP_BOX).join("ubuntu_command")
    }

    /// Leaves a command file.
    pub fn command(&self, text: &str) {
        fs::write(self.command_file(), text).unwrap();
    }

    /// Whether a recovery would start the upgrader: there is a command file, or one whose steps
    /// have begun.
    pub fn has_work(&self) -> bool {
        let begun = self.command_file().with_extension("applying");
        self.command_file().exists() || begun.exists()
    }

    /// Whether a command file was refused and put aside.
    pub fn has_refused(&self) -> bool {
        self.command_file().with_extension("refused").exists()
    }

    /// Leaves all that the client leaves for an installation from nothing.
    pub fn full(&self, tree: &Tree) {
        self.full_and_deltas(&[tree]);
    }

    /// Leaves all that the client leaves for the first tree in full and deltas along the others.
    pub fn full_and_deltas(&self, trees: &[&Tree]) {
        let lines = self.drop_keyrings() + "format system\nmount system\n";
        let full = self.drop_update("ubuntu-full.tar.xz", &trees[0].tar());
        self.command(&(lines + &full + &self.drop_deltas(trees) + "unmount system\n"));
    }

    /// Leaves all that the client leaves for deltas along these trees.
    pub fn deltas(&self, trees: &[&Tree]) {
        let lines = self.drop_keyrings() + "mount system\n";
        self.command(&(lines + &self.drop_deltas(trees) + "unmount system\n"));
    }

    /// Leaves all that a client that takes patches leaves for an update from the first tree, which is
    /// installed, along the others.
    pub fn patch_and_deltas(&self, trees: &[&Tree]) {
        let lines = self.drop_keyrings() + "mount system\n";
        let patch = patch(trees[0], trees[1]);
        let first = self.drop_packed_update("ubuntu-first.patch", &patch);
        let rest = self.drop_deltas(&trees[1..]);
        self.command(&(lines + &first + &rest + "unmount system\n"));
    }

    fn drop_deltas(&self, trees: &[&Tree]) -> String {
        let pairs = trees.windows(2).enumerate();
        pairs
            .map(|(number, pair)| {
                let name = format!("ubuntu-{number}.tar.xz");
                self.drop_update(&name, &between(pair[0], pair[1]))
            })
            .collect()
    }

    /// The upgrader as the recovery starts it.
    pub fn program(&self) -> Command {
        let mut program = Command::new(&self.upgrader);
        program.arg("--config").arg(self.settings());
        program.arg(self.command_file());
        program
    }

    /// Runs the upgrader to its end.
    pub fn upgrade(&self) -> Output {
        self.program().output().unwrap()
    }

    /// Runs it and asserts that everything was installed.
    pub fn upgrade_well(&self) -> Output {
        let output = self.upgrade();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        output
    }

    /// Starts it with its progress readable.
    pub fn start(&self) -> Child {
        let mut program = self.program();
        program.stdout(Stdio::piped()).stderr(Stdio::null());
        program.spawn().unwrap()
    }

    /// Starts it with its log readable.
    pub fn start_logging(&self) -> Child {
        let mut program = self.program();
        program.stdout(Stdio::null()).stderr(Stdio::piped());
        program.spawn().unwrap()
    }

    /// The names in the drop box, sorted.
    pub fn dropped(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path(DROP_BOX)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The outcome that the upgrader left for the running system, one JSON object.
    pub fn outcome(&self) -> Vec<u8> {
        fs::read(self.path("cache/system-image-result.json")).unwrap()
    }
}

/// A path as a string of the settings.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_str().unwrap())
}

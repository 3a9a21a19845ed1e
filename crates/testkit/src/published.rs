//! A published tree: real archives, real signatures, in a directory as a web server has it.
//!
//! Every call leaves a tree that is whole and signed, so that a server may run meanwhile and a
//! test may go on publishing; what is wrong with a tree is put there last.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use camino::Utf8Path;
use system_image_formats::channel_ini::{ChannelIni, Port};
use system_image_formats::channels::{Channel, Channels, DeviceEntry, SignedPath};
use system_image_formats::detail::VersionDetail;
use system_image_formats::hash::Hasher;
use system_image_formats::index::{FileEntry, Image, ImageKind, Index};
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::TreePath;
use system_image_formats::time::GeneratedAt;
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_store::{Directory, Store};
use system_image_trust::{Keyring, SecretKey};
use tempfile::TempDir;

use crate::keys::{Keys, MADE, keyring, sign};
use crate::pack::{between, xz};
use crate::tree::Tree;
use crate::web::Web;

/// The channel of every published tree.
pub const CHANNEL: &str = "stable";
/// Its device.
pub const DEVICE: &str = "lamp";

/// Random bytes in each image, so that a full payload is large enough to be cut, and a delta is
/// much smaller.
const BALLAST: usize = 400_000;

/// A tree with the channel [`CHANNEL`] for the device [`DEVICE`].
#[derive(Debug)]
pub struct Published<'k> {
    keys: &'k Keys,
    /// Signs the index and payloads.
    signer: &'k SecretKey,
    store: Directory,
    channels: Channels,
    index: Index,
    _place: TempDir,
}

impl<'k> Published<'k> {
    /// A tree without images.
    pub fn new(keys: &'k Keys) -> Self {
        let place = tempfile::tempdir().unwrap();
        let entry = DeviceEntry {
            index: path(&index_path(CHANNEL)),
            keyring: None,
            redirect: None,
            extra: Default::default(),
        };
        let channel = Channel {
            devices: [(DEVICE.parse().unwrap(), entry)].into(),
            ..Channel::default()
        };
        let published = Self {
            keys,
            signer: &keys.image_signing,
            store: Directory::open(utf8(&place).join("www")).unwrap(),
            channels: Channels([(CHANNEL.parse().unwrap(), channel)].into()),
            index: Index::empty(GeneratedAt::from_unix(MADE)),
            _place: place,
        };
        published
            .keyring(
                &keys.keyring(KeyringType::ImageMaster),
                &keys.archive_master,
            )
            .keyring(&keys.keyring(KeyringType::ImageSigning), &keys.image_master)
            .channels(|_| ())
            .index(|_| ())
    }

    /// Publishes a full image.
    pub fn full(self, version: u32) -> Self {
        let name = format!("ubuntu-{version}.full.tar.xz");
        self.publish(ImageKind::FULL, version, &name, &payload(None, version))
    }

    /// Publishes a delta.
    pub fn delta(self, base: u32, version: u32) -> Self {
        let name = format!("ubuntu-{version}.delta-{base}.tar.xz");
        let kind = ImageKind::Delta {
            base: ImageVersion::new(base),
        };
        self.publish(kind, version, &name, &payload(Some(base), version))
    }

    /// Changes the image that was published last.
    pub fn image(self, change: impl FnOnce(&mut Image)) -> Self {
        self.index(|index| change(index.images.last_mut().unwrap()))
    }

    /// Changes the index.
    pub fn index(mut self, change: impl FnOnce(&mut Index)) -> Self {
        change(&mut self.index);
        let bytes = self.index.to_bytes();
        self.put_signed(&index_path(CHANNEL), &bytes, self.signer);
        self
    }

    /// Changes the channels.
    pub fn channels(mut self, change: impl FnOnce(&mut Channels)) -> Self {
        change(&mut self.channels);
        let bytes = self.channels.to_bytes();
        self.put_signed("/channels.json", &bytes, &self.keys.image_signing);
        self
    }

    /// Makes `channel` follow [`CHANNEL`], with the same index.
    pub fn alias(self, channel: &str) -> Self {
        self.channels(|channels| {
            let mut alias = channels.0[&CHANNEL.parse().unwrap()].clone();
            alias.alias = Some(CHANNEL.parse().unwrap());
            channels.0.insert(channel.parse().unwrap(), alias);
        })
    }

    /// Publishes a keyring at the place of its type.
    pub fn keyring(self, keyring: &Keyring, signer: &SecretKey) -> Self {
        let place = match keyring.info.kind {
            KeyringType::DeviceSigning => device_keyring_path(),
            kind => format!("/gpg/{kind}.tar.xz"),
        };
        self.keyring_at(&place, keyring, signer)
    }

    /// Publishes a keyring at any place.
    pub fn keyring_at(self, place: &str, keyring: &Keyring, signer: &SecretKey) -> Self {
        self.put_signed(place, &keyring.pack(), signer);
        self
    }

    /// Publishes a blacklist.
    pub fn blacklist(self, keys: &[&SecretKey]) -> Self {
        let signer = &self.keys.image_master;
        self.keyring(&keyring(KeyringType::Blacklist, keys), signer)
    }

    /// Gives the device a keyring of its own, whose key signs the index and what is published from
    /// now on.
    pub fn device_keyring(mut self) -> Self {
        let keys = self.keys;
        self.signer = &keys.device_signing;
        let place = device_keyring_path();
        self.keyring(
            &keys.keyring(KeyringType::DeviceSigning),
            &keys.image_signing,
        )
        .channels(|channels| {
            let channel = channels.0.get_mut(&CHANNEL.parse().unwrap()).unwrap();
            let entry = channel.devices.get_mut(&DEVICE.parse().unwrap()).unwrap();
            entry.keyring = Some(SignedPath {
                path: path(&place),
                signature: path(&format!("{place}.asc")),
            });
        })
        .index(|_| ())
    }

    /// Has a file signed by another key.
    pub fn signed_by(self, place: &str, key: &SecretKey) -> Self {
        self.put_signed(place, &self.bytes(place), key);
        self
    }

    /// Changes one bit in the middle of a file.
    pub fn damage(self, place: &str) -> Self {
        let mut bytes = self.bytes(place);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.put(place, &bytes)
    }

    /// Replaces a file, whatever its signature says.
    pub fn put(self, place: &str, bytes: &[u8]) -> Self {
        self.store.write(&path(place), bytes).unwrap();
        self
    }

    /// The content of a file.
    pub fn bytes(&self, place: &str) -> Vec<u8> {
        self.store.read(&path(place), 1 << 30).unwrap().unwrap()
    }

    /// Where the tree is.
    pub fn root(&self) -> &Utf8Path {
        self.store.root()
    }

    /// Serves the tree, as it is at each request.
    pub fn serve(&self) -> Web {
        Web::of(self.store.root())
    }

    /// Serves the tree in place of another one, of which [`Fault::Old`](crate::Fault::Old) still
    /// shows files.
    pub fn serve_after(&self, before: &Published<'_>) -> Web {
        Web::after(before.root(), self.root())
    }

    fn publish(mut self, kind: ImageKind, version: u32, name: &str, payload: &[u8]) -> Self {
        let version_name = format!("version-{version}.tar.xz");
        let version = ImageVersion::new(version);
        let files = vec![
            self.file(0, name, payload),
            self.file(1, &version_name, &xz(&version_file(version).tar())),
        ];
        self.index.push(Image {
            kind,
            version,
            description: Some(version.to_string()),
            version_detail: detail(version),
            files,
            bootme: false,
            phased: Percentage::ALL,
            extra: Default::default(),
        });
        self.index(|_| ())
    }

    fn file(&self, order: u32, name: &str, bytes: &[u8]) -> FileEntry {
        let place = format!("/pool/{name}");
        self.put_signed(&place, bytes, self.signer);
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        FileEntry {
            order,
            path: path(&place),
            signature: path(&format!("{place}.asc")),
            checksum: hasher.finish(),
            size: bytes.len() as u64,
            extra: Default::default(),
        }
    }

    fn put_signed(&self, place: &str, bytes: &[u8], key: &SecretKey) {
        let signature = sign(key, bytes);
        self.store
            .replace(&path(place), bytes, signature.as_bytes())
            .unwrap();
    }
}

/// The system that is installed by the image of this version.
fn system(version: u32) -> Tree {
    let marker = format!("{version}\n");
    Tree::new()
        .dir("etc")
        .file("etc/version", marker)
        .dir("usr")
        .file("usr/ballast", ballast())
        .file(format!("usr/only-in-{version}"), b"x".repeat(3000))
}

/// The archive of a full image or a delta. It does not depend on keys, so each is made once.
fn payload(base: Option<u32>, version: u32) -> Arc<[u8]> {
    type Made = BTreeMap<(Option<u32>, u32), Arc<[u8]>>;
    static ARCHIVES: Mutex<Made> = Mutex::new(BTreeMap::new());
    let mut archives = ARCHIVES.lock().unwrap();
    let make = || match base {
        None => xz(&system(version).tar()).into(),
        Some(base) => xz(&between(&system(base), &system(version))).into(),
    };
    Arc::clone(archives.entry((base, version)).or_insert_with(make))
}

/// What tells the installed system its version.
fn version_file(version: ImageVersion) -> Tree {
    let ini = ChannelIni {
        base: "localhost".to_owned(),
        http_port: Port::Number(80),
        https_port: Port::Disabled,
        channel: CHANNEL.parse().unwrap(),
        device: DEVICE.parse().unwrap(),
        build_number: version,
        channel_target: None,
        version_detail: detail(version),
    };
    Tree::new()
        .dir("etc")
        .dir("etc/system-image")
        .file("etc/system-image/channel.ini", ini.to_bytes())
}

fn detail(version: ImageVersion) -> VersionDetail {
    format!("ubuntu=20250101,version={version}").into()
}

/// Bytes that do not compress, and are the same in every image.
fn ballast() -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..BALLAST).map(|_| next()).collect()
}

fn index_path(channel: &str) -> String {
    format!("/{channel}/{DEVICE}/index.json")
}

fn device_keyring_path() -> String {
    format!("/{CHANNEL}/{DEVICE}/device-signing.tar.xz")
}

fn path(text: &str) -> TreePath {
    text.parse().unwrap()
}

fn utf8(place: &TempDir) -> &Utf8Path {
    Utf8Path::from_path(place.path()).unwrap()
}

//! A server that offers an index of many images, and a device that trusts it.

use std::fs;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use system_image_demo::server::{CHANNEL, DEVICE, Server, Serving};
use system_image_formats::channels::Channels;
use system_image_formats::name::ChannelName;
use system_image_store::{Directory, Store};

use crate::lab::Lab;
use crate::planning::{image_signing_key, index, now};

/// Both, while the server serves.
pub(crate) struct Offer {
    /// The index as it is published.
    pub(crate) index: Utf8PathBuf,
    device: Utf8PathBuf,
    _serving: Serving,
}

impl Offer {
    /// Publishes so many images.
    pub(crate) fn set_up(lab: &Lab, images: usize) -> anyhow::Result<Self> {
        let place = lab.path("offer")?;
        let (server, _) = Server::set_up(&place.join("server"), &lab.programs, "ed25519", 0)?;
        let index = publish(&server, images)?;
        let device = place.join("device");
        configure(&device, &server)?;
        Ok(Self {
            index,
            device,
            _serving: server.serve()?,
        })
    }

    /// The device's configuration directory.
    pub(crate) fn config(&self) -> Utf8PathBuf {
        self.device.join("config.d")
    }

    /// What its client remembers.
    pub(crate) fn state(&self) -> Utf8PathBuf {
        self.device.join("data/state")
    }
}

/// Puts an index of so many images in the place of the server's empty one.
fn publish(server: &Server, images: usize) -> anyhow::Result<Utf8PathBuf> {
    let store = Directory::open(server.www())?;
    let channels = store.read(&"/channels.json".parse()?, 1 << 20)?;
    let channels = Channels::parse(&channels.context("the server has channels")?)?;
    let channel: ChannelName = CHANNEL.parse()?;
    let device = DEVICE.parse()?;
    let entry = channels.get(&channel).and_then(|c| c.devices.get(&device));
    let path = &entry.context("the server has the device")?.index;

    let keys = image_signing_key(server.root.as_path())?;
    let bytes = index(u32::MAX, images)?.to_bytes();
    let signature = keys.sign(&bytes[..], now()?)?;
    store.replace(path, &bytes, signature.as_bytes())?;
    Ok(server.www().join(path.relative()))
}

/// A device without an image that trusts the server.
fn configure(root: &Utf8Path, server: &Server) -> anyhow::Result<()> {
    for directory in ["config.d", "cache", "data", "keyrings", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let anchor = server.www().join("gpg/archive-master.tar.xz");
    let text = format!(
        "[service]\nbase: {}\nhttp_port: {}\nhttps_port: disabled\nchannel: {CHANNEL}\n\
         device: {DEVICE}\nbuild_number: 0\n\
         [system]\ntempdir: {root}/tmp\nlogfile: {root}/client.log\nsettings_db: {root}/db\n\
         [gpg]\narchive_master: {anchor}\n\
         image_master: {root}/keyrings/image-master.tar.xz\n\
         image_signing: {root}/keyrings/image-signing.tar.xz\n\
         device_signing: {root}/keyrings/device-signing.tar.xz\n\
         [updater]\ncache_partition: {root}/cache\ndata_partition: {root}/data\n\
         [hooks]\napply: systemimage.apply.Noop\n",
        server.address.ip(),
        server.address.port(),
    );
    Ok(fs::write(root.join("config.d/00_default.ini"), text)?)
}

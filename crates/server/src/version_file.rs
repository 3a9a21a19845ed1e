//! The version file: the small tarball that tells the installed system what it is (server spec,
//! section 8.1).

use std::io::{self, Write as _};

use anyhow::Context;
use system_image_delta::{Header, Kind};
use system_image_delta_build::Writer;
use system_image_formats::channel_ini::ChannelIni;
use system_image_formats::channels::DeviceEntry;
use system_image_formats::detail::VersionDetail;
use system_image_formats::index::{FileEntry, Index};
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::side::SideFile;
use system_image_formats::version::ImageVersion;

use crate::input::scratch;
use crate::pool;
use crate::tree::Tree;

/// What a version file says.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The channel that the device follows.
    pub channel: &'a ChannelName,
    /// The channel behind it, for an alias.
    pub target: Option<&'a ChannelName>,
    /// The device.
    pub device: &'a DeviceName,
    /// The image.
    pub version: ImageVersion,
    /// What the image is made of.
    pub detail: &'a VersionDetail,
}

/// Makes and stores the version file of an image beside the index at `entry`, whose visible content
/// is `visible`. A name that the visible index uses for something else is left alone, because
/// files never change under a name that a reader may know.
pub fn store(
    tree: &Tree,
    entry: &DeviceEntry,
    visible: &Index,
    identity: Identity<'_>,
) -> anyhow::Result<FileEntry> {
    let (host, payloads, metadata) = tree
        .config()
        .public
        .get()
        .context("a version file tells devices where the server is")?;
    let ini = ChannelIni {
        base: host.to_owned(),
        http_port: payloads,
        https_port: metadata,
        channel: identity.channel.clone(),
        device: identity.device.clone(),
        build_number: identity.version,
        channel_target: identity.target.cloned(),
        version_detail: identity.detail.clone(),
    };
    let path = free_path(entry, visible, identity.version)?;
    // One that no index names is left over from a run that did not end, or from another server.
    tree.store().remove(&path.with_suffix(".asc")?)?;
    let mut tar = scratch(tree)?;
    tar.write_all(&tarball(&ini, tree.now()))?;
    pool::store(tree, &path, &tar, &SideFile::version(&ini))
}

/// The first name for the version file that the visible index does not use.
fn free_path(
    entry: &DeviceEntry,
    visible: &Index,
    version: ImageVersion,
) -> anyhow::Result<TreePath> {
    let index = entry.index.as_str();
    let directory = index.strip_suffix("/index.json");
    let directory = directory.with_context(|| format!("`{index}` is in no directory"))?;
    let mut path: TreePath = format!("{directory}/version-{version}.tar.xz").parse()?;
    let mut again = 1;
    while visible
        .images
        .iter()
        .any(|image| image.files.iter().any(|file| file.path == path))
    {
        again += 1;
        path = format!("{directory}/{again}/version-{version}.tar.xz").parse()?;
    }
    Ok(path)
}

/// The uncompressed tarball for `ini`, its members dated `now` (Unix seconds).
fn tarball(ini: &ChannelIni, now: i64) -> Vec<u8> {
    let number = format!("{}\n", ini.build_number);
    let config = ini.to_bytes();
    let file = |len: usize| Kind::File { size: len as u64 };
    let link = |target: &str| Kind::Symlink {
        target: target.into(),
    };
    let base = "system/etc/system-image";
    let members: [(String, Kind, u32, &[u8]); 5] = [
        (
            "system/etc/ubuntu-build".into(),
            file(number.len()),
            0o644,
            number.as_bytes(),
        ),
        (
            format!("{base}/channel.ini"),
            file(config.len()),
            0o644,
            &config,
        ),
        (format!("{base}/config.d"), Kind::Directory, 0o775, &[]),
        (
            format!("{base}/config.d/00_default.ini"),
            link("../client.ini"),
            0o644,
            &[],
        ),
        (
            format!("{base}/config.d/01_channel.ini"),
            link("../channel.ini"),
            0o644,
            &[],
        ),
    ];
    write(members, now).expect("writing to memory does not fail")
}

fn write(members: [(String, Kind, u32, &[u8]); 5], now: i64) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for (path, kind, mode, mut content) in members {
        let header = Header::of_root(path.into_bytes(), kind, mode, now);
        writer.member(&header, &mut content)?;
    }
    Ok(writer.finish()?.0)
}

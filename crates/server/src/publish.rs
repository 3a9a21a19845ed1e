//! Publishing: tarballs become an image of a channel.

use anyhow::bail;
use camino::Utf8PathBuf;
use system_image_delta_build::Form;
use system_image_formats::checksum::Sha256;
use system_image_formats::detail::VersionDetail;
use system_image_formats::index::Index;
use system_image_formats::name::{ChannelName, DeviceName, TreePath};
use system_image_formats::side::SideFile;
use system_image_formats::version::{ImageVersion, Percentage};

use crate::bases;
use crate::expire;
use crate::follow;
use crate::history::Event;
use crate::image::{self, Draft, Made};
use crate::part::{Part, is_version_file};
use crate::payload::Payload;
use crate::pool;
use crate::tree::Tree;

/// What to publish.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where.
    pub channel: ChannelName,
    /// For which device.
    pub device: DeviceName,
    /// The tarballs in the order in which a device applies them.
    pub files: Vec<Utf8PathBuf>,
    /// What the tarballs hold; told from their names when not given.
    pub form: Option<Form>,
    /// The image's number; one more than the newest when not given.
    pub version: Option<ImageVersion>,
    /// Versions that deltas lead from; those of the configuration when empty.
    pub bases: Vec<ImageVersion>,
    /// The share of the devices that may have it now.
    pub phased: Percentage,
    /// What the image is made of, without `version=`.
    pub detail: VersionDetail,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// There is a new image.
    New(Made),
    /// The newest image has these files already.
    Unchanged(ImageVersion),
}

/// Publishes an image. A crash at any moment leaves the index as it was; running it again gives
/// what the first run would have given.
pub fn publish(tree: &Tree, request: &Request) -> anyhow::Result<Published> {
    let (channel, device) = (&request.channel, &request.device);
    let entry = tree.device(channel, device)?;
    let mut index = image::index_of(tree, &entry)?;
    let version = image::next_version(tree, channel, &index, request.version)?;
    let bases = if request.bases.is_empty() {
        bases::configured(tree, &index, channel, device)?
    } else {
        bases::asked_for(&index, &request.bases, version)?
    };
    if request.files.is_empty() {
        bail!("an image has at least one file");
    }

    let payloads = request
        .files
        .iter()
        .map(|file| Payload::prepare(tree, file, request.form))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let paths = payloads
        .iter()
        .map(Payload::path)
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(version) = unchanged(&index, &paths, request) {
        // An earlier run may have ended before the aliases had it.
        follow::follow(tree, channel)?;
        return Ok(Published::Unchanged(version));
    }
    let mut parts = Vec::new();
    for (payload, path) in payloads.into_iter().zip(&paths) {
        let entry = pool::store(tree, path, &payload.tar, &side(&payload.digest))?;
        parts.push(Part::made(entry, payload.tar));
    }
    let draft = Draft {
        channel,
        device,
        version,
        parts,
        detail: request.detail.clone(),
        phased: request.phased,
    };
    let made = image::add(tree, &entry, &mut index, &draft, &bases)?;
    expire::expire(&mut index, tree.config().channel(channel).fullcount);
    tree.save_index(&entry, index)?;
    follow::follow(tree, channel)?;
    let event = Event::new("publish").channel(channel).device(device);
    tree.record(&event.version(version).with("phased", request.phased.get()));
    Ok(Published::New(made))
}

/// What the pool remembers of a published file.
fn side(digest: &Sha256) -> SideFile {
    let mut detail = VersionDetail::default();
    detail
        .push("sha256", &digest.to_string())
        .expect("a digest is hexadecimal");
    SideFile::new("publish", detail)
}

/// The newest image's number, if it has exactly these files.
fn unchanged(index: &Index, paths: &[TreePath], request: &Request) -> Option<ImageVersion> {
    let newest = index.full(index.newest()?)?;
    let files = newest.files.iter().filter(|file| !is_version_file(file));
    let same = files.map(|file| &file.path).eq(paths) && request.version.is_none();
    same.then_some(newest.version)
}

//! The newest image of a device, and the ways to it (server spec, section 17.10).

use serde::Serialize;
use system_image_formats::index::{Image, Index};
use system_image_formats::version::ImageVersion;

use crate::bases::fulls;

/// The newest full image of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Latest {
    /// Its number.
    pub version: ImageVersion,
    /// What it is made of, as `key=value` items.
    pub version_detail: String,
    /// Its text for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The share of the devices that should take it, in percent.
    pub phased: u8,
    /// Bytes of the full image.
    pub bytes: u64,
    /// Its files, in the order in which a device applies them.
    pub files: Vec<String>,
    /// Deltas that lead to it from versions whose full image still exists.
    pub deltas: Vec<Delta>,
}

/// A delta.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delta {
    /// The version that it starts from.
    pub base: ImageVersion,
    /// Its bytes.
    pub bytes: u64,
}

/// Finds it; `None` when there is no full image.
pub fn latest(index: &Index) -> Option<Latest> {
    let image = *fulls(index).first()?;
    let deltas = index.images.iter().filter_map(|delta| {
        let base = delta.kind.base()?;
        let leads_here = delta.version == image.version && index.full(base).is_some();
        leads_here.then(|| Delta {
            base,
            bytes: delta.size(),
        })
    });
    Some(Latest {
        version: image.version,
        version_detail: image.version_detail.as_str().to_owned(),
        description: image.description.clone(),
        phased: image.phased.get(),
        bytes: image.size(),
        files: files(image),
        deltas: deltas.collect(),
    })
}

fn files(image: &Image) -> Vec<String> {
    let mut files: Vec<_> = image.files.iter().collect();
    files.sort_by_key(|file| file.order);
    files.iter().map(|file| file.path.to_string()).collect()
}

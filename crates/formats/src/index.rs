//! `index.json`: the images of one device in one channel (server spec, section 5).

mod pieces;
mod reading;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::reading::ByImage;
pub(crate) use self::reading::stream;

use crate::checksum::Sha256;
use crate::detail::VersionDetail;
use crate::json::{self, JsonError};
use crate::name::TreePath;
use crate::time::GeneratedAt;
use crate::version::{ImageVersion, Percentage};

/// The content of `index.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Index {
    /// What concerns the whole index.
    pub global: Global,
    /// The images in the order of publication.
    pub images: Vec<Image>,
    /// Keys of other writers, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What concerns the whole index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Global {
    /// When the index was written.
    pub generated_at: GeneratedAt,
    /// Keys of other writers, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One image: the files that install a version, or that lead to it from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenImage", into = "WrittenImage")]
pub struct Image {
    /// Full, or a delta and from where.
    pub kind: ImageKind,
    /// The version that the device has afterwards.
    pub version: ImageVersion,
    /// Free text; translations stand in `extra` as `description_<lang>`.
    pub description: Option<String>,
    /// What the image is made of.
    pub version_detail: VersionDetail,
    /// The files; [`FileEntry::order`] says in which order they are applied.
    pub files: Vec<FileEntry>,
    /// The device must boot into this image before it goes on to the next one.
    pub bootme: bool,
    /// The share of the devices that should take it.
    pub phased: Percentage,
    /// Keys of other writers, kept as they are.
    pub extra: Map<String, Value>,
}

/// Whether an image installs from nothing or changes a certain version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageKind {
    /// Installs from nothing.
    Full {
        /// Lowest installed version that may take it; 0 is every device.
        minversion: ImageVersion,
    },
    /// Leads from `base` to the image's version.
    Delta {
        /// The version that the device must have.
        base: ImageVersion,
    },
}

impl ImageKind {
    /// A full image for every device.
    pub const FULL: Self = Self::Full {
        minversion: ImageVersion::NONE,
    };

    /// Whether it installs from nothing.
    pub const fn is_full(self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// The base of a delta.
    pub const fn base(self) -> Option<ImageVersion> {
        match self {
            Self::Full { .. } => None,
            Self::Delta { base } => Some(base),
        }
    }
}

/// One file of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileEntry {
    /// Position in which the device applies the files, ascending.
    pub order: u32,
    /// The `.tar.xz`.
    pub path: TreePath,
    /// Its detached signature.
    pub signature: TreePath,
    /// Digest of the `.tar.xz`.
    pub checksum: Sha256,
    /// Bytes of the `.tar.xz`.
    pub size: u64,
    /// Keys of other writers, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The key of a file's entry under which its patch stands.
const PATCH: &str = "patch";

/// The key of a patch's entry that says how much memory applying it takes.
const MEMORY: &str = "memory";

impl FileEntry {
    /// The patch that makes this file's content out of the files of the image's base
    /// (`docs/formats/patch.md`, section Trees), if there is one. Only a delta has some.
    pub fn patch(&self) -> Option<Patch> {
        // What somebody else has under that key is none.
        let mut file: Self = serde_json::from_value(self.extra.get(PATCH)?.clone()).ok()?;
        file.order = self.order;
        let memory = file.extra.get(MEMORY)?.as_u64()?;
        Some(Patch { file, memory })
    }

    /// Notes the patch that makes this file's content.
    pub fn set_patch(&mut self, mut patch: Patch) {
        let memory = patch.memory.into();
        patch.file.extra.insert(MEMORY.to_owned(), memory);
        let entry = serde_json::to_value(patch.file).expect("an entry is JSON");
        self.extra.insert(PATCH.to_owned(), entry);
    }
}

/// A patch that is published beside a file of a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where it is. Its order is that of the file in whose place it may be applied.
    pub file: FileEntry,
    /// Memory in bytes that applying it takes.
    pub memory: u64,
}

impl Index {
    /// An index without images.
    pub fn empty(now: GeneratedAt) -> Self {
        Self {
            global: Global {
                generated_at: now,
                extra: Map::new(),
            },
            images: Vec::new(),
            extra: Map::new(),
        }
    }

    /// Reads `index.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        json::from_slice(bytes)
    }

    /// Reads `index.json` and gives its images to `visit` one after another, in their order, so that
    /// the index is never in memory as a whole. What [`parse`](Self::parse) refuses is refused here
    /// too, though perhaps only after some images.
    pub fn visit(bytes: &[u8], visit: impl FnMut(Image)) -> Result<Global, JsonError> {
        let (global, _) = json::seeded(bytes, ByImage::new(visit))?;
        Ok(global)
    }

    /// The exact bytes to publish.
    pub fn to_bytes(&self) -> Vec<u8> {
        json::to_vec(self)
    }

    /// The highest version, if there is an image.
    pub fn newest(&self) -> Option<ImageVersion> {
        self.images.iter().map(|image| image.version).max()
    }

    /// The full image of this version; of several, the first listed counts.
    pub fn full(&self, version: ImageVersion) -> Option<&Image> {
        self.images
            .iter()
            .find(|image| image.version == version && image.is_full())
    }

    /// Appends an image and keeps the rule that only the newest version is phased.
    pub fn push(&mut self, image: Image) {
        self.images.push(image);
        let newest = self.newest();
        for image in &mut self.images {
            if Some(image.version) != newest {
                image.phased = Percentage::ALL;
            }
        }
    }
}

impl Image {
    /// Whether it installs from nothing.
    pub const fn is_full(&self) -> bool {
        self.kind.is_full()
    }

    /// All files that the image names: those to apply, and the patches beside them.
    pub fn named(&self) -> impl Iterator<Item = Cow<'_, FileEntry>> {
        self.files.iter().flat_map(|file| {
            let patch = file.patch().map(|patch| Cow::Owned(patch.file));
            std::iter::once(Cow::Borrowed(file)).chain(patch)
        })
    }

    /// The same image with each file that has a patch replaced by it, and the memory in bytes that
    /// applying the hungriest takes; `None` if there is no patch.
    pub fn patched(&self) -> Option<(Self, u64)> {
        let patches: Vec<_> = self.files.iter().map(FileEntry::patch).collect();
        let most = patches.iter().flatten().map(|patch| patch.memory).max()?;
        let files = self.files.iter().zip(patches);
        let files =
            files.map(|(file, patch)| patch.map_or_else(|| file.clone(), |patch| patch.file));
        let image = Self {
            files: files.collect(),
            ..self.clone()
        };
        Some((image, most))
    }

    /// Bytes to download; a sum beyond `u64` stays at its end.
    pub fn size(&self) -> u64 {
        self.files
            .iter()
            .fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

/// An image as JSON has it, where a delta may lack its base.
#[derive(Serialize, Deserialize)]
struct WrittenImage {
    #[serde(rename = "type")]
    kind: WrittenKind,
    version: ImageVersion,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<ImageVersion>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    minversion: Option<ImageVersion>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "VersionDetail::is_empty")]
    version_detail: VersionDetail,
    #[serde(default)]
    files: Vec<FileEntry>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    bootme: bool,
    #[serde(
        rename = "phased-percentage",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    phased: Option<Percentage>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenKind {
    Full,
    Delta,
}

/// A delta that does not say where it starts.
#[derive(Debug, thiserror::Error)]
#[error("the delta to version {version} has no `base`")]
struct NoBase {
    version: ImageVersion,
}

impl TryFrom<WrittenImage> for Image {
    type Error = NoBase;

    fn try_from(written: WrittenImage) -> Result<Self, NoBase> {
        let mut extra = written.extra;
        let kind = match written.kind {
            WrittenKind::Full => {
                if let Some(base) = written.base {
                    extra.insert("base".into(), base.get().into());
                }
                ImageKind::Full {
                    minversion: written.minversion.unwrap_or_default(),
                }
            }
            WrittenKind::Delta => {
                // Readers ignore it there (client spec, section 7.2); it stays what it was.
                if let Some(minversion) = written.minversion {
                    extra.insert("minversion".into(), minversion.get().into());
                }
                let base = written.base.ok_or(NoBase {
                    version: written.version,
                })?;
                ImageKind::Delta { base }
            }
        };
        Ok(Self {
            kind,
            version: written.version,
            description: written.description,
            version_detail: written.version_detail,
            files: written.files,
            bootme: written.bootme,
            phased: written.phased.unwrap_or(Percentage::ALL),
            extra,
        })
    }
}

impl From<Image> for WrittenImage {
    fn from(image: Image) -> Self {
        let (kind, base, minversion) = match image.kind {
            ImageKind::Full { minversion } => {
                let minversion = (minversion != ImageVersion::NONE).then_some(minversion);
                (WrittenKind::Full, None, minversion)
            }
            ImageKind::Delta { base } => (WrittenKind::Delta, Some(base), None),
        };
        Self {
            kind,
            version: image.version,
            base,
            minversion,
            description: image.description,
            version_detail: image.version_detail,
            files: image.files,
            bootme: image.bootme,
            phased: (image.phased != Percentage::ALL).then_some(image.phased),
            extra: image.extra,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delta_example() -> String {
        let sum = "0f".repeat(32);
        let file = |order: u32, path: &str, size: u64| {
            format!(
                "                {{\n                    \"checksum\": \"{sum}\",\n                    \"order\": {order},\n                    \"path\": \"{path}\",\n                    \"signature\": \"{path}.asc\",\n                    \"size\": {size}\n                }}"
            )
        };
        let detail = "tag=2026-01-30,ubports=20260130,device=b1,keyring=archive-master,version=3";
        format!(
            "{{\n    \"global\": {{\n        \"generated_at\": \"Mon Dec 18 08:54:59 UTC 2017\"\n    }},\n    \"images\": [\n        {{\n            \"base\": 2,\n            \"description\": \"{detail}\",\n            \"files\": [\n{},\n{}\n            ],\n            \"phased-percentage\": 20,\n            \"type\": \"delta\",\n            \"version\": 3,\n            \"version_detail\": \"{detail}\"\n        }}\n    ]\n}}\n",
            file(0, "/pool/ubports-a.delta-ubports-b.tar.xz", 6_712_488),
            file(1, "/24.04/daily/bravo/version-3.tar.xz", 452),
        )
    }

    #[test]
    fn the_worked_example_survives_byte_for_byte() {
        let text = delta_example();
        let index = Index::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(index.to_bytes()).unwrap(), text);
        assert_eq!(index.images[0].kind.base(), Some(ImageVersion::new(2)));
        assert_eq!(index.images[0].phased.get(), 20);
    }

    #[test]
    fn an_index_without_images_has_the_specified_bytes() {
        let index = Index::empty(GeneratedAt::from_unix(0));
        let want = "{\n    \"global\": {\n        \"generated_at\": \"Thu Jan 01 00:00:00 UTC 1970\"\n    },\n    \"images\": []\n}\n";
        assert_eq!(String::from_utf8(index.to_bytes()).unwrap(), want);
    }

    const GLOBAL: &str = r#""global": {"generated_at": "Mon Dec 18 08:54:59 UTC 2017"}"#;

    fn parse_image(image: &str) -> Result<Index, JsonError> {
        Index::parse(format!("{{{GLOBAL}, \"images\": [{image}]}}").as_bytes())
    }

    #[test]
    fn defaults_and_tolerances_of_the_original_reader() {
        let index = parse_image(r#"{"type": "full", "version": 70000, "phased-percentage": "40"}"#)
            .unwrap();
        let image = &index.images[0];
        assert!(image.is_full() && image.files.is_empty() && !image.bootme);
        assert_eq!((image.version.get(), image.phased.get()), (70_000, 40));
        let odd = r#"{"type": "delta", "version": 2, "base": 1, "minversion": 9, "description_de": "x", "patch": {"b": 1}}"#;
        let index = parse_image(odd).unwrap();
        assert_eq!(Index::parse(&index.to_bytes()).unwrap(), index);
        assert_eq!(index.images[0].extra.len(), 3);
    }

    #[test]
    fn what_makes_the_index_unusable_is_refused() {
        for image in [
            r#"{"type": "delta", "version": 2}"#,
            r#"{"type": "patch", "version": 2}"#,
            r#"{"type": "full"}"#,
            r#"{"type": "full", "version": -1}"#,
            r#"{"type": "full", "version": 99999999999}"#,
            r#"{"type": "full", "version": 1, "bootme": 1}"#,
            r#"{"type": "full", "version": 1, "files": [{"order": 0, "path": "/a", "signature": "/a.asc", "checksum": "0", "size": 1}]}"#,
            r#"{"type": "full", "version": 1, "files": [{"order": 0, "path": "/../a", "signature": "/a.asc", "size": 1}]}"#,
        ] {
            assert!(parse_image(image).is_err(), "{image}");
            let text = format!("{{{GLOBAL}, \"images\": [{image}]}}");
            assert!(Index::visit(text.as_bytes(), |_| ()).is_err(), "{image}");
        }
        for text in [
            r#"{"global": {}, "images": []}"#.to_owned(),
            format!("{{{GLOBAL}}}"),
            format!("{{{GLOBAL}, \"images\": []}} x"),
            format!("{{{GLOBAL}, \"images\": [], \"images\": []}}"),
        ] {
            assert!(Index::parse(text.as_bytes()).is_err(), "{text}");
            assert!(Index::visit(text.as_bytes(), |_| ()).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_newest_version_stays_phased() {
        let phased = |version| {
            let mut image = parse_image(&format!(r#"{{"type": "full", "version": {version}}}"#))
                .unwrap()
                .images
                .remove(0);
            image.phased = Percentage::clamped(30);
            image
        };
        let mut index = Index::empty(GeneratedAt::from_unix(0));
        index.push(phased(1));
        assert_eq!(index.images[0].phased.get(), 30);
        index.push(phased(2));
        assert_eq!(
            (index.images[0].phased.get(), index.images[1].phased.get()),
            (100, 30)
        );
    }

    proptest! {
        #[test]
        fn no_mutation_of_an_index_panics(at in 0usize..900, byte in any::<u8>()) {
            let mut bytes = delta_example().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            let mut images = Vec::new();
            let visited = Index::visit(&bytes, |image| images.push(image));
            if let Ok(index) = Index::parse(&bytes) {
                prop_assert_eq!(Index::parse(&index.to_bytes()).unwrap(), index.clone());
                prop_assert_eq!(visited.ok(), Some(index.global));
                prop_assert_eq!(images, index.images);
            } else {
                prop_assert!(visited.is_err());
            }
        }
    }
}

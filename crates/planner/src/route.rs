//! A route: the images that take a device to a version, in order.

use std::collections::BTreeSet;
use std::fmt;

use system_image_formats::index::{FileEntry, Image};
use system_image_formats::outline::{ImageOutline, Place};
use system_image_formats::version::ImageVersion;

/// At most one full image, which is the first, and deltas after it, each from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    images: Vec<&'a ImageOutline>,
    /// Whether the patches of the first one are applied.
    is_patched: bool,
}

impl<'a> Route<'a> {
    pub(crate) fn new(images: Vec<&'a ImageOutline>, is_patched: bool) -> Self {
        Self { images, is_patched }
    }

    /// The images in order; at least one.
    pub fn images(&self) -> &[&'a ImageOutline] {
        &self.images
    }

    /// The version that the device has in the end.
    pub fn target(&self) -> ImageVersion {
        self.last().version
    }

    /// The image whose rollout decides over the whole route.
    pub fn last(&self) -> &'a ImageOutline {
        self.images.last().expect("a route has at least one image")
    }

    /// Whether the first image is applied by its patches, where it has some. They lead from what is
    /// installed; later ones start from what is not there yet.
    pub const fn is_patched(&self) -> bool {
        self.is_patched
    }

    /// Bytes of all files of all images.
    pub fn size(&self) -> u64 {
        let first = self.images.first().filter(|_| self.is_patched);
        let sizes = first.map(|image| image.patched).into_iter();
        let rest = &self.images[usize::from(first.is_some())..];
        sizes
            .chain(rest.iter().map(|image| image.size))
            .fold(0, u64::saturating_add)
    }

    /// Whether the system is formatted first. Counts the whole route, also what comes after an
    /// image that must be booted.
    pub fn starts_from_nothing(&self) -> bool {
        self.images.iter().any(|image| image.kind.is_full())
    }

    /// Where its images are in the document of the index.
    pub fn places(&self) -> Vec<Place> {
        self.images.iter().map(|image| image.place).collect()
    }

    /// How many of its images are to be fetched and applied now: those up to the first one that
    /// must be booted.
    pub fn now(&self) -> usize {
        let boot = self.images.iter().position(|image| image.bootme);
        boot.map_or(self.images.len(), |at| at + 1)
    }

    /// Keeps the images up to version `cap`; nothing when none is left.
    pub(crate) fn capped(mut self, cap: ImageVersion) -> Option<Self> {
        self.images.retain(|image| image.version <= cap);
        (!self.images.is_empty()).then_some(self)
    }
}

/// The files of these images in order of application, which is by (image, order, path). A file that
/// two images share comes with the first.
pub fn files(images: Vec<Image>) -> Vec<FileEntry> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for mut image in images {
        (image.files).sort_by(|a, b| (a.order, &a.path).cmp(&(b.order, &b.path)));
        let news = image.files.into_iter();
        files.extend(news.filter(|file| seen.insert(file.path.clone())));
    }
    files
}

impl fmt::Display for Route<'_> {
    /// The versions joined with `:`, as in `3:4:5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, image) in self.images.iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{}", image.version)?;
        }
        Ok(())
    }
}

//! A route: the images that take a device to a version, in order.

use std::collections::BTreeSet;
use std::fmt;

use system_image_formats::index::{FileEntry, Image};
use system_image_formats::version::ImageVersion;

/// At most one full image, which is the first, and deltas after it, each from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    images: Vec<&'a Image>,
}

impl<'a> Route<'a> {
    pub(crate) fn new(images: Vec<&'a Image>) -> Self {
        Self { images }
    }

    /// The images in order; at least one.
    pub fn images(&self) -> &[&'a Image] {
        &self.images
    }

    /// The version that the device has in the end.
    pub fn target(&self) -> ImageVersion {
        self.last().version
    }

    /// The image whose rollout decides over the whole route.
    pub fn last(&self) -> &'a Image {
        self.images.last().expect("a route has at least one image")
    }

    /// Bytes of all files of all images.
    pub fn size(&self) -> u64 {
        self.images
            .iter()
            .fold(0, |sum, image| sum.saturating_add(image.size()))
    }

    /// Whether the system is formatted first. Counts the whole route, also what comes after an
    /// image that must be booted.
    pub fn starts_from_nothing(&self) -> bool {
        self.images.iter().any(|image| image.is_full())
    }

    /// The files to fetch and apply now, in order of application: those of the images up to the
    /// first one that must be booted, by (image, order, path). A file that two images share comes
    /// with the first.
    pub fn files(&self) -> Vec<&'a FileEntry> {
        let now = match self.images.iter().position(|image| image.bootme) {
            Some(at) => &self.images[..=at],
            None => &self.images,
        };
        let mut seen = BTreeSet::new();
        let mut files = Vec::new();
        for image in now {
            let mut of_image: Vec<_> = image.files.iter().collect();
            of_image.sort_by(|a, b| (a.order, &a.path).cmp(&(b.order, &b.path)));
            files.extend(of_image.into_iter().filter(|file| seen.insert(&file.path)));
        }
        files
    }

    /// Keeps the images up to version `cap`; nothing when none is left.
    pub(crate) fn capped(mut self, cap: ImageVersion) -> Option<Self> {
        self.images.retain(|image| image.version <= cap);
        (!self.images.is_empty()).then_some(self)
    }
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

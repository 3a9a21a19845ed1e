//! The outline of an index: what planning needs of it, some thirty bytes an image.
//!
//! An index of a few years is some megabytes of paths and digests, of which an update uses those
//! of a few images. So a device reads its index twice, as a stream: once for the outline, and
//! again for the images of the chosen route.

use std::io::Read;

use crate::index::{ByImage, Image, ImageKind, Index};
use crate::json::{self, JsonError};
use crate::version::{ImageVersion, Percentage};

/// An index without what only a download needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The images in the order of the index.
    pub images: Vec<ImageOutline>,
}

/// What planning needs of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageOutline {
    /// How many images stand before it in the index.
    pub place: usize,
    /// Full, or a delta and from where.
    pub kind: ImageKind,
    /// The version that the device has afterwards.
    pub version: ImageVersion,
    /// The device must boot into this image before it goes on to the next one.
    pub bootme: bool,
    /// The share of the devices that should take it.
    pub phased: Percentage,
    /// Bytes to download.
    pub size: u64,
}

impl Outline {
    /// Reads `index.json` as a stream, one image in memory at a time. Its length is the caller's
    /// to bound. What [`Index::parse`] refuses is refused here too.
    pub fn read(document: impl Read) -> Result<Self, JsonError> {
        let mut outline = Self::default();
        json::from_reader(document, ByImage(|image| outline.push(&image)))?;
        Ok(outline)
    }

    fn push(&mut self, image: &Image) {
        self.images.push(ImageOutline {
            place: self.images.len(),
            kind: image.kind,
            version: image.version,
            bootme: image.bootme,
            phased: image.phased,
            size: image.size(),
        });
    }
}

impl From<&Index> for Outline {
    fn from(index: &Index) -> Self {
        let mut outline = Self::default();
        index.images.iter().for_each(|image| outline.push(image));
        outline
    }
}

impl Index {
    /// Reads the images at these [places](ImageOutline::place) of an `index.json`, in the order
    /// in which they are asked for; as a stream, like [`Outline::read`].
    ///
    /// # Errors
    /// As [`Index::parse`], and if there is no image at one of the places.
    pub fn read_images(document: impl Read, places: &[usize]) -> Result<Vec<Image>, JsonError> {
        let mut found = vec![None; places.len()];
        let mut place = 0;
        let keep = |image: Image| {
            for (found, _) in found.iter_mut().zip(places).filter(|(_, at)| **at == place) {
                *found = Some(image.clone());
            }
            place += 1;
        };
        json::from_reader(document, ByImage(keep))?;
        let missing = || serde::de::Error::custom("an image that was there is gone");
        let images: Option<Vec<_>> = found.into_iter().collect();
        Ok(images.ok_or_else::<serde_json::Error, _>(missing)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INDEX: &str = r#"{
        "images": [
            {"type": "full", "version": 4, "minversion": 2, "phased-percentage": 20, "files": [
                {"order": 0, "path": "/a", "signature": "/a.asc", "size": 5,
                 "checksum": "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"},
                {"order": 1, "path": "/b", "signature": "/b.asc", "size": 18446744073709551615,
                 "checksum": "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"}
            ]},
            {"type": "delta", "version": 3, "base": 1, "bootme": true, "files": []},
            {"type": "full", "version": 5, "description": "x", "patch": {"b": [1]}}
        ],
        "note": {"images": []},
        "global": {"generated_at": "Mon Dec 18 08:54:59 UTC 2017"}
    }"#;

    #[test]
    fn an_outline_says_of_each_image_what_the_index_says() {
        let outline = Outline::read(INDEX.as_bytes()).unwrap();
        let index = Index::parse(INDEX.as_bytes()).unwrap();
        assert_eq!(outline, Outline::from(&index));
        let [first, second, third] = outline.images[..] else {
            panic!("{outline:?}")
        };
        let minversion = ImageVersion::new(2);
        assert_eq!(first.kind, ImageKind::Full { minversion });
        assert_eq!((first.size, first.phased.get()), (u64::MAX, 20));
        assert!(second.bootme && second.kind.base() == Some(ImageVersion::new(1)));
        assert_eq!((third.place, third.version.get(), third.size), (2, 5, 0));
    }

    #[test]
    fn an_outline_is_small() {
        assert!(size_of::<ImageOutline>() <= 40);
    }

    #[test]
    fn images_are_found_by_their_place_in_any_order() {
        let index = Index::parse(INDEX.as_bytes()).unwrap();
        for places in [&[][..], &[0, 1, 2], &[2, 0], &[1]] {
            let images = Index::read_images(INDEX.as_bytes(), places).unwrap();
            let want: Vec<_> = places.iter().map(|at| index.images[*at].clone()).collect();
            assert_eq!(images, want);
        }
        assert!(Index::read_images(INDEX.as_bytes(), &[0, 3]).is_err());
    }

    #[test]
    fn what_makes_an_index_unusable_makes_its_outline_unusable() {
        let global = r#""global": {"generated_at": "Mon Dec 18 08:54:59 UTC 2017"}"#;
        let first = r#"{"type": "full", "version": 1}"#;
        for text in [
            String::new(),
            "[]".to_owned(),
            "{}".to_owned(),
            format!("{{{global}}}"),
            format!(r#"{{"images": [{first}]}}"#),
            format!(r#"{{{global}, "images": {first}}}"#),
            format!(r#"{{{global}, "images": [{first}"#),
            format!(r#"{{{global}, "images": [{first}]}} x"#),
            format!(r#"{{{global}, "images": [], "images": [{first}]}}"#),
            format!(r#"{{{global}, {global}, "images": []}}"#),
            format!(r#"{{{global}, "images": [{first}, {{"type": "delta", "version": 2}}]}}"#),
        ] {
            assert!(Outline::read(text.as_bytes()).is_err(), "{text}");
            assert!(Index::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_stream_that_breaks_off_is_told_from_a_wrong_index() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("the disk is gone"))
            }
        }
        let (begin, _) = INDEX.split_at(INDEX.len() / 2);
        let refused = Outline::read(begin.as_bytes().chain(Broken)).unwrap_err();
        assert!(matches!(refused, JsonError::Read(_)), "{refused:?}");
    }

    proptest! {
        #[test]
        fn whole_and_as_a_stream_an_index_is_the_same(
            at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut bytes = INDEX.as_bytes().to_vec();
            *at.get_mut(&mut bytes) = byte;
            let whole = Index::parse(&bytes).map(|index| Outline::from(&index)).ok();
            prop_assert_eq!(Outline::read(&bytes[..]).ok(), whole);
        }
    }
}

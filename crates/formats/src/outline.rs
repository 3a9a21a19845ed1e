//! The outline of an index: what planning needs of it, some thirty bytes an image.
//!
//! An index of a few years is some megabytes of paths and digests, of which an update uses those
//! of a few images. So a device reads its index as a stream, keeps the outline, and reads the images
//! of the chosen route again from their places.

use std::io::{Read, Seek, SeekFrom};

use crate::index::{self, Image, ImageKind, Index};
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
    /// Where it stands in the document.
    pub place: Place,
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
    /// Bytes to download where patches are applied.
    pub patched: u64,
    /// MiB of memory that this takes; 0 where there are no patches.
    pub patch_memory: u32,
}

impl ImageOutline {
    /// Whether a device that has `installed` applies its patches, if it has so much memory in
    /// bytes for that: they lead from what is installed, and nowhere else.
    pub fn uses_patches(&self, installed: ImageVersion, memory: u64) -> bool {
        self.patch_memory > 0
            && u64::from(self.patch_memory) << 20 <= memory
            && self.kind.base() == Some(installed)
    }
}

/// Where an image stands in a document, in bytes; nowhere, if it was in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    start: u32,
    len: u32,
}

impl Outline {
    /// Reads `index.json` as a stream, one image in memory at a time. Its length is the caller's
    /// to bound, below 4 GiB. What [`Index::parse`] refuses is refused here too.
    pub fn read(document: impl Read) -> Result<Self, JsonError> {
        let mut outline = Self::default();
        index::stream(document, |start, len, image| {
            outline.push(&image, Place::new(start, len)?);
            Ok(())
        })?;
        Ok(outline)
    }

    fn push(&mut self, image: &Image, place: Place) {
        let patched = image.patched();
        self.images.push(ImageOutline {
            place,
            kind: image.kind,
            version: image.version,
            bootme: image.bootme,
            phased: image.phased,
            size: image.size(),
            patched: patched
                .as_ref()
                .map_or(image.size(), |(image, _)| image.size()),
            patch_memory: patched.map_or(0, |(_, memory)| in_mib(memory)),
        });
    }
}

/// Bytes in MiB, rounded up.
fn in_mib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).map_or(u32::MAX, |mib| mib.max(1))
}

impl Place {
    fn new(start: u64, len: usize) -> Result<Self, JsonError> {
        match (u32::try_from(start), u32::try_from(len)) {
            (Ok(start), Ok(len)) => Ok(Self { start, len }),
            _ => Err(JsonError::TooLong(
                usize::try_from(start).map_or(usize::MAX, |start| start.saturating_add(len)),
            )),
        }
    }
}

impl From<&Index> for Outline {
    fn from(index: &Index) -> Self {
        let mut outline = Self::default();
        for image in &index.images {
            outline.push(image, Place::default());
        }
        outline
    }
}

impl Index {
    /// Reads the images at these [places](ImageOutline::place) of the document that their outline
    /// was read from, in the order in which they are asked for.
    ///
    /// # Errors
    /// If there is no image at one of the places.
    pub fn read_images(
        mut document: impl Read + Seek,
        places: &[Place],
    ) -> Result<Vec<Image>, JsonError> {
        let mut images = Vec::with_capacity(places.len());
        for place in places {
            let mut bytes = Vec::new();
            (document.seek(SeekFrom::Start(place.start.into())))
                .and_then(|_| {
                    (&mut document)
                        .take(place.len.into())
                        .read_to_end(&mut bytes)
                })
                .map_err(JsonError::Read)?;
            images.push(json::from_slice(&bytes)?);
        }
        Ok(images)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

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
        assert_eq!(nowhere(outline.clone()), Outline::from(&index));
        let [first, second, third] = outline.images[..] else {
            panic!("{outline:?}")
        };
        let minversion = ImageVersion::new(2);
        assert_eq!(first.kind, ImageKind::Full { minversion });
        assert_eq!((first.size, first.phased.get()), (u64::MAX, 20));
        assert!(second.bootme && second.kind.base() == Some(ImageVersion::new(1)));
        assert_eq!((third.version.get(), third.size), (5, 0));
    }

    #[test]
    fn an_outline_is_small() {
        assert!(size_of::<ImageOutline>() <= 48);
    }

    #[test]
    fn images_are_found_by_their_place_in_any_order() {
        let index = Index::parse(INDEX.as_bytes()).unwrap();
        let outline = Outline::read(INDEX.as_bytes()).unwrap();
        for numbers in [&[][..], &[0, 1, 2], &[2, 0], &[1]] {
            let places: Vec<_> = numbers.iter().map(|at| outline.images[*at].place).collect();
            let images = Index::read_images(Cursor::new(INDEX), &places).unwrap();
            let want: Vec<_> = numbers.iter().map(|at| index.images[*at].clone()).collect();
            assert_eq!(images, want);
        }
        let beyond = Place::new(INDEX.len() as u64 + 1, 10).unwrap();
        for place in [Place::default(), beyond] {
            assert!(Index::read_images(Cursor::new(INDEX), &[place]).is_err());
        }
    }

    fn nowhere(mut outline: Outline) -> Outline {
        for image in &mut outline.images {
            image.place = Place::default();
        }
        outline
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
            format!(r#"{{{global}, "images": [null]}}"#),
            format!(r#"{{{global}, "images": [{first}, null]}}"#),
            format!(r#"{{{global}, "images": [{first}null]}}"#),
            format!(r#"{{{global}, "images": [{first}{first}]}}"#),
            format!(r#"{{{global}, "images": [5{first}]}}"#),
            format!(r#"{{{global}, "images": [[{first}]]}}"#),
            format!(r#"{{{global}, "images": [{first}]}}}}"#),
            format!(r#"{{{global}, "images": [{first}], "x": [1{{}}]}}"#),
            format!(r#"{{{global}, "images": [{first}], "x": ["\ud800"]}}"#),
            format!(r#"{{{global}, "images": [{first}], "x": [1e999]}}"#),
            format!(r#"{{{global}, "images": [{first}], "im\u0061ges": []}}"#),
            format!(r#"["images", [{first}]]"#),
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

    /// Read whole and as a stream, a document is the same or nothing.
    fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
        let whole = Index::parse(bytes).map(|index| Outline::from(&index)).ok();
        let stream = Outline::read(bytes).ok();
        let places = stream.as_ref().map(|outline| {
            let places: Vec<_> = outline.images.iter().map(|image| image.place).collect();
            Index::read_images(Cursor::new(bytes), &places).unwrap()
        });
        prop_assert_eq!(places, Index::parse(bytes).map(|index| index.images).ok());
        prop_assert_eq!(stream.map(nowhere), whole);
        Ok(())
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused_as_a_stream_too() {
        for levels in 120..130 {
            for key in ["x", "images"] {
                let nested = "[".repeat(levels) + &"]".repeat(levels);
                let patch = format!(r#"[{{"type": "full", "version": 1, "p": {nested}}}]"#);
                let value = if key == "x" { &nested } else { &patch };
                let more = if key == "x" { r#", "images": []"# } else { "" };
                let global = r#""global": {"generated_at": "Mon Dec 18 08:54:59 UTC 2017"}"#;
                let text = format!(r#"{{{global}, "{key}": {value}{more}}}"#);
                agree(text.as_bytes()).unwrap();
            }
        }
    }

    /// Parts of indexes, right and wrong, of which documents are put together.
    const PARTS: [&str; 22] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "0",
        "1e999",
        " ",
        "\"",
        "\\",
        r#""images""#,
        r#""im\u0061ges""#,
        r#""x""#,
        r#""\ud800""#,
        r#""\\""#,
        r#""images": ["#,
        r#"{"type": "full", "version": 1}"#,
        r#"{"type": "delta", "base": 1, "version": 2, "x": [{"y": "]"}]}"#,
        r#""global": {"generated_at": "Mon Dec 18 08:54:59 UTC 2017"}"#,
        "\u{7f}",
    ];

    proptest! {
        #[test]
        fn an_index_with_another_byte_is_read_alike(
            at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut bytes = INDEX.as_bytes().to_vec();
            *at.get_mut(&mut bytes) = byte;
            agree(&bytes)?;
        }

        #[test]
        fn an_index_with_other_parts_is_read_alike(
            news in prop::collection::vec((any::<prop::sample::Index>(), 0..PARTS.len(), 0..3_usize), 1..4)
        ) {
            let mut text = INDEX.to_owned();
            for (at, part, cut) in news {
                let at = at.index(text.len());
                let end = (at + 9 * cut).min(text.len());
                text.replace_range(at..end, PARTS[part]);
            }
            agree(text.as_bytes())?;
        }

        #[test]
        fn documents_put_together_of_parts_are_read_alike(
            parts in prop::collection::vec(0..PARTS.len(), 0..12)
        ) {
            let inner: String = parts.iter().map(|part| PARTS[*part]).collect();
            let global = PARTS[20];
            let image = PARTS[18];
            for text in [
                inner.clone(),
                format!("{{{global}, \"images\": [{inner}]}}"),
                format!("{{{global}, \"images\": [{image}, {inner}]}}"),
                format!("{{{global}, {inner}, \"images\": [{image}]}}"),
                format!("{{{global}, \"images\": [{image}], \"x\": [{inner}]}}"),
            ] {
                agree(text.as_bytes())?;
            }
        }
    }
}

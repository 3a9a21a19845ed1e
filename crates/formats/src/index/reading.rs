//! Reads an index image by image and key by key.
//!
//! Whoever needs a part of each image takes that and lets the image go, so that an index of any
//! length is never in memory as a whole. Keys of file entries are read one by one because that is
//! several times faster than what serde makes of a flattened rest, and an index is mostly files.

use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{FileEntry, Global, Image, Index, pieces};
use crate::json::{self, JsonError};

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut images = Vec::new();
        let by_image = ByImage::new(|image| images.push(image));
        let (global, extra) = by_image.deserialize(deserializer)?;
        Ok(Self {
            global,
            images,
            extra,
        })
    }
}

/// Reads an index that comes as a stream, whose length is the caller's to bound. Its images go to
/// this function one after another, in their order, each with its place in the document and its
/// length there, in bytes.
pub(crate) fn stream(
    document: impl Read,
    mut visit: impl FnMut(u64, usize, Image) -> Result<(), JsonError>,
) -> Result<Global, JsonError> {
    let (mut images, mut holes) = (0_usize, 0_usize);
    let rest = pieces::split(document, |start, bytes| {
        let image = json::from_slice(bytes).map_err(|error| of_image(images, error))?;
        images += 1;
        visit(start, bytes.len(), image)
    })?;
    let (global, _) = json::seeded(&rest, ByImage::new(|()| holes += 1))?;
    // Where more is missing than was taken out, somebody else wrote `null`.
    if holes != images {
        return Err(serde_json::Error::custom("`null` where an image should be").into());
    }
    Ok(global)
}

fn of_image(place: usize, error: JsonError) -> JsonError {
    match error {
        JsonError::Form(error) => {
            serde_json::Error::custom(format_args!("image {place} from the first: {error}")).into()
        }
        other => other,
    }
}

/// Reads an index whose images go to this function one after another, in their order. What is
/// left is what concerns the whole index, and the keys of other writers.
pub(crate) struct ByImage<T, F>(F, PhantomData<fn(T)>);

impl<T, F: FnMut(T)> ByImage<T, F> {
    pub(crate) fn new(visit: F) -> Self {
        Self(visit, PhantomData)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum IndexKey {
    Global,
    Images,
    Other(String),
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> DeserializeSeed<'de> for ByImage<T, F> {
    type Value = (Global, Map<String, Value>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for ByImage<T, F> {
    type Value = (Global, Map<String, Value>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an index")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut global, mut images) = (None, None);
        let mut extra = Map::new();
        while let Some(key) = map.next_key()? {
            match key {
                IndexKey::Global if global.is_some() => {
                    return Err(A::Error::duplicate_field("global"));
                }
                IndexKey::Images if images.is_some() => {
                    return Err(A::Error::duplicate_field("images"));
                }
                IndexKey::Global => global = Some(map.next_value()?),
                IndexKey::Images => {
                    images = Some(map.next_value_seed(Images(&mut self.0, PhantomData))?);
                }
                IndexKey::Other(name) => {
                    extra.insert(name, map.next_value()?);
                }
            }
        }
        let () = images.ok_or_else(|| A::Error::missing_field("images"))?;
        let global = global.ok_or_else(|| A::Error::missing_field("global"))?;
        Ok((global, extra))
    }
}

/// The list of images.
struct Images<'f, T, F>(&'f mut F, PhantomData<fn(T)>);

impl<'de, T: Deserialize<'de>, F: FnMut(T)> DeserializeSeed<'de> for Images<'_, T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Images<'_, T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of images")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(image) = list.next_element()? {
            (self.0)(image);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum FileKey {
    Order,
    Path,
    Signature,
    Checksum,
    Size,
    Other(String),
}

impl<'de> Deserialize<'de> for FileEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FileVisitor)
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = FileEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FileEntry, A::Error> {
        let (mut order, mut path, mut signature, mut checksum, mut size) =
            (None, None, None, None, None);
        let mut extra = Map::new();
        while let Some(key) = map.next_key()? {
            match key {
                FileKey::Order => order = Some(map.next_value()?),
                FileKey::Path => path = Some(map.next_value()?),
                FileKey::Signature => signature = Some(map.next_value()?),
                FileKey::Checksum => checksum = Some(map.next_value()?),
                FileKey::Size => size = Some(map.next_value()?),
                FileKey::Other(name) => {
                    extra.insert(name, map.next_value()?);
                }
            }
        }
        let missing = A::Error::missing_field;
        Ok(FileEntry {
            order: order.ok_or_else(|| missing("order"))?,
            path: path.ok_or_else(|| missing("path"))?,
            signature: signature.ok_or_else(|| missing("signature"))?,
            checksum: checksum.ok_or_else(|| missing("checksum"))?,
            size: size.ok_or_else(|| missing("size"))?,
            extra,
        })
    }
}

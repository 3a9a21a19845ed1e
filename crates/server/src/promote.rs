//! Promotion: an image of one channel becomes an image of another one (server spec, section 17.2).
//!
//! Payloads are named by content and shared, so nothing is copied: only the version file is new,
//! and deltas from what the other channel has.

use anyhow::{Context, bail};
use system_image_formats::detail::VersionDetail;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::{ImageVersion, Percentage};

use crate::bases;
use crate::expire;
use crate::follow::follow;
use crate::history::Event;
use crate::image::{self, Draft, Made};
use crate::part::{Part, same_content};
use crate::tree::Tree;

/// What to promote.
#[derive(Clone, Debug)]
pub struct Request {
    /// From where.
    pub source: ChannelName,
    /// To where.
    pub target: ChannelName,
    /// Which image; the newest by default.
    pub version: Option<ImageVersion>,
    /// How many numbers before that.
    pub offset: u32,
    /// Keep the number.
    pub keep_version: bool,
    /// The share of the devices that may have it.
    pub phased: Percentage,
    /// What replaces its tag.
    pub tag: Option<NewTag>,
}

/// The tag of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewTag {
    /// This text.
    Text(String),
    /// The week, `2026-W48`, and `2026-W48/2` for the second in it.
    Weekly,
    /// This text and a number, one more than the last one's, e.g. `OTA-13` after `OTA-12`.
    Numbered(String),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promoted {
    /// There is a new image.
    New(Made),
    /// The newest image has these files already.
    Unchanged(ImageVersion),
}

/// Promotes an image for one device.
pub fn promote(tree: &Tree, request: &Request, device: &DeviceName) -> anyhow::Result<Promoted> {
    let source_entry = tree.device(&request.source, device)?;
    let target_entry = tree.device(&request.target, device)?;
    if request.source == request.target {
        bail!("`{}` cannot be promoted to itself", request.source);
    }
    let theirs = image::index_of(tree, &source_entry)?;
    let newest = bases::fulls(&theirs).first().map(|image| image.version);
    let newest = newest
        .with_context(|| format!("`{device}` in channel `{}` has no image", request.source))?;
    let version = request.version.unwrap_or(newest);
    let wanted = ImageVersion::new(version.get().saturating_sub(request.offset));
    let image = theirs.full(wanted).with_context(|| {
        let known: Vec<_> = bases::fulls(&theirs)
            .iter()
            .map(|image| image.version.to_string())
            .collect();
        format!(
            "`{device}` in channel `{}` has no full image {wanted}; it has {}",
            request.source,
            known.join(", ")
        )
    })?;
    let mut index = image::index_of(tree, &target_entry)?;
    if let Some(newest) = bases::fulls(&index)
        .first()
        .filter(|newest| same_content(newest, image))
    {
        let version = newest.version;
        follow(tree, &request.target)?;
        return Ok(Promoted::Unchanged(version));
    }
    let asked = request.keep_version.then_some(image.version);
    let version = image::next_version(tree, &request.target, &index, asked)?;
    let bases = bases::configured(tree, &index, &request.target, device)?;
    let mut detail = image.version_detail.without("version");
    if let Some(tag) = &request.tag {
        let last = bases::fulls(&index)
            .first()
            .and_then(|newest| newest.version_detail.get("tag").map(str::to_owned));
        detail = retagged(&detail, &tag.after(last.as_deref(), tree.now())?)?;
    }
    let draft = Draft {
        channel: &request.target,
        device,
        version,
        parts: Part::of_image(image),
        detail,
        phased: request.phased,
    };
    let made = image::add(tree, &target_entry, &mut index, &draft, &bases)?;
    expire::expire(&mut index, tree.config().channel(&request.target).fullcount);
    tree.save_index(&target_entry, index)?;
    follow(tree, &request.target)?;
    let event = Event::new("promote")
        .channel(&request.target)
        .device(device);
    tree.record(
        &event
            .version(version)
            .with("from", request.source.as_str())
            .with("of", image.version.get())
            .with("phased", request.phased.get()),
    );
    Ok(Promoted::New(made))
}

/// A version detail with another tag, which comes last, before the version.
pub fn retagged(detail: &VersionDetail, tag: &str) -> anyhow::Result<VersionDetail> {
    let mut detail = detail.without("version").without("tag");
    detail.push("tag", tag)?;
    Ok(detail)
}

impl NewTag {
    /// The tag of the image that comes after one tagged `last`, at `now`.
    pub fn after(&self, last: Option<&str>, now: i64) -> anyhow::Result<String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Weekly => {
                let date = jiff::Timestamp::from_second(now)?.to_zoned(jiff::tz::TimeZone::UTC);
                let week = date.date().iso_week_date();
                Ok(again(&format!("{}-W{:02}", week.year(), week.week()), last))
            }
            Self::Numbered(prefix) => {
                let number = last.and_then(|last| last.strip_prefix(prefix.as_str()));
                let number: u32 = match number {
                    None => 0,
                    Some(text) => text.parse().with_context(|| {
                        format!("the last tag, `{prefix}{text}`, does not end in a number")
                    })?,
                };
                Ok(format!("{prefix}{}", number.saturating_add(1)))
            }
        }
    }
}

/// `tag`, or `tag/2` after it, and so on (server spec, section 14.4).
pub fn again(tag: &str, last: Option<&str>) -> String {
    let Some(rest) = last.and_then(|last| last.strip_prefix(tag)) else {
        return tag.to_owned();
    };
    if rest.is_empty() {
        return format!("{tag}/2");
    }
    match rest.strip_prefix('/').and_then(|n| n.parse::<u32>().ok()) {
        Some(number) => format!("{tag}/{}", number.saturating_add(1)),
        None => tag.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_tag_follows_the_last_one() {
        // 2020-02-15, in the seventh week.
        let now = 1_581_724_800;
        let weekly = |last| NewTag::Weekly.after(last, now).unwrap();
        assert_eq!(weekly(None), "2020-W07");
        assert_eq!(weekly(Some("2020-W06/3")), "2020-W07");
        assert_eq!(weekly(Some("2020-W07")), "2020-W07/2");
        assert_eq!(weekly(Some("2020-W07/2")), "2020-W07/3");
        let ota = NewTag::Numbered("OTA-".to_owned());
        assert_eq!(ota.after(Some("OTA-12"), now).unwrap(), "OTA-13");
        assert_eq!(ota.after(Some("2020-W06"), now).unwrap(), "OTA-1");
        assert!(ota.after(Some("OTA-12b"), now).is_err());
    }

    #[test]
    fn a_tag_is_replaced() {
        let detail = VersionDetail::from("tag=a,rootfs=1,version=3".to_owned());
        assert_eq!(retagged(&detail, "b").unwrap().as_str(), "rootfs=1,tag=b");
        assert!(retagged(&detail, "b,c").is_err());
    }
}

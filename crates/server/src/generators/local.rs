//! `system-image`: a file of another local channel (server spec, section 13.6).

use system_image_formats::name::{ChannelName, DeviceName};

use super::{Job, Produced};
use crate::bases::fulls;
use crate::part::Part;

pub(super) fn produce(
    job: Job<'_>,
    channel: &ChannelName,
    prefix: &str,
    device: Option<&DeviceName>,
) -> anyhow::Result<Produced> {
    let device = device.unwrap_or(job.device);
    let not_yet = |what: String| Ok(Produced::NotYet(what));
    let channels = job.tree.channels()?;
    let Some(entry) = channels
        .get(channel)
        .and_then(|found| found.devices.get(device))
    else {
        return not_yet(format!("channel `{channel}` has no device `{device}`"));
    };
    let index = job.tree.index(entry)?;
    let Some(newest) = index
        .as_ref()
        .and_then(|index| fulls(index).first().copied())
    else {
        return not_yet(format!("`{device}` in channel `{channel}` has no image"));
    };
    let parts = Part::of_image(newest);
    let Some(part) = parts.into_iter().find(|part| part.prefix() == prefix) else {
        return not_yet(format!(
            "version {} of `{device}` in channel `{channel}` has no file `{prefix}-…`",
            newest.version
        ));
    };
    let side = job.tree.side(&part.entry.path)?;
    let detail = side
        .and_then(|side| side.version_detail)
        .unwrap_or_default();
    Ok(Produced::File(part, detail))
}

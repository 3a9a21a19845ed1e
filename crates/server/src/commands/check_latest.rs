//! `server check-latest`: the newest image of a device, here or on another server.

use anyhow::Context as _;
use camino::Utf8PathBuf;
use clap::Args;
use serde::Serialize;
use system_image_formats::index::Index;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_report::Size;

use super::Context;
use crate::latest::{Latest, latest};
use crate::published::{UnknownChannel, device_of};
use crate::remote::{Remote, read_anchor};

/// Show the newest image of a device, here or on another server
#[derive(Debug, Args)]
pub(super) struct CheckLatest {
    /// Another server, `http://…` or `https://…`; this one's tree by default
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The archive-master keyring of the other server. Without it, nobody vouches for what is shown
    #[arg(long, value_name = "FILE", requires = "server")]
    trust: Option<Utf8PathBuf>,
    /// The channel
    #[arg(long, value_name = "NAME", default_value = "devel-proposed")]
    channel: ChannelName,
    /// The device
    device: DeviceName,
}

/// What is shown.
#[derive(Debug, Serialize)]
struct Shown {
    channel: String,
    device: String,
    /// Whether it was checked from a keyring that the operator has.
    verified: bool,
    latest: Option<Latest>,
}

impl CheckLatest {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let (index, verified) = match &self.server {
            None => (self.here(context)?, true),
            Some(url) => (self.there(url)?, self.trust.is_some()),
        };
        let shown = Shown {
            channel: self.channel.to_string(),
            device: self.device.to_string(),
            verified,
            latest: index.as_ref().and_then(latest),
        };
        context.print(&shown, tell)
    }

    fn here(&self, context: &Context) -> anyhow::Result<Option<Index>> {
        let tree = context.published()?;
        let channels = tree.channels()?;
        tree.index(device_of(&channels, &self.channel, &self.device)?)
    }

    fn there(&self, url: &str) -> anyhow::Result<Option<Index>> {
        let now = super::now();
        let remote = match &self.trust {
            Some(place) => {
                let anchor = read_anchor(place, url)?;
                Remote::open(url, anchor, &self.device, now)?
            }
            None => Remote::open_without_anchor_unverified(url, &self.device, now)?,
        };
        let (channels, _) = remote.channels()?;
        if channels.get(&self.channel).is_none() {
            let unknown = UnknownChannel::among(&self.channel, &channels);
            return Err(unknown).with_context(|| format!("on `{url}`"));
        }
        let entry = device_of(&channels, &self.channel, &self.device)
            .with_context(|| format!("on `{url}`"))?;
        let (chain, _) = remote.chain_of(&self.device, entry)?;
        let (index, _) = remote.index(entry, &chain)?;
        Ok(Some(index))
    }
}

fn tell(shown: &Shown) {
    if !shown.verified {
        println!(
            "unverified: nobody vouches for this server's keys; give them with `--trust FILE`"
        );
    }
    let Some(latest) = &shown.latest else {
        println!("{} {}: no image", shown.channel, shown.device);
        return;
    };
    println!(
        "{} {}: version {}, {} in full, for {} % of the devices",
        shown.channel,
        shown.device,
        latest.version,
        Size(latest.bytes),
        latest.phased
    );
    for item in latest
        .version_detail
        .split(',')
        .filter(|item| !item.is_empty())
    {
        println!("  {item}");
    }
    for file in &latest.files {
        println!("  {file}");
    }
    for delta in &latest.deltas {
        println!("delta from {}: {}", delta.base, Size(delta.bytes));
    }
}

//! `server history`: who changed what, and when.

use clap::Args;
use system_image_formats::name::{ChannelName, DeviceName};

use super::Context;
use crate::history::{self, Entry};

/// Show who changed what, and when
#[derive(Debug, Args)]
pub(super) struct History {
    /// Only of this channel
    #[arg(long)]
    channel: Option<ChannelName>,
    /// Only of this device
    #[arg(long)]
    device: Option<DeviceName>,
    /// Only the last so many changes
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

impl History {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let root = context.published()?.root().clone();
        let mut entries = history::History::of(&root).read()?;
        let (channel, device) = (
            self.channel.map(|name| name.to_string()),
            self.device.map(|name| name.to_string()),
        );
        entries.retain(|entry| {
            (channel.is_none() || entry.event.channel == channel)
                && (device.is_none() || entry.event.device == device)
        });
        if let Some(last) = self.last {
            entries.drain(..entries.len().saturating_sub(last));
        }
        print(context, &entries)
    }
}

/// Prints changes, oldest first.
pub(super) fn print(context: &Context, entries: &[Entry]) -> anyhow::Result<()> {
    context.print(&entries, |entries| {
        for entry in *entries {
            let time = jiff::Timestamp::from_second(entry.time).unwrap_or_default();
            let event = &entry.event;
            let mut line = format!("{time} {}: {}", entry.by, event.action);
            let named = [&event.channel, &event.device];
            for text in named.into_iter().flatten() {
                line += &format!(" {text}");
            }
            if let Some(version) = event.version {
                line += &format!(" {version}");
            }
            for (key, value) in &event.more {
                match value.as_str() {
                    Some(text) => line += &format!(" {key}={text}"),
                    None => line += &format!(" {key}={value}"),
                }
            }
            println!("{line}");
        }
    })
}

//! `server promote`: images of one channel become images of another one.

use anyhow::{Context as _, bail, ensure};
use camino::Utf8PathBuf;
use clap::Args;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::{ImageVersion, Percentage};

use super::Context;
use super::publish::tell;
use crate::promote::{NewTag, Promoted, Request, promote};
use crate::tree::Tree;

/// Publish an image of one channel on another one
#[derive(Debug, Args)]
pub(super) struct Promote {
    /// The channel that has the image
    #[arg(required_unless_present = "list")]
    source: Option<ChannelName>,
    /// The channel that gets it
    #[arg(required_unless_present = "list")]
    target: Option<ChannelName>,
    /// The devices
    #[arg(conflicts_with_all = ["all_devices", "list"])]
    devices: Vec<DeviceName>,
    /// All devices that both channels have
    #[arg(long)]
    all_devices: bool,
    /// File with a line `SOURCE => TARGET` for each pair of channels; all devices that both have
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "target", "version"])]
    list: Option<Utf8PathBuf>,
    /// Which image; the newest by default
    #[arg(short = 'r', long, value_name = "N")]
    version: Option<ImageVersion>,
    /// So many numbers before that
    #[arg(short, long, value_name = "K", default_value_t = 0)]
    offset: u32,
    /// Keep its number
    #[arg(short, long)]
    keep_version: bool,
    /// Percentage of devices that may see the image now
    #[arg(short, long, value_name = "PERCENT", default_value = "100")]
    phased_percentage: Percentage,
    /// Replace its tag
    #[arg(short, long, conflicts_with_all = ["weekly", "numbered"])]
    tag: Option<String>,
    /// Tag it with the week, e.g. `2026-W48`
    #[arg(long, conflicts_with = "numbered")]
    weekly: bool,
    /// Tag it with this text and the next number, e.g. `OTA-`
    #[arg(long, value_name = "PREFIX")]
    numbered: Option<String>,
}

impl Promote {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let pairs = self.pairs()?;
        context.change(|tree| {
            let mut failed = 0;
            for (source, target) in &pairs {
                let request = self.request(source, target);
                let devices = self.devices(tree, source, target)?;
                let one = self.devices.len() == 1;
                for device in devices {
                    match promote(tree, &request, &device) {
                        Ok(Promoted::New(made)) => {
                            if one {
                                tell(&made);
                                println!("{}", made.version);
                            } else {
                                println!("{target} {device}: version {}", made.version);
                            }
                        }
                        Ok(Promoted::Unchanged(version)) if one => {
                            bail!("version {version} of `{target}` has these files already");
                        }
                        Ok(Promoted::Unchanged(version)) => {
                            println!("{target} {device}: version {version} has these files");
                        }
                        Err(error) if one => return Err(error),
                        Err(error) => {
                            eprintln!("{target} {device}: {error:#}");
                            failed += 1;
                        }
                    }
                }
            }
            ensure!(failed == 0, "{failed} of the devices were not promoted");
            Ok(())
        })
    }

    fn pairs(&self) -> anyhow::Result<Vec<(ChannelName, ChannelName)>> {
        let Some(list) = &self.list else {
            let pair = (self.source.clone(), self.target.clone());
            let (Some(source), Some(target)) = pair else {
                bail!("give two channels");
            };
            return Ok(vec![(source, target)]);
        };
        let text = std::fs::read_to_string(list);
        let text = text.with_context(|| format!("cannot read `{list}`"))?;
        let mut pairs = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || format!("`{list}`, line {number}: it is not `SOURCE => TARGET`");
            let (source, target) = line.split_once("=>").with_context(wrong)?;
            pairs.push((source.trim().parse()?, target.trim().parse()?));
        }
        Ok(pairs)
    }

    fn request(&self, source: &ChannelName, target: &ChannelName) -> Request {
        let tag = match (&self.tag, self.weekly, &self.numbered) {
            (Some(text), ..) => Some(NewTag::Text(text.clone())),
            (None, true, _) => Some(NewTag::Weekly),
            (None, false, Some(prefix)) => Some(NewTag::Numbered(prefix.clone())),
            (None, false, None) => None,
        };
        Request {
            source: source.clone(),
            target: target.clone(),
            version: self.version,
            offset: self.offset,
            keep_version: self.keep_version,
            phased: self.phased_percentage,
            tag,
        }
    }

    fn devices(
        &self,
        tree: &Tree,
        source: &ChannelName,
        target: &ChannelName,
    ) -> anyhow::Result<Vec<DeviceName>> {
        if !self.all_devices && self.list.is_none() {
            ensure!(!self.devices.is_empty(), "give devices, or `--all-devices`");
            return Ok(self.devices.clone());
        }
        let channels = tree.channels()?;
        let (source, target) = (
            tree.channel(&channels, source)?,
            tree.channel(&channels, target)?,
        );
        let shared = source.devices.iter().filter(|(device, entry)| {
            let theirs = target.devices.get(*device);
            let own = |redirect: &Option<ChannelName>| redirect.is_none();
            own(&entry.redirect) && theirs.is_some_and(|theirs| own(&theirs.redirect))
        });
        Ok(shared.map(|(device, _)| device.clone()).collect())
    }
}

//! `server import`: new images for the configured channels.

use anyhow::ensure;
use clap::Args;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_report::Size;

use super::Context;
use crate::gc;
use crate::import::{Imported, Outcome, Wanted, import};

/// Make new images for the configured channels, where their sources have something new
#[derive(Debug, Args)]
pub(super) struct Import {
    /// Only these channels; all of type `auto` by default
    channels: Vec<ChannelName>,
    /// Only for this device. Can be given several times
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<DeviceName>,
    /// Leave files alone that no index names any more
    #[arg(long)]
    keep: bool,
}

impl Import {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let wanted = Wanted {
            channels: self.channels,
            devices: self.devices,
        };
        let imported = context.change(|tree| {
            let imported = import(tree, &wanted)?;
            if !self.keep {
                gc::collect(tree, tree.config().grace_days)?;
            }
            Ok(imported)
        })?;
        context.print(&imported, |imported| {
            for one in imported {
                tell(one);
            }
        })?;
        let failed = |one: &&Imported| matches!(one.outcome, Outcome::Failed { .. });
        let count = imported.iter().filter(failed).count();
        ensure!(count == 0, "{count} of {} imports failed", imported.len());
        Ok(())
    }
}

fn tell(one: &Imported) {
    let at = format!("{} {}", one.channel, one.device);
    match &one.outcome {
        Outcome::New {
            version,
            bytes,
            deltas,
            refused,
        } => {
            println!("{at}: version {version}, {} in full", Size(*bytes));
            for base in deltas {
                println!("{at}: delta from {base}");
            }
            for (base, why) in refused {
                println!("{at}: no delta from {base}: {why}");
            }
        }
        Outcome::Unchanged { version } => println!("{at}: nothing changed since version {version}"),
        Outcome::NotYet { file, why } => println!("{at}: no image yet, `{file}`: {why}"),
        Outcome::Failed { error } => println!("{at}: failed: {error}"),
    }
}

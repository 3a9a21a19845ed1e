//! `server gc`: removes what nothing names any more.

use clap::Args;
use system_image_report::Size;

use super::Context;
use crate::gc::Collected;
use crate::{expire, follow, gc, image};

/// Remove files that no index has named for a while
///
/// Files that the server did not write are left alone, and listed.
#[derive(Debug, Args)]
pub(super) struct Gc {
    /// Days for which a file stays after no index names it; `grace_days` of the configuration by
    /// default
    #[arg(long, value_name = "DAYS")]
    grace: Option<u32>,
    /// Before that, take images beyond `fullcount` out of every configured channel
    #[arg(long)]
    expire: bool,
}

impl Gc {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let collected = context.change(|tree| {
            if self.expire {
                expire_all(tree)?;
            }
            gc::collect(tree, self.grace.unwrap_or(tree.config().grace_days))
        })?;
        context.print(&collected, tell)
    }
}

/// Prints what was collected, for people.
pub(super) fn tell(collected: &Collected) {
    println!(
        "{} files removed ({}), {} wait for the end of their grace period",
        collected.removed.len(),
        Size(collected.bytes),
        collected.waiting.len()
    );
    if !collected.foreign.is_empty() {
        println!("{} files are not this server's:", collected.foreign.len());
        for path in &collected.foreign {
            println!("  {path}");
        }
    }
}

fn expire_all(tree: &crate::tree::Tree) -> anyhow::Result<()> {
    let channels = tree.channels()?;
    for (name, config) in &tree.config().channels {
        let Some(channel) = channels.get(name) else {
            continue;
        };
        for entry in channel.devices.values() {
            if channel.followed(name).is_some() || entry.redirect.is_some() {
                continue;
            }
            let mut index = image::index_of(tree, entry)?;
            if !expire::expire(&mut index, config.fullcount).is_empty() {
                tree.save_index(entry, index)?;
            }
        }
        follow::follow(tree, name)?;
    }
    Ok(())
}

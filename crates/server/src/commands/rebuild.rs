//! `server rebuild`: makes a lost or damaged `channels.json` anew.

use clap::Args;

use super::Context;
use crate::rebuild::rebuild;

/// Emergency: make `channels.json` anew from the indexes in the tree
///
/// Redirects, hidden flags and channels without devices stand in `channels.json` alone and are
/// lost. Use it only when that file cannot be read any more.
#[derive(Debug, Args)]
pub(super) struct Rebuild {
    /// Needed, because what only `channels.json` says is lost
    #[arg(long, required_unless_present = "dry_run")]
    yes: bool,
}

impl Rebuild {
    #[expect(clippy::unused_self, reason = "its option is only a confirmation")]
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let rebuilt = context.change(rebuild)?;
        context.print(&rebuilt, |rebuilt| {
            for (channel, device) in &rebuilt.devices {
                println!("found device `{device}` of channel `{channel}`");
            }
            for (channel, target) in &rebuilt.aliases {
                println!("channel `{channel}` follows `{target}`");
            }
            for (channel, device) in &rebuilt.keyrings {
                println!("device `{device}` of channel `{channel}` has a keyring of its own");
            }
            for (place, why) in &rebuilt.left_out {
                println!("left out: {place}: {why}");
            }
            println!(
                "redirects, hidden flags and channels without devices are not to be found; add them \
                 with `channel redirect`, `device redirect`, `channel hide`, `channel create`"
            );
        })
    }
}

//! `server resign`: signs everything anew.

use clap::Args;

use super::Context;
use crate::resign::resign;

/// Sign what the present image-signing key has not signed yet
#[derive(Debug, Args)]
pub(super) struct Resign {
    /// Sign everything, whoever has signed it
    #[arg(long)]
    all: bool,
}

impl Resign {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let done = context.change(|tree| resign(tree, self.all))?;
        context.say(&format!(
            "{} files and {} documents signed",
            done.files, done.documents
        ));
        Ok(())
    }
}

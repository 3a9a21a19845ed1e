//! `server verify`: checks a whole tree.

use anyhow::ensure;
use clap::Args;

use super::Context;
use crate::verify::verify;

/// Check every signature and reference of the tree
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Read every payload, too, and check its digest and signature
    #[arg(long)]
    deep: bool,
}

impl Verify {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let report = verify(&context.published()?, self.deep)?;
        context.print(&report, |report| {
            for problem in &report.warnings {
                println!("warning: {}: {}", problem.at, problem.what);
            }
            for problem in &report.errors {
                println!("error: {}: {}", problem.at, problem.what);
            }
            println!(
                "{} channels, {} devices, {} images, {} files",
                report.channels, report.devices, report.images, report.files
            );
        })?;
        let count = report.errors.len();
        ensure!(count == 0, "{count} things are wrong with the tree");
        Ok(())
    }
}

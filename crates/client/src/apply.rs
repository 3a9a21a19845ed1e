//! Lets a prepared update happen: normally by a reboot into the recovery, where the upgrader runs
//! (client spec, section 14).

use std::process::Command;

use anyhow::{Context, bail};
use camino::Utf8Path;
use system_image_formats::config::HookName;

use crate::handover::COMMAND_FILE;

/// What restarts the device.
const REBOOT: &str = "/sbin/reboot";

/// What is wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The user's data.
    Factory,
    /// The user's data, and the recovery is told that it was for the shop.
    Production,
}

/// Runs the apply hook over what lies in the drop box.
pub fn run(hook: &HookName, drop_box: &Utf8Path) -> anyhow::Result<()> {
    match hook {
        HookName::Noop => Ok(()),
        HookName::Reboot => execute(REBOOT, &["-f", "recovery"]),
        HookName::Program(program) => {
            execute(program.as_str(), &[drop_box.join(COMMAND_FILE).as_str()])
        }
        other => bail!("there is no apply hook `{other}`"),
    }
}

/// Restarts the device into its system.
pub fn reboot() -> anyhow::Result<()> {
    execute(REBOOT, &[])
}

fn execute(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run `{program}`"))?;
    if !status.success() {
        let line = [&[program], arguments].concat().join(" ");
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

//! What a process that goes on has used so far.

use std::fs;

use anyhow::Context;
use nix::unistd::{SysconfVar, sysconf};

/// Figures of one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// Resident memory in bytes, now.
    pub(crate) resident: u64,
    /// The most that it ever was.
    pub(crate) most: u64,
    /// Seconds of processors.
    pub(crate) cpu: f64,
}

/// Asks the kernel.
pub(crate) fn used(process: u32) -> anyhow::Result<Used> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let bytes = |name: &str| -> anyhow::Result<u64> {
        let kilobytes: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"))
            .context("the kernel tells no memory")?
            .trim()
            .parse()?;
        Ok(kilobytes * 1024)
    };
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may hold blanks; the rest begins with the third field.
    let (_, fields) = stat.rsplit_once(") ").context("the kernel tells no time")?;
    let ticks: f64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse().unwrap_or(0.0))
        .sum();
    let each = sysconf(SysconfVar::CLK_TCK)?.context("the kernel tells no tick")?;
    Ok(Used {
        resident: bytes("VmRSS:")?,
        most: bytes("VmHWM:")?,
        cpu: ticks / each as f64,
    })
}

//! Tells the configured mirrors to pull (server spec, section 19.1).

use std::process::{Command, Stdio};

use serde::Serialize;

use crate::config::Mirror;
use crate::root::Root;

/// What became of one mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Its host name.
    pub host: String,
    /// Why it was not told; `None` when it was, and its command succeeded.
    pub error: Option<String>,
}

/// Runs the command of each mirror through `ssh`, in order of host name. One that fails stops no
/// other.
pub fn trigger(root: &Root, mirrors: &[Mirror]) -> Vec<Told> {
    let tell = |mirror: &Mirror| Told {
        host: mirror.host.clone(),
        error: run(root, mirror).err(),
    };
    mirrors.iter().map(tell).collect()
}

fn run(root: &Root, mirror: &Mirror) -> Result<(), String> {
    let status = Command::new("ssh")
        .arg("-i")
        .arg(root.path(&mirror.key))
        .args(["-l", &mirror.user, "-p", &mirror.port.to_string()])
        .args(["-o", "BatchMode=yes", &mirror.host, &mirror.command])
        .stdin(Stdio::null())
        // What it says is no result of ours.
        .stdout(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ssh ended with {status}")),
        Err(error) => Err(format!("cannot run ssh: {error}")),
    }
}

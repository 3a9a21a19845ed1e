//! Mirrors: other hosts that serve the same tree (server spec, section 19).

use std::process::{Command, Stdio};

use crate::published::Published;

/// Tells each mirror to pull, in order of host name (section 19.1). One that cannot be told is
/// warned of, and the others are told all the same.
pub fn trigger(tree: &Published) {
    for mirror in &tree.config().mirrors {
        let told = Command::new("ssh")
            .arg("-i")
            .arg(tree.root().path(&mirror.key))
            .args(["-l", &mirror.user, "-p", &mirror.port.to_string()])
            .args(["-o", "BatchMode=yes", &mirror.host, &mirror.command])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        match told {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("warning: mirror `{}`: ssh ended with {status}", mirror.host),
            Err(error) => eprintln!("warning: mirror `{}`: cannot run ssh: {error}", mirror.host),
        }
    }
}

//! Hooks: programs of the operator's that are told of each change, for instance to announce an image.
//!
//! Each executable in `etc/hooks` is run after a change, in order of name, with the change as one line
//! of JSON on its input, as the history has it. What it does is no reason to fail what has happened.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_durable::present;

use crate::history::Entry;
use crate::root::Root;

/// Tells all hooks of a change.
pub fn run(root: &Root, entry: &Entry) {
    let directory = root.directory().join("etc/hooks");
    let told = hooks(&directory).and_then(|hooks| {
        let line = serde_json::to_vec(entry)?;
        for hook in hooks {
            if let Err(error) = tell(&hook, root, &line) {
                eprintln!("warning: hook `{hook}`: {error:#}");
            }
        }
        Ok(())
    });
    if let Err(error) = told {
        eprintln!("warning: {error:#}");
    }
}

fn hooks(directory: &Utf8Path) -> anyhow::Result<Vec<Utf8PathBuf>> {
    let failed = || format!("cannot read the directory `{directory}`");
    let Some(entries) = present(directory.read_dir_utf8()).with_context(failed)? else {
        return Ok(Vec::new());
    };
    let mut hooks = Vec::new();
    for entry in entries {
        let place = entry.with_context(failed)?.into_path();
        let metadata = place.metadata().with_context(failed)?;
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            hooks.push(place);
        }
    }
    hooks.sort();
    Ok(hooks)
}

fn tell(hook: &Utf8Path, root: &Root, line: &[u8]) -> anyhow::Result<()> {
    let mut child = Command::new(hook)
        .env("SYSTEM_IMAGE_ROOT", root.directory())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot run it")?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not care closes its input.
        let _ = input.write_all(line);
    }
    let status = child.wait()?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

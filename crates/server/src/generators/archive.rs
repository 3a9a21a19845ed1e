//! `tar` and `directory`: what lies on the disk, in canonical form and named by its content.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use camino::Utf8Path;
use system_image_delta_build::{Edits, Form};

use super::{Job, Produced, item, known, pool_path, store};
use crate::payload::{Payload, canonical};

/// A tar archive.
pub(super) fn tar(job: Job<'_>, path: &Utf8Path, name: Option<&str>) -> anyhow::Result<Produced> {
    let place = job.tree.root().path(path);
    if !place.exists() {
        return Ok(Produced::NotYet(format!("there is no `{place}`")));
    }
    let payload = Payload::prepare(job.tree, &place, None)?;
    let prefix = name.unwrap_or(&payload.prefix).to_owned();
    let path = pool_path(&prefix, &payload.digest)?;
    if let Some(found) = known(job.tree, &path)? {
        return Ok(found);
    }
    let detail = item(&prefix, &short(&payload.digest.to_string()))?;
    let more = [("path", place.as_str().into())];
    store(job.tree, &path, payload.tar, "tar", detail, &more)
}

/// A directory that holds a root file system.
pub(super) fn directory(
    job: Job<'_>,
    path: &Utf8Path,
    name: Option<&str>,
) -> anyhow::Result<Produced> {
    let place = job.tree.root().path(path);
    if !place.is_dir() {
        return Ok(Produced::NotYet(format!("there is no directory `{place}`")));
    }
    let mut child = Command::new("tar")
        .args(["--create", "--sort=name", "--numeric-owner", "--xattrs"])
        .args([
            "--xattrs-include=*",
            "--format=pax",
            "--file=-",
            "--directory",
        ])
        .args([place.as_str(), "."])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run `tar`")?;
    let stream = child.stdout.take().context("its output was asked for")?;
    let made = canonical(job.tree, stream, Form::Rootfs, &Edits::default());
    let status = child.wait().context("cannot run `tar`")?;
    ensure!(
        status.success(),
        "`tar` cannot read all of `{place}`: {status}"
    );
    let (tar, digest) = made.with_context(|| format!("`{place}` cannot be published"))?;
    let prefix = name.unwrap_or("rootfs");
    let path = pool_path(prefix, &digest)?;
    if let Some(found) = known(job.tree, &path)? {
        return Ok(found);
    }
    let detail = item(prefix, &short(&digest.to_string()))?;
    let more = [("path", place.as_str().into())];
    store(job.tree, &path, tar, "directory", detail, &more)
}

/// Enough of a digest for people to tell images apart.
pub(super) fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

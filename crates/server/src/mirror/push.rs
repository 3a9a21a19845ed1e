//! Copies the tree to another place with `rsync`: files first, documents last.
//!
//! A document and its signature are links through a directory link (`store::Directory`), and are
//! sent as such: the versions before the link that leads to them, so that there, too, both change in
//! one step. While the documents are sent no other command may change the tree.

use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use crate::lock::{Lock, Patience};
use crate::root::Root;

/// What is of use to this server only.
const OURS: [&str; 4] = ["/.mirror/", "*.new", "*.part", "*.part.info"];

/// The directories that hold the versions of documents.
const VERSIONS: [&str; 3] = [".*.json/", ".*.tar.xz/", ".*.xz/"];

/// The link that leads to a document's present version.
const LINK: &str = ".*/now";

/// Documents and their signatures, which are links to a version, or plain files of another server.
const DOCUMENTS: [&str; 9] = [
    "/channels.json",
    "/channels.json.asc",
    "/gpg/*.tar.xz",
    "/gpg/*.tar.xz.asc",
    "index.json",
    "index.json.asc",
    "device.tar.xz",
    "device.tar.xz.asc",
    LINK,
];

/// The list of channels, which names all else.
const LIST: [&str; 3] = [
    "/channels.json",
    "/channels.json.asc",
    "/.channels.json/now",
];

/// How a tree is pushed.
#[derive(Clone, Debug)]
pub struct Push {
    /// A directory, or `user@host:directory`.
    pub target: String,
    /// Remove there what is not here.
    pub delete: bool,
    /// Tell only.
    pub dry_run: bool,
    /// How long to wait for another command before the documents are sent.
    pub patience: Patience,
}

/// What was sent, or in a dry run would have been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// Files, links and directories that were sent, in order; a document's versions are hidden.
    pub sent: Vec<String>,
    /// What was removed there.
    pub removed: Vec<String>,
}

/// Sends the tree of the server in `root`.
pub fn push(root: &Root, push: &Push) -> anyhow::Result<Pushed> {
    ensure!(
        !push.target.is_empty() && !push.target.starts_with('-'),
        "`{}` is no directory and no `user@host:directory`",
        push.target
    );
    let www = root.www();
    ensure!(www.is_dir(), "`{www}` is not a directory");
    let mut pushed = Pushed::default();
    let mut pass = |filters: &[String]| run(www.as_str(), push, filters, &mut pushed);
    let files: Vec<_> = [excluded(&OURS), excluded(&VERSIONS), excluded(&DOCUMENTS)].concat();
    let delete = push.delete.then(|| "--delete".to_owned());
    let all: Vec<_> = delete.into_iter().chain(excluded(&OURS)).collect();
    if push.dry_run {
        pass(&all)?;
        return Ok(pushed.readable());
    }
    // The first time this takes long. What is new since then is sent when nothing changes any more.
    pass(&files)?;
    let _lock = Lock::take(&root.state(), push.patience)?;
    pass(&files)?;
    let within = VERSIONS.map(|name| format!("--include={name}"));
    let versions = [
        excluded(&OURS),
        excluded(&[LINK]),
        within.to_vec(),
        // Their members have the names of documents.
        VERSIONS.map(|name| format!("--include={name}**")).to_vec(),
        excluded(&DOCUMENTS),
    ];
    pass(&versions.concat())?;
    pass(&[excluded(&OURS), excluded(&LIST)].concat())?;
    pass(&all)?;
    Ok(pushed.readable())
}

impl Pushed {
    /// Without what stands in hidden directories.
    fn readable(mut self) -> Self {
        let hidden = |name: &str| name.split('/').any(|part| part.starts_with('.'));
        self.sent.retain(|name| !hidden(name));
        self.removed.retain(|name| !hidden(name));
        self
    }
}

fn excluded(patterns: &[&str]) -> Vec<String> {
    let exclude = |pattern: &&str| format!("--exclude={pattern}");
    patterns.iter().map(exclude).collect()
}

/// One pass.
fn run(www: &str, push: &Push, filters: &[String], pushed: &mut Pushed) -> anyhow::Result<()> {
    let mut command = Command::new("rsync");
    command
        .args(["--recursive", "--links", "--perms", "--times"])
        .args(["--protect-args", "--out-format=%o %n"])
        .args(push.dry_run.then_some("--dry-run"))
        .args(filters)
        .args(["--", &format!("{www}/"), &format!("{}/", push.target)])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command
        .output()
        .context("cannot run rsync; the package `rsync` has it")?;
    if !output.status.success() {
        bail!("rsync to `{}` ended with {}", push.target, output.status);
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.split_once(' ') {
            Some(("del.", name)) => pushed.removed.push(name.to_owned()),
            Some((_, name)) if !name.ends_with('/') => pushed.sent.push(name.to_owned()),
            _ => {}
        }
    }
    Ok(())
}

//! `server mirror`: copies of a tree on other hosts.

use std::num::NonZero;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use system_image_durable::replace;
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_report::Size;

use super::Context;
use crate::config::Config;
use crate::history::{Entry, Event, History};
use crate::mirror::place::Place;
use crate::mirror::pull::{Pull, Pulled, pull};
use crate::mirror::push::{Push, push};
use crate::mirror::trigger::trigger;
use crate::mirror::wanted::Wanted;
use crate::published::configuration;
use crate::remote::{Remote, read_anchor, usual_anchor};
use crate::root::Root;

/// The device for which a keyring of a whole server must be, when no device was named: such
/// keyrings name no model.
const NO_DEVICE: &str = "mirror";

/// Files that are fetched at once when `--jobs` does not say: more load a server without being
/// faster.
const AT_ONCE: usize = 4;

/// Copy trees from and to other hosts
#[derive(Debug, Subcommand)]
pub(super) enum Mirror {
    Pull(PullFrom),
    Push(PushTo),
    /// Tell the configured mirrors to pull, as every change does
    Trigger,
}

/// Copy another server's tree, verified from its archive-master keyring down
///
/// Fetches what is missing or different: files first, `channels.json` last. Needs no private key,
/// because the other server's signatures are copied with its documents.
#[derive(Debug, Args)]
pub(super) struct PullFrom {
    /// The other server, `http://…` or `https://…`
    url: String,
    /// Its archive-master keyring, got on a safe way; `etc/remotes/HOST.tar.xz` by default
    #[arg(long, value_name = "FILE")]
    trust: Option<Utf8PathBuf>,
    /// The directory for the copy; the published tree of this server if it has no image-signing key
    #[arg(long, value_name = "DIR")]
    into: Option<Utf8PathBuf>,
    /// Only this channel. Can be given several times
    #[arg(long = "channel", value_name = "CHANNEL")]
    channels: Vec<ChannelName>,
    /// Only this device. Can be given several times
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<DeviceName>,
    /// Only the files of the newest N versions of each device. The index names the others still:
    /// a device that would need one fails
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    newest: Option<u32>,
    /// Read every file of the copy, and fetch again what is damaged
    #[arg(long)]
    deep: bool,
    /// Remove files of the other server that the copy has not named for a while
    #[arg(long)]
    delete: bool,
    /// Days for which a file stays then; `grace_days` of the configuration by default
    #[arg(long, value_name = "DAYS", requires = "delete")]
    grace: Option<u32>,
}

/// Copy this server's tree to another place with rsync
///
/// Files are sent first and documents last, so that the copy is whole at any moment.
#[derive(Debug, Args)]
pub(super) struct PushTo {
    /// A directory, or `USER@HOST:DIRECTORY` over ssh
    target: String,
    /// Remove there whatever is not here, whoever put it there
    #[arg(long)]
    delete: bool,
}

impl Mirror {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Pull(command) => command.run(context),
            Self::Push(command) => command.run(context),
            Self::Trigger => trigger_all(context),
        }
    }
}

impl PullFrom {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let root = context.root();
        let config = Config::load(root.directory()).context("the configuration cannot be used")?;
        let here = config.is_some();
        let config = config.unwrap_or_default();
        let root = Root::configured(root.directory(), &config);
        let own = here && !root.secret_key(KeyringType::ImageSigning).exists();
        let www = root.www();
        let into = match &self.into {
            Some(into) => into.clone(),
            None if own => www.clone(),
            None => bail!(
                "say where to with `--into DIR`: `{}` is no server without an image-signing key",
                root.directory()
            ),
        };
        let is_www = same(&into, &www);
        ensure!(
            own || !is_www || !here,
            "`{into}` is what this server publishes and signs itself"
        );
        let now = super::now();
        let trust = self.trust.clone();
        let trust = trust.unwrap_or_else(|| usual_anchor(&root, &self.url));
        let anchor = read_anchor(&trust, &self.url)?;
        let device = match self.devices.first() {
            Some(device) => device.clone(),
            None => NO_DEVICE.parse()?,
        };
        let remote = Remote::open(&self.url, anchor, &device, now)?;
        let masters = remote.chain().signers_of(KeyringType::ArchiveMaster)?;
        let patience = Duration::from_secs(context.wait.into());
        // A dry run makes no directory.
        let nowhere = tempfile::tempdir().context("cannot make a temporary directory")?;
        let into = match camino::Utf8Path::from_path(nowhere.path()) {
            Some(nowhere) if context.dry_run && !into.exists() => nowhere.to_owned(),
            _ => into,
        };
        let place = Place::open(&into, &masters, patience)?;
        let request = Pull {
            wanted: Wanted {
                channels: self.channels,
                devices: self.devices,
                newest: self.newest.map(|newest| newest as usize),
            },
            jobs: context.jobs.map_or(AT_ONCE, NonZero::get),
            deep: self.deep,
            delete: self.delete.then(|| self.grace.unwrap_or(config.grace_days)),
            dry_run: context.dry_run,
            now,
        };
        let pulled = pull(&remote, &place, &request)?;
        if is_www && here && !context.dry_run {
            keep_keyrings(&root, &remote)?;
            record(&root, remote.url(), &pulled, now);
        }
        if context.dry_run {
            eprintln!("dry run: nothing was changed; it would be");
        }
        context.print(&pulled, tell)?;
        let count = pulled.failed.len();
        ensure!(
            count == 0,
            "{count} files or indexes could not be copied; what needs them stays as it was"
        );
        Ok(())
    }
}

/// Whether two paths are one directory.
fn same(one: &Utf8PathBuf, other: &Utf8PathBuf) -> bool {
    match (one.canonicalize_utf8(), other.canonicalize_utf8()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// Gives the server whose tree is the copy the keyrings to check it with: `status`, `verify` and
/// whatever else only reads work there, too.
fn keep_keyrings(root: &Root, remote: &Remote) -> anyhow::Result<()> {
    let directory = root.keyrings();
    std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::create_dir_all(root.state()))
        .with_context(|| format!("cannot make the directory `{directory}`"))?;
    for signed in remote.keyrings() {
        let name = signed.path.file_name()?;
        let place = directory.join(name.as_str());
        replace(&place, &signed.bytes, 0o644)
            .and_then(|()| replace(format!("{place}.asc"), &signed.signature, 0o644))
            .with_context(|| format!("cannot write `{place}`"))?;
    }
    Ok(())
}

fn record(root: &Root, url: &str, pulled: &Pulled, now: i64) {
    if pulled.files == 0 && pulled.documents.is_empty() {
        return;
    }
    let event = Event::new("mirror pull").with("from", url);
    let event = event
        .with("files", pulled.files)
        .with("bytes", pulled.bytes);
    if let Err(error) = History::of(root).append(&Entry::new(now, &event)) {
        eprintln!("warning: {error:#}");
    }
}

fn tell(pulled: &Pulled) {
    println!(
        "{} files ({}) and {} documents copied",
        pulled.files,
        Size(pulled.bytes),
        pulled.documents.len()
    );
    for failed in &pulled.failed {
        println!("failed: {}: {}", failed.path, failed.error);
    }
    let left_out = pulled.left_out;
    if !left_out.is_nothing() {
        println!(
            "the copy names and lacks: {} channels, {} devices, {} images",
            left_out.channels, left_out.devices, left_out.images
        );
    }
    if let Some(collected) = &pulled.collected {
        super::gc::tell(collected);
    }
}

impl PushTo {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        let root = context.root();
        let root = Root::configured(root.directory(), &configuration(&root)?);
        let request = Push {
            target: self.target,
            delete: self.delete,
            dry_run: context.dry_run,
            patience: Duration::from_secs(context.wait.into()),
        };
        let pushed = push(&root, &request)?;
        if context.dry_run {
            eprintln!("dry run: nothing was changed; it would be");
        }
        context.print(&pushed, |pushed| {
            println!(
                "{} files sent to `{}`, {} removed there",
                pushed.sent.len(),
                request.target,
                pushed.removed.len()
            );
        })
    }
}

fn trigger_all(context: &Context) -> anyhow::Result<()> {
    let root = context.root();
    let config = configuration(&root)?;
    if context.dry_run {
        eprintln!("dry run: nobody is told; it would be");
        let hosts: Vec<_> = config.mirrors.iter().map(|mirror| &mirror.host).collect();
        return context.print(&hosts, |hosts| {
            for host in hosts {
                println!("{host}");
            }
        });
    }
    let told = trigger(&root, &config.mirrors);
    context.print(&told, |told| {
        for one in told {
            match &one.error {
                None => println!("{}: told", one.host),
                Some(error) => println!("{}: {error}", one.host),
            }
        }
    })?;
    let failed = told.iter().filter(|one| one.error.is_some()).count();
    ensure!(
        failed == 0,
        "{failed} of {} mirrors were not told",
        told.len()
    );
    Ok(())
}

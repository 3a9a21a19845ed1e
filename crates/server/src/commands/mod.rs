//! The command line: one file per subcommand, verbs on nouns.

mod channel;
mod check_latest;
mod config;
mod device;
mod gc;
mod history;
mod image;
mod import;
mod init;
mod keys;
mod mirror;
mod patch;
mod phase;
mod promote;
mod publish;
mod rebuild;
mod resign;
mod serve;
mod status;
mod tag;
mod verify;
mod withdraw;

use std::num::NonZero;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};
use serde::Serialize;
use system_image_report::Size;
use system_image_store::{Change, StoreError};
use system_image_trust::{SecretKeyError, VerifyError};

use crate::config::{Config, ConfigError};
use crate::lock::{Lock, LockError};
use crate::mirror::place::OtherTree;
use crate::mirror::trigger::trigger;
use crate::published::{NotSetUp, Published, UnknownChannel, UnknownDevice, configuration};
use crate::root::Root;
use crate::serve::ServeError;
use crate::tree::{Opening, Tree};

/// Make images, sign them and publish them in channels
#[derive(Debug, Parser)]
#[command(name = "system-image-server", version)]
pub struct Cli {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Command,
}

/// What all subcommands share.
#[derive(Debug, clap::Args)]
pub(crate) struct Context {
    /// The server's directory; the tree that is published is `www` below it
    #[arg(
        long,
        value_name = "DIR",
        env = "SYSTEM_IMAGE_ROOT",
        default_value = "."
    )]
    root: Utf8PathBuf,
    /// Change nothing, and tell what would change
    #[arg(long, global = true)]
    dry_run: bool,
    /// Wait up to so many seconds for another command to finish
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 0)]
    wait: u32,
    /// Make so many images at once, or fetch so many files; `jobs` of the configuration by default,
    /// and 4 files
    #[arg(long, global = true, value_name = "N")]
    jobs: Option<NonZero<usize>>,
    /// Memory for compression, in MiB; `memory` of the configuration by default
    #[arg(long, global = true, value_name = "MIB")]
    memory: Option<NonZero<u32>>,
    /// Print for machines: one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    /// Show what the server offers
    Status,
    #[command(subcommand)]
    Channel(channel::Channel),
    #[command(subcommand)]
    Device(device::Device),
    #[command(subcommand)]
    Image(image::Image),
    Publish(publish::Publish),
    Import(import::Import),
    Promote(promote::Promote),
    Tag(tag::Tag),
    #[command(subcommand)]
    Phase(phase::Phase),
    Withdraw(withdraw::Withdraw),
    #[command(subcommand)]
    Keys(keys::Keys),
    Resign(resign::Resign),
    Verify(verify::Verify),
    Gc(gc::Gc),
    Rebuild(rebuild::Rebuild),
    History(history::History),
    #[command(subcommand)]
    Mirror(mirror::Mirror),
    #[command(subcommand)]
    Patch(patch::Patch),
    CheckLatest(check_latest::CheckLatest),
    #[command(subcommand)]
    Config(config::Command),
    Serve(serve::Serve),
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> anyhow::Result<()> {
        let context = &self.context;
        match self.command {
            Command::Init(command) => command.run(context),
            Command::Status => status::run(context),
            Command::Channel(command) => command.run(context),
            Command::Device(command) => command.run(context),
            Command::Image(command) => command.run(context),
            Command::Publish(command) => command.run(context),
            Command::Import(command) => command.run(context),
            Command::Promote(command) => command.run(context),
            Command::Tag(command) => command.run(context),
            Command::Phase(command) => command.run(context),
            Command::Withdraw(command) => command.run(context),
            Command::Keys(command) => command.run(context),
            Command::Resign(command) => command.run(context),
            Command::Verify(command) => command.run(context),
            Command::Gc(command) => command.run(context),
            Command::Rebuild(command) => command.run(context),
            Command::History(command) => command.run(context),
            Command::Mirror(command) => command.run(context),
            Command::Patch(command) => command.run(context),
            Command::CheckLatest(command) => command.run(context),
            Command::Config(command) => command.run(context),
            Command::Serve(command) => command.run(&context.root()),
        }
    }
}

impl Context {
    /// Where the server is.
    fn root(&self) -> Root {
        Root::new(self.root.clone())
    }

    /// The tree for reading.
    fn published(&self) -> anyhow::Result<Published> {
        Published::open(&self.root(), now())
    }

    /// How the tree is opened for changes.
    fn opening(&self) -> Opening {
        Opening {
            dry_run: self.dry_run,
            patience: Duration::from_secs(self.wait.into()),
            jobs: self.jobs.map(NonZero::get),
            memory: self.memory.map(|memory| u64::from(memory.get()) << 20),
        }
    }

    /// Opens the tree as in a dry run, and tells nothing of the changes.
    fn aside<T>(&self, changes: impl FnOnce(&Tree) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let opening = Opening {
            dry_run: true,
            ..self.opening()
        };
        changes(&Tree::open(&self.root(), now(), opening)?)
    }

    /// Tells people that something was done, or in a dry run would have been.
    fn say(&self, done: &str) {
        if self.dry_run {
            println!("dry run: {done}");
        } else {
            println!("{done}");
        }
    }

    /// Does what must be done before the tree can be opened at all.
    fn repair(
        &self,
        repair: impl FnOnce(&Root, &Config, i64) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.dry_run {
            return Ok(());
        }
        let config = configuration(&self.root())?;
        let root = Root::configured(self.root.clone(), &config);
        let _lock = Lock::take(&root.state(), Duration::from_secs(self.wait.into()))?;
        repair(&root, &config, now())
    }

    /// Opens the tree for changes, makes them, and tells the mirrors if readers see them; in a dry
    /// run tells what they would have been.
    fn change<T>(&self, changes: impl FnOnce(&Tree) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let tree = Tree::open(&self.root(), now(), self.opening())?;
        let made = changes(&tree);
        if tree.has_changed() && !tree.config().mirrors.is_empty() {
            let (root, mirrors) = (tree.root().clone(), tree.config().mirrors.clone());
            // A mirror that pulls at once must not keep others from working.
            drop(tree);
            for told in trigger(&root, &mirrors) {
                if let Some(error) = told.error {
                    eprintln!("warning: mirror `{}`: {error}", told.host);
                }
            }
            return made;
        }
        let value = made?;
        if let Some(changes) = tree.changes() {
            eprintln!("dry run: nothing was changed; it would");
            for (path, change) in &changes {
                match change {
                    Change::Written { size } => eprintln!("  write  {path} ({})", Size(*size)),
                    Change::Removed => eprintln!("  remove {path}"),
                }
            }
            if changes.is_empty() {
                eprintln!("  change nothing");
            }
        }
        Ok(value)
    }

    /// Prints for machines what is told, else for people.
    fn print<T: Serialize>(&self, value: &T, people: impl FnOnce(&T)) -> anyhow::Result<()> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(value)?);
        } else {
            people(value);
        }
        Ok(())
    }
}

/// Unix seconds.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The exit status of a failure: 75 where the same command may succeed later, else 1.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let busy = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(LockError::Busy { .. }))
    };
    ExitCode::from(if error.chain().any(busy) { 75 } else { 1 })
}

/// What the person at the keyboard can do about an error.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    let known = |known: &[String], what: &str| match known {
        [] => format!("there are no {what} yet; see `system-image-server --help`"),
        _ => format!("there are {}", known.join(", ")),
    };
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<StoreError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<VerifyError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<SecretKeyError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<ServeError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<UnknownChannel>() {
            return Some(known(&error.known, "channels"));
        }
        if let Some(error) = cause.downcast_ref::<UnknownDevice>() {
            return Some(known(&error.known, "devices"));
        }
        if cause.is::<ConfigError>() {
            return Some("see `etc/config` and `etc/config.d`".into());
        }
        if let Some(error) = cause.downcast_ref::<OtherTree>() {
            return Some(error.hint().into());
        }
        if let Some(hint) = patch::hint(cause) {
            return Some(hint.into());
        }
        if cause.is::<NotSetUp>() {
            return Some("set it up with `system-image-server --root DIR init`".into());
        }
        match cause.downcast_ref::<LockError>() {
            Some(LockError::Busy { .. }) => {
                Some("try again when it is done, or wait for it with `--wait SECONDS`".into())
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}

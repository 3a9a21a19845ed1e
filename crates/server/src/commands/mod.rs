//! The command line: one file per subcommand, verbs on nouns.

mod channel;
mod device;
mod init;
mod publish;
mod serve;

use std::time::SystemTime;

use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};
use system_image_store::StoreError;
use system_image_trust::{SecretKeyError, VerifyError};

use crate::lock::LockError;
use crate::root::Root;
use crate::serve::ServeError;
use crate::tree::{NotSetUp, Tree, UnknownChannel, UnknownDevice};

/// Make images, sign them and publish them in channels
#[derive(Debug, Parser)]
#[command(name = "system-image-server", version)]
pub struct Cli {
    /// The server's directory; the tree that is published is `www` below it
    #[arg(
        long,
        value_name = "DIR",
        env = "SYSTEM_IMAGE_ROOT",
        default_value = "."
    )]
    root: Utf8PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    #[command(subcommand)]
    Channel(channel::Channel),
    #[command(subcommand)]
    Device(device::Device),
    Publish(publish::Publish),
    Serve(serve::Serve),
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> anyhow::Result<()> {
        let root = Root::new(self.root);
        match self.command {
            Command::Init(command) => command.run(&root),
            Command::Channel(command) => command.run(&Tree::open(root, now())?),
            Command::Device(command) => command.run(&Tree::open(root, now())?),
            Command::Publish(command) => command.run(&Tree::open(root, now())?),
            Command::Serve(command) => command.run(&root),
        }
    }
}

/// Unix seconds.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
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
        if cause.is::<NotSetUp>() {
            return Some("set it up with `system-image-server --root DIR init`".into());
        }
        match cause.downcast_ref::<LockError>() {
            Some(LockError::Busy { .. }) => Some("wait until it is done and try again".into()),
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

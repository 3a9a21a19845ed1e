//! `server init`: makes a server's directory: tree, keys, keyrings, configuration.

use std::fs;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use system_image_durable::replace;
use system_image_formats::channel_ini::Port;
use system_image_trust::KeyKind;

use super::Context;
use crate::config::{Config, Public};
use crate::keys::{self, Recipe};
use crate::lock::Lock;
use crate::root::Root;

/// Set up a server: directories, configuration, keys, keyrings
///
/// What is there already stays as it is, so a run that was interrupted can be repeated.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Host name under which devices reach the tree
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    host: String,
    /// Port for payloads, or `disabled`
    #[arg(long, value_name = "PORT", default_value = "8080")]
    http_port: Port,
    /// Port for metadata, or `disabled`
    #[arg(long, value_name = "PORT", default_value = "disabled")]
    https_port: Port,
    /// Level of xz for payloads, 0 to 9
    #[arg(long, value_name = "LEVEL", default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=9))]
    compression_level: u32,
    /// Kind of the keys; old recoveries read RSA only
    #[arg(long, value_enum, default_value_t = Kind::Rsa4096)]
    key_type: Kind,
    /// Name in front of the keys' roles
    #[arg(long, value_name = "NAME", default_value = "System Image")]
    owner: String,
    /// Address in the keys
    #[arg(long, value_name = "ADDRESS", default_value = "system-image@localhost")]
    email: String,
}

/// Kinds of keys.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Kind {
    Rsa4096,
    Rsa3072,
    Rsa2048,
    Ed25519,
}

impl From<Kind> for KeyKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Rsa4096 => Self::Rsa4096,
            Kind::Rsa3072 => Self::Rsa3072,
            Kind::Rsa2048 => Self::Rsa2048,
            Kind::Ed25519 => Self::Ed25519,
        }
    }
}

impl Init {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        anyhow::ensure!(
            !context.dry_run,
            "`init` has no dry run: it only adds what is missing"
        );
        let root = &context.root();
        for directory in [
            root.www(),
            root.keyrings(),
            root.state(),
            root.directory().join("etc"),
        ] {
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make the directory `{directory}`"))?;
        }
        let patience = std::time::Duration::from_secs(context.wait.into());
        let lock = Lock::take(&root.state(), patience)?;
        let now = super::now();
        let recipe = Recipe {
            kind: self.key_type.into(),
            owner: self.owner,
            email: self.email,
        };
        let found = Config::load(root.directory())?.unwrap_or_default();
        let root = &Root::configured(root.directory(), &found);
        keys::set_up(root, &found, &recipe, now)?;
        // Last, because it is what tells that the server is set up.
        let place = root.config();
        if !place.exists() {
            let config = Config {
                public: Public::new(self.host, self.http_port, self.https_port),
                compression_level: self.compression_level,
                ..Config::default()
            };
            replace(&place, config.to_text().as_bytes(), 0o644)
                .with_context(|| format!("cannot write `{place}`"))?;
        }
        drop(lock);
        context.change(|tree| {
            keys::publish(root, tree.store(), tree.now())?;
            tree.save_channels(&tree.channels()?)
        })?;
        println!(
            "the server in `{}` is set up; its tree is `{}`",
            root.directory(),
            root.www()
        );
        Ok(())
    }
}

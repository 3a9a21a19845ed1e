//! `server config`: the configuration.

use clap::Subcommand;

use super::Context;
use crate::config::Source;
use crate::published::configuration;
use crate::root::Root;

/// Look at the configuration
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read the configuration and tell what is wrong with it
    Check,
}

impl Command {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let Self::Check = self;
        let config = configuration(&context.root())?;
        let root = Root::configured(context.root().directory(), &config);
        let mut warnings = Vec::new();
        for place in [root.www(), root.state(), root.keys(), root.keyrings()] {
            if !place.is_dir() {
                warnings.push(format!("`{place}` is not a directory"));
            }
        }
        if let (Ok(www), Ok(keys)) = (
            root.www().canonicalize_utf8(),
            root.keys().canonicalize_utf8(),
        ) && keys.starts_with(&www)
        {
            warnings.push(format!(
                "the private keys in `{keys}` are below the published tree"
            ));
        }
        if let Err(error) = config.public.get() {
            warnings.push(format!("{error}; every image needs it"));
        }
        for (name, channel) in &config.channels {
            let Some(last) = channel.files.last() else {
                if channel.auto {
                    warnings.push(format!("channel `{name}` is imported and has no `files`"));
                }
                continue;
            };
            if channel.auto && last.source != Source::Version {
                warnings.push(format!(
                    "the last file of channel `{name}` is not `version`; devices would not know \
                     what they run"
                ));
            }
            for base in channel.deltabase.iter().filter(|base| *base != name) {
                if !config.channels.contains_key(base) {
                    warnings.push(format!(
                        "channel `{name}` has a delta base `{base}`, which is not configured"
                    ));
                }
            }
        }
        for warning in &warnings {
            println!("warning: {warning}");
        }
        println!(
            "{} channels, {} of them imported; {} mirrors",
            config.channels.len(),
            config
                .channels
                .values()
                .filter(|channel| channel.auto)
                .count(),
            config.mirrors.len()
        );
        Ok(())
    }
}

//! `server keys`: who may sign what, and until when.

use std::fs;

use anyhow::{Context as _, bail, ensure};
use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use serde::Serialize;
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_trust::{Certificates, Fingerprint};

use super::Context;
use super::init::Kind;
use crate::keys::report::{End, ends, roles};
use crate::keys::{self, Recipe, blacklist, rotation};
use crate::published::DAY;
use crate::tree::Tree;
use crate::{device, verify};

/// Manage keys and keyrings
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key: for a role that has none, or a device's for its maker
    Generate {
        /// The role
        role: KeyringType,
        #[command(flatten)]
        key: NewKey,
        /// Where to write the private key; the role's place by default. Its public key is written
        /// beside it
        #[arg(long, value_name = "FILE")]
        out: Option<Utf8PathBuf>,
    },
    /// List the roles with their keys
    List,
    /// Tell what ends soon; fails when something does
    ExpireReport {
        /// Within so many days
        #[arg(long, default_value_t = 60)]
        days: u32,
    },
    /// Give a role a new key and sign everything with it
    ///
    /// The old key stays in the keyring until it is retired. Run it again after an interruption.
    Rotate {
        /// The role
        role: KeyringType,
        #[command(flatten)]
        key: NewKey,
        /// Take the old key out of the keyring at the end
        #[arg(long)]
        retire: bool,
    },
    /// Go through a rotation on a copy, and check the tree that comes out
    Rehearse {
        /// The role
        #[arg(default_value = "image-signing")]
        role: KeyringType,
    },
    /// Take a key that does not sign any more out of a role's keyring
    Retire {
        /// The role
        role: KeyringType,
        /// The key
        key: Fingerprint,
    },
    /// Put a public key into a role's keyring, for instance of a key on another host
    Add {
        /// The role
        role: KeyringType,
        /// A file of public keys
        file: Utf8PathBuf,
    },
    /// Sign a role's keyring again, with a new expiry
    Renew {
        /// The role
        role: KeyringType,
    },
    /// Copy the packed keyrings into the tree
    Publish,
    /// Refuse keys everywhere, or list those that are
    #[command(subcommand)]
    Blacklist(Blacklist),
    /// Make a device-signing keyring of public keys
    Device {
        /// The device, the only one that will accept it
        device: DeviceName,
        /// A file of public keys
        file: Utf8PathBuf,
        /// Days until it ends
        #[arg(long, default_value_t = 31)]
        days: u32,
        /// Attach it to the device in this channel. Can be given several times
        #[arg(long, value_name = "CHANNEL", required_unless_present = "out")]
        attach: Vec<ChannelName>,
        /// Write the archive here, and its signature beside it
        #[arg(long, value_name = "FILE")]
        out: Option<Utf8PathBuf>,
    },
}

/// Refused keys.
#[derive(Debug, Subcommand)]
pub(super) enum Blacklist {
    /// Refuse keys from now on
    Add {
        /// A file of public keys
        file: Utf8PathBuf,
    },
    /// Accept a key again
    Remove {
        /// The key
        key: Fingerprint,
    },
    /// List the refused keys
    List,
}

/// How a new key is made.
#[derive(Debug, Args)]
pub(super) struct NewKey {
    /// Its kind; old recoveries read RSA only
    #[arg(long, value_enum, default_value_t = Kind::Rsa4096)]
    key_type: Kind,
    /// Name in front of the role
    #[arg(long, value_name = "NAME", default_value = "System Image")]
    owner: String,
    /// Address in the key
    #[arg(long, value_name = "ADDRESS", default_value = "system-image@localhost")]
    email: String,
}

impl From<NewKey> for Recipe {
    fn from(new: NewKey) -> Self {
        Self {
            kind: new.key_type.into(),
            owner: new.owner,
            email: new.email,
        }
    }
}

impl Keys {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Generate { role, key, out } => generate(context, role, &key.into(), out),
            Self::List => list(context),
            Self::ExpireReport { days } => expire_report(context, days),
            Self::Rotate { role, key, retire } => {
                let new = context.change(|tree| {
                    let signed = keys::Signer::of(tree.root(), tree.config(), role);
                    let old = signed.ok().and_then(|signer| signer.fingerprint());
                    let new = rotation::rotate(tree, role, &key.into())?;
                    if let Some(old) = old.filter(|old| retire && *old != new) {
                        rotation::retire(&tree.reopened()?, role, old)?;
                    }
                    Ok(new)
                })?;
                context.say(&format!("{role} has the key {new}"));
                if role == KeyringType::ArchiveMaster && !retire {
                    context.say(
                        "it signs nothing yet: publish images with the keyring first, and retire \
                         the old key when every device has one",
                    );
                }
                Ok(())
            }
            Self::Rehearse { role } => rehearse(context, role),
            Self::Retire { role, key } => {
                context.change(|tree| rotation::retire(tree, role, key))?;
                context.say(&format!("{role} has no key {key} any more"));
                Ok(())
            }
            Self::Add { role, file } => {
                let keys = public_keys(&file)?;
                context.change(|tree| rotation::add(tree, role, keys))?;
                context.say(&format!("the keys are in the {role} keyring"));
                Ok(())
            }
            Self::Renew { role } => {
                context.repair(|root, config, now| {
                    let mut keyring = keys::required(root, role)?;
                    keyring.info.expiry = keys::info(role, now).expiry;
                    keys::seal(root, config, &keyring, now)
                })?;
                context.change(|tree| rotation::renew(tree, role))?;
                context.say(&format!("the {role} keyring is signed anew"));
                Ok(())
            }
            Self::Publish => {
                context.change(|tree| keys::publish(tree.root(), tree.store(), tree.now()))?;
                context.say("the keyrings are in the tree");
                Ok(())
            }
            Self::Blacklist(command) => command.run(context),
            Self::Device {
                device,
                file,
                days,
                attach,
                out,
            } => {
                let keys = public_keys(&file)?;
                context.change(|tree| {
                    let (archive, signature) = keys::device::keyring(tree, &device, keys, days)?;
                    for channel in &attach {
                        let signature = signature.as_bytes();
                        device::set_keyring(tree, channel, &device, &archive, signature)?;
                    }
                    if let Some(out) = out.filter(|_| tree.changes().is_none()) {
                        fs::write(&out, &archive)
                            .and_then(|()| fs::write(format!("{out}.asc"), &signature))
                            .with_context(|| format!("cannot write `{out}`"))?;
                    }
                    Ok(())
                })?;
                context.say(&format!(
                    "the keyring of `{device}` is good for {days} days"
                ));
                Ok(())
            }
        }
    }
}

impl Blacklist {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add { file } => {
                let keys = public_keys(&file)?;
                context.change(|tree| blacklist::add(tree, keys))?;
                context.say("the keys are refused from now on");
            }
            Self::Remove { key } => {
                context.change(|tree| blacklist::remove(tree, key))?;
                context.say(&format!("{key} is not refused any more"));
            }
            Self::List => {
                let root = context.published()?.root().clone();
                let keyring = keys::open(&root, KeyringType::Blacklist)?;
                let keys: Vec<_> = keyring
                    .iter()
                    .flat_map(|keyring| keyring.certificates.fingerprints())
                    .map(|key| key.to_string())
                    .collect();
                context.print(&keys, |keys| {
                    for key in keys {
                        println!("{key}");
                    }
                })?;
            }
        }
        Ok(())
    }
}

fn public_keys(file: &Utf8PathBuf) -> anyhow::Result<Certificates> {
    let bytes = fs::read(file).with_context(|| format!("cannot read `{file}`"))?;
    Certificates::parse_any(&bytes).with_context(|| format!("`{file}` is no file of public keys"))
}

fn generate(
    context: &Context,
    role: KeyringType,
    recipe: &Recipe,
    out: Option<Utf8PathBuf>,
) -> anyhow::Result<()> {
    ensure!(
        !context.dry_run,
        "`keys generate` has no dry run: it only makes new files"
    );
    let place = match out {
        Some(place) => place,
        None => context.published()?.root().secret_key(role),
    };
    if place.exists() {
        bail!("there is a key `{place}` already; `keys rotate {role}` gives the role a new one");
    }
    let key = keys::generate(&place, role, recipe, super::now())?;
    let public = place.with_extension("gpg");
    fs::write(&public, key.certificate().to_bytes())
        .with_context(|| format!("cannot write `{public}`"))?;
    println!("{}", key.fingerprint());
    Ok(())
}

fn list(context: &Context) -> anyhow::Result<()> {
    let roles = roles(&context.published()?)?;
    context.print(&roles, |roles| {
        for role in roles {
            let signer = role.signer.as_deref().unwrap_or("not here");
            let ends = role
                .keyring_expires
                .map_or(String::new(), |at| format!(", ends {}", date(at)));
            println!("{} ({signer}{ends})", role.role);
            for key in &role.keys {
                let ends = key
                    .expires
                    .map_or("never ends".to_owned(), |at| format!("ends {}", date(at)));
                let signs = if key.signs { ", signs" } else { "" };
                println!("  {} {ends}{signs}", key.fingerprint);
            }
        }
    })
}

/// What ends soon.
#[derive(Debug, Serialize)]
struct Report {
    days: u32,
    ends: Vec<End>,
}

fn expire_report(context: &Context, days: u32) -> anyhow::Result<()> {
    let tree = context.published()?;
    let report = Report {
        days,
        ends: ends(&tree, tree.now() + i64::from(days) * DAY)?,
    };
    context.print(&report, |report| {
        for end in &report.ends {
            println!(
                "{}: {}; before that: {}",
                date(end.at),
                end.what,
                end.remedy
            );
        }
        if report.ends.is_empty() {
            println!("nothing ends within {days} days");
        }
    })?;
    let count = report.ends.len();
    ensure!(count == 0, "{count} things end within {days} days");
    Ok(())
}

fn rehearse(context: &Context, role: KeyringType) -> anyhow::Result<()> {
    let report = context.aside(|tree: &Tree| {
        let recipe = Recipe {
            kind: Kind::Ed25519.into(),
            owner: "Rehearsal".to_owned(),
            email: "rehearsal@localhost".to_owned(),
        };
        rotation::rotate(tree, role, &recipe)?;
        let rotated = tree.reopened()?;
        verify::verify(&rotated, true)
    })?;
    ensure!(
        report.errors.is_empty(),
        "after the rotation {} things would be wrong: {}: {}",
        report.errors.len(),
        report.errors[0].at,
        report.errors[0].what
    );
    println!(
        "a rotation of {role} would go well: {} indexes and {} files verify afterwards",
        report.devices, report.files
    );
    Ok(())
}

fn date(at: i64) -> String {
    let time = jiff::Timestamp::from_second(at).unwrap_or_default();
    time.strftime("%Y-%m-%d").to_string()
}

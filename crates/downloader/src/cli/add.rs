//! `add`: makes a download and starts it.

use std::collections::HashMap;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use camino::Utf8PathBuf;
use system_image_fetch::{Algorithm, Digest};
use zbus::{OwnedObjectPath, Variant};

use super::control::Rate;
use super::service::Service;
use super::watch;
use crate::job::metadata::key;

/// Download a file
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Where from: http, https, file or data
    url: String,
    /// Where to; must not exist. The default is the service's directory of downloads
    #[arg(long, value_name = "FILE")]
    to: Option<Utf8PathBuf>,
    /// The digest that it must have, e.g. `sha256:9f86d0…`
    #[arg(long, value_name = "ALGORITHM:HEX")]
    hash: Option<Hash>,
    /// A header of the request, e.g. `Cookie: a=b`; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<Header>,
    /// A further address of the same file; may be repeated
    #[arg(long = "mirror", value_name = "URL")]
    mirrors: Vec<String>,
    /// Requests for parts of the file at a time, 1 to 8
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=8))]
    connections: Option<u32>,
    /// Most bytes per second, e.g. `500k`
    #[arg(long, value_name = "RATE")]
    throttle: Option<Rate>,
    /// Wait for Wi-Fi or a cable rather than use mobile data
    #[arg(long)]
    wifi_only: bool,
    /// What to call it
    #[arg(long)]
    title: Option<String>,
    /// Do not start it yet
    #[arg(long)]
    idle: bool,
    /// Stay until it is complete, and collect it
    #[arg(long, conflicts_with = "idle")]
    wait: bool,
}

/// A digest with its algorithm.
#[derive(Clone, Debug)]
struct Hash(Digest);

impl FromStr for Hash {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (algorithm, digits) = text.split_once(':').context("write it as `sha256:HEX`")?;
        let algorithm: Algorithm = algorithm.parse()?;
        Ok(Self(Digest::parse(algorithm, digits)?))
    }
}

/// A header.
#[derive(Clone, Debug)]
struct Header(String, String);

impl FromStr for Header {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) = text.split_once(':').context("write it as `NAME: VALUE`")?;
        Ok(Self(name.trim().to_owned(), value.trim().to_owned()))
    }
}

impl Add {
    pub(super) async fn run(self, service: &Service, json: bool) -> anyhow::Result<ExitCode> {
        let mut metadata: HashMap<&str, Variant<'_>> = HashMap::new();
        if let Some(to) = &self.to {
            let to = camino::absolute_utf8(to).context("cannot find out where this is")?;
            metadata.insert(key::LOCAL_PATH, to.into_string().into());
        }
        if let Some(title) = &self.title {
            metadata.insert(key::TITLE, title.as_str().into());
        }
        if !self.mirrors.is_empty() {
            metadata.insert(key::MIRRORS, self.mirrors.clone().into());
        }
        if let Some(connections) = self.connections {
            metadata.insert(key::CONNECTIONS, connections.into());
        }
        let hash = self.hash.as_ref().map(|hash| &hash.0);
        let digits = hash.map_or_else(String::new, ToString::to_string);
        let algorithm = hash.map_or_else(String::new, |hash| hash.algorithm().to_string());
        let headers = self.headers.iter();
        let headers: HashMap<&str, &str> = headers.map(|one| (&one.0[..], &one.1[..])).collect();
        let wanted = (&self.url, digits, algorithm, metadata, headers);
        let path: OwnedObjectPath = service.manager("createDownload", &(wanted,)).await?;
        let shown = service.find(path.as_str()).await?;
        if let Some(Rate(rate)) = self.throttle {
            service.download(&shown, "setThrottle", &rate).await?;
        }
        if self.wifi_only {
            service.download(&shown, "allowGSMDownload", &false).await?;
        }
        let heard = service.hear(&shown).await?;
        if !self.idle {
            service.download(&shown, "start", &()).await?;
        }
        if self.wait {
            return watch::until_complete(service, &shown, &heard).await;
        }
        if json {
            let shown = service.find(path.as_str()).await?;
            println!("{}", super::list::document(&[shown]));
        } else {
            println!("{}", shown.id());
        }
        Ok(ExitCode::SUCCESS)
    }
}

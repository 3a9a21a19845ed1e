//! The server's files by path: signed documents whole, payloads into files.

use std::fs::File;

use anyhow::Context;
use camino::Utf8Path;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use system_image_fetch::{FetchError, Fetcher, Patience, Settings};
use system_image_formats::config::{ClientConfig, Downloads};
use system_image_formats::name::{DeviceName, TreePath};

use crate::meter::Meters;

/// Largest signature, in bytes: real ones have about 800.
pub const MAX_SIGNATURE: usize = 64 << 10;

/// What stands for itself in a URL's path.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'#')
    .add(b'?')
    .add(b'{')
    .add(b'}')
    .add(b'%')
    .add(b'[')
    .add(b']')
    .add(b'|')
    .add(b'^')
    .add(b'\\');

/// A document and its detached signature, neither of them checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<T = Vec<u8>> {
    /// The document.
    pub content: T,
    /// The text of its `.asc` file.
    pub signature: Vec<u8>,
}

/// A connection to the configured server.
#[derive(Debug)]
pub struct Server {
    /// What fetches.
    pub fetcher: Fetcher,
    /// What we call ourselves.
    pub agent: String,
    metadata: String,
    payloads: String,
    meters: Option<Meters>,
}

impl Server {
    /// The server of the configuration, as seen by `device` at `build` of its channel.
    ///
    /// Documents of the metadata are told to `meters`, each with its signature from zero.
    pub fn new(
        config: &ClientConfig,
        device: &DeviceName,
        meters: Option<Meters>,
    ) -> anyhow::Result<Self> {
        let service = &config.service;
        let agent = format!(
            "Ubuntu System Image Upgrade Client: device={device};channel={};build={}",
            service.channel, service.build_number
        );
        Ok(Self {
            fetcher: Fetcher::new(settings(agent.clone(), &config.downloads))
                .context("cannot set up the network")?,
            agent,
            metadata: service.https_base()?,
            payloads: service.http_base()?,
            meters,
        })
    }

    /// The URL of a document of the metadata.
    pub fn metadata_url(&self, path: &TreePath) -> String {
        url(&self.metadata, path)
    }

    /// The URL of a payload or its signature.
    pub fn payload_url(&self, path: &TreePath) -> String {
        url(&self.payloads, path)
    }

    /// Fetches a small document of up to `max` bytes with its signature; `None` when the server
    /// says that there is none.
    pub async fn document(
        &self,
        path: &TreePath,
        signature: &TreePath,
        max: usize,
    ) -> Result<Option<Signed>, FetchError> {
        let url = url(&self.metadata, path);
        let content = self.fetcher.fetch_small(&url, max);
        self.signed(content, |content| content.len() as u64, signature)
            .await
    }

    /// As [`document`](Self::document), for a long one: it comes into a file without a name in
    /// `directory`.
    pub async fn long_document(
        &self,
        path: &TreePath,
        signature: &TreePath,
        max: u64,
        directory: &Utf8Path,
    ) -> Result<Option<Signed<File>>, FetchError> {
        let url = url(&self.metadata, path);
        let content = self.fetcher.fetch_unnamed(&url, max, directory);
        // A length that cannot be told is missing in what is shown, nowhere else.
        let len = |file: &File| file.metadata().map_or(0, |file| file.len());
        self.signed(content, len, signature).await
    }

    async fn signed<T>(
        &self,
        content: impl Future<Output = Result<T, FetchError>>,
        len: impl Fn(&T) -> u64,
        signature: &TreePath,
    ) -> Result<Option<Signed<T>>, FetchError> {
        let content = match content.await {
            Ok(content) => content,
            Err(FetchError::Absent { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        // A document without signature is no absent document.
        let url = url(&self.metadata, signature);
        let signature = self.fetcher.fetch_small(&url, MAX_SIGNATURE).await?;
        let both = len(&content) + signature.len() as u64;
        if let Some(meters) = &self.meters {
            meters.step(both, Some(both));
        }
        Ok(Some(Signed { content, signature }))
    }
}

fn settings(agent: String, downloads: &Downloads) -> Settings {
    let usual = Settings::new(agent);
    Settings {
        connect_timeout: downloads.connect_timeout.duration(),
        stall_timeout: downloads.stall_timeout.duration(),
        patience: Patience {
            attempts: downloads.attempts.get(),
            first_wait: downloads.retry_wait.duration(),
            ..usual.patience
        },
        ..usual
    }
}

fn url(base: &str, path: &TreePath) -> String {
    format!("{base}/{}", utf8_percent_encode(path.relative(), ESCAPED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_url_below_the_base() {
        let path: TreePath = "/kanal-ä/a b/index.json".parse().unwrap();
        assert_eq!(
            url("https://x:1", &path),
            "https://x:1/kanal-%C3%A4/a%20b/index.json"
        );
    }
}

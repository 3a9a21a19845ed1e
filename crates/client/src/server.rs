//! The server's files by path: small signed documents whole, payloads into files.

use anyhow::Context;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use system_image_fetch::{FetchError, Fetcher, Patience, Settings};
use system_image_formats::config::{ClientConfig, Downloads};
use system_image_formats::name::{DeviceName, TreePath};

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
pub struct Signed {
    /// The document's bytes.
    pub bytes: Vec<u8>,
    /// The text of its `.asc` file.
    pub signature: Vec<u8>,
}

/// A connection to the configured server.
#[derive(Debug)]
pub struct Server {
    /// What fetches.
    pub fetcher: Fetcher,
    metadata: String,
    payloads: String,
}

impl Server {
    /// The server of the configuration, as seen by `device` at `build` of its channel.
    pub fn new(config: &ClientConfig, device: &DeviceName) -> anyhow::Result<Self> {
        let service = &config.service;
        let agent = format!(
            "Ubuntu System Image Upgrade Client: device={device};channel={};build={}",
            service.channel, service.build_number
        );
        Ok(Self {
            fetcher: Fetcher::new(settings(agent, &config.downloads))
                .context("cannot set up the network")?,
            metadata: service.https_base()?,
            payloads: service.http_base()?,
        })
    }

    /// The URL of a payload or its signature.
    pub fn payload_url(&self, path: &TreePath) -> String {
        url(&self.payloads, path)
    }

    /// Fetches a document of up to `max` bytes with its signature; `None` when the server says
    /// that there is none.
    pub async fn document(
        &self,
        path: &TreePath,
        signature: &TreePath,
        max: usize,
    ) -> Result<Option<Signed>, FetchError> {
        let get = async |path, max| {
            self.fetcher
                .fetch_small(&url(&self.metadata, path), max)
                .await
        };
        let bytes = match get(path, max).await {
            Ok(bytes) => bytes,
            Err(FetchError::Absent { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        // A document without signature is no absent document.
        let signature = get(signature, MAX_SIGNATURE).await?;
        Ok(Some(Signed { bytes, signature }))
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

//! Other servers, for code that waits: the transfer engine behind plain calls. Several threads may
//! call at once.

use std::fs::File;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use system_image_fetch::{
    Algorithm, Digest, FetchError, Fetched, Fetcher, How, Progress as Transferred, Request,
    Settings, Size,
};
use system_image_formats::checksum::Sha256;
use system_image_formats::hash::Hasher;
use system_image_report::Progress;
use tokio::runtime::{Builder, Runtime};

use crate::input::shortened;

/// How this server calls itself, as the original's current line does.
const USER_AGENT: &str = "system-image-server";

/// Fetches from other servers.
#[derive(Debug)]
pub struct Web {
    runtime: Runtime,
    fetcher: Fetcher,
}

impl Web {
    /// With the proxies of the environment and the system's trusted roots.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            runtime: Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot set up the network")?,
            fetcher: Fetcher::new(Settings::new(USER_AGENT))
                .context("cannot set up the network")?,
        })
    }

    /// A document of at most `max` bytes; `None` when the server says that there is none.
    pub fn small(&self, url: &str, max: usize) -> anyhow::Result<Option<Vec<u8>>> {
        match self.runtime.block_on(self.fetcher.fetch_small(url, max)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(FetchError::Absent { .. }) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot fetch `{url}`")),
        }
    }

    /// A document that must be there.
    pub fn required(&self, url: &str, max: usize) -> anyhow::Result<Vec<u8>> {
        let found = self.small(url, max)?;
        found.with_context(|| format!("there is no `{url}`"))
    }

    /// Fetches a file to its place, resuming what an earlier run left there.
    pub fn fetch(
        &self,
        request: &Request,
        on_progress: &mut (dyn FnMut(Transferred) + Send),
    ) -> anyhow::Result<Fetched> {
        let fetched = self
            .runtime
            .block_on(self.fetcher.fetch(request, on_progress));
        fetched.with_context(|| format!("cannot fetch `{}`", request.url))
    }

    /// Fetches a file into `directory`, resuming what an earlier run left there. It stays until it
    /// is [`done`](Download::done) with.
    pub fn download(
        &self,
        directory: &Utf8Path,
        url: &str,
        size: Size,
        sha256: Option<Sha256>,
    ) -> anyhow::Result<Download> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the directory `{directory}`"))?;
        let mut hasher = Hasher::default();
        hasher.update(url.as_bytes());
        let place = directory.join(hasher.finish().to_string());
        // Whole ones that a crash left may be old: only a digest could tell.
        if sha256.is_none() {
            system_image_durable::remove(&place)
                .with_context(|| format!("cannot remove `{place}`"))?;
        }
        let request = Request {
            url: url.to_owned(),
            destination: place.clone(),
            size,
            digest: sha256.map(Digest::from),
            how: How {
                compute: Some(Algorithm::Sha256),
                ..How::default()
            },
        };
        let name = url.rsplit('/').next().unwrap_or(url);
        let total = match size {
            Size::Exactly(size) => size,
            Size::AtMost(_) => 0,
        };
        let mut progress = Progress::new(shortened(&format!("fetching {name}")), total);
        let fetched = self.fetch(&request, &mut |now| {
            if let Some(total) = now.total {
                progress.set_total(total);
            }
            progress.set(now.received);
        })?;
        progress.finish();
        let computed = fetched.digest.and_then(|digest| digest.sha256());
        Ok(Download {
            sha256: computed.expect("it was asked for"),
            size: fetched.size,
            place,
        })
    }
}

/// A file that was fetched.
#[derive(Debug)]
#[must_use]
pub struct Download {
    /// Its digest.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub size: u64,
    place: Utf8PathBuf,
}

impl Download {
    /// Opens it.
    pub fn open(&self) -> anyhow::Result<File> {
        File::open(&self.place).with_context(|| format!("cannot read `{}`", self.place))
    }

    /// Removes it.
    pub fn done(self) -> anyhow::Result<()> {
        system_image_durable::remove(&self.place)
            .with_context(|| format!("cannot remove `{}`", self.place))
    }
}

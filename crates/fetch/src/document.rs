//! Fetches documents: bounded, from the beginning in every attempt, and whole or not at all. Small
//! ones come into memory, longer ones into files without a name, of which nothing is left when
//! they are closed, however the process ends.

use std::fs::File;
use std::io::{self, Seek, Write};

use bytes::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use tokio::time::{Instant, sleep};

use crate::body::Body;
use crate::client::Failed;
use crate::disk::blocking;
use crate::error::FetchError;
use crate::fetcher::{Fetcher, parse, refusal};
use crate::retry::{Next, Retry};

/// Written at a time, in bytes.
const BUFFER: usize = 64 << 10;

impl Fetcher {
    /// Fetches a small file of at most `max` bytes into memory, for instance a signature.
    pub async fn fetch_small(&self, url: &str, max: usize) -> Result<Vec<u8>, FetchError> {
        let parsed = parse(url)?;
        self.patiently(|| async {
            let mut document = self.document(&parsed, url, max as u64).await?;
            let mut bytes = Vec::new();
            while let Some(piece) = document.next().await? {
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        })
        .await
    }

    /// Fetches a file of at most `max` bytes into one without a name in `directory`, with no
    /// more of it in memory than the network brings at a time. It is returned at its start, to be read.
    ///
    /// # Errors
    /// [`FetchError::Temporary`] if the directory does not take it, besides those of
    /// [`fetch_small`](Self::fetch_small).
    pub async fn fetch_unnamed(
        &self,
        url: &str,
        max: u64,
        directory: &Utf8Path,
    ) -> Result<File, FetchError> {
        let parsed = parse(url)?;
        self.patiently(|| async {
            let mut file = Unnamed::create(directory).await?;
            let mut document = self.document(&parsed, url, max).await?;
            while let Some(piece) = document.next().await? {
                // A fast network's pieces are several times longer than the buffer.
                for part in piece.chunks(BUFFER) {
                    file.buffer.extend_from_slice(part);
                    if file.buffer.len() >= BUFFER {
                        let begin = Instant::now();
                        file = file.write().await?;
                        document.body.excuse(begin.elapsed());
                    }
                }
            }
            file.finish().await
        })
        .await
    }

    /// Attempts from the beginning until one succeeds or the retry rules say that it is enough.
    async fn patiently<T, A>(&self, attempt: impl Fn() -> A) -> Result<T, FetchError>
    where
        A: Future<Output = Result<T, Failed>>,
    {
        let mut retry = Retry::new(self.settings.patience);
        loop {
            let failed = match attempt().await {
                Ok(fetched) => return Ok(fetched),
                Err(failed) => failed,
            };
            match retry.after(failed.failure.without_progress()) {
                Next::Wait(wait) => sleep(wait).await,
                Next::GiveUp(_) => return Err(failed.error),
            }
        }
    }

    /// Asks for a document.
    async fn document<'a>(
        &'a self,
        parsed: &Url,
        url: &'a str,
        max: u64,
    ) -> Result<Document<'a>, Failed> {
        let headers = [(ACCEPT_ENCODING, HeaderValue::from_static("identity"))];
        let headers = HeaderMap::from_iter(headers);
        let response = self.ask(parsed, &headers, url).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(url, &response));
        }
        let announced = response.content_length();
        let document = Document {
            body: Body::new(response, &self.settings, url),
            url,
            max,
        };
        document.check(announced.unwrap_or(0))?;
        Ok(document)
    }
}

/// A document that is coming in.
struct Document<'a> {
    body: Body<'a>,
    url: &'a str,
    max: u64,
}

impl Document<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Failed> {
        let piece = self.body.next().await?;
        self.check(self.body.received)?;
        Ok(piece)
    }

    /// Refuses a document that has more than its bytes.
    fn check(&self, len: u64) -> Result<(), Failed> {
        if len <= self.max {
            return Ok(());
        }
        Err(Failed::for_good(FetchError::TooLong {
            url: self.url.to_owned(),
            max: self.max,
        }))
    }
}

/// A file without a name, and what comes next in it.
struct Unnamed {
    file: File,
    directory: Utf8PathBuf,
    buffer: Vec<u8>,
}

impl Unnamed {
    async fn create(directory: &Utf8Path) -> Result<Self, Failed> {
        let directory = directory.to_owned();
        blocking(move || match tempfile::tempfile_in(&directory) {
            Ok(file) => Ok(Self {
                file,
                directory,
                buffer: Vec::new(),
            }),
            Err(source) => Err(refused(directory, source)),
        })
        .await
    }

    /// Writes the buffer.
    async fn write(mut self) -> Result<Self, Failed> {
        blocking(move || match self.file.write_all(&self.buffer) {
            Ok(()) => {
                self.buffer.clear();
                Ok(self)
            }
            Err(source) => Err(refused(self.directory, source)),
        })
        .await
    }

    /// Writes what is left, and goes back to the start.
    async fn finish(self) -> Result<File, Failed> {
        let mut whole = self.write().await?;
        match whole.file.rewind() {
            Ok(()) => Ok(whole.file),
            Err(source) => Err(refused(whole.directory, source)),
        }
    }
}

fn refused(directory: Utf8PathBuf, source: io::Error) -> Failed {
    Failed::for_good(FetchError::Temporary { directory, source })
}

//! Fetches files: one attempt after another until a file is whole, at its place, and right.
//!
//! In: a request. Out: the file, or why not. The rules are elsewhere: `retry` says when to try
//! again, `range` what an answer means, `sink` how a file is written. Dropping a future pauses its
//! download; fetching again goes on with it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use system_image_formats::checksum::Sha256;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::body::Body;
use crate::client::{self, Failed, Settings};
use crate::error::FetchError;
use crate::range::{ContentRange, Validator};
use crate::request::{Fetched, Progress, Request, Size};
use crate::retry::{Failure, Next, Retry};
use crate::sink::{self, Finished, Sink};

/// Written at a time, in bytes: large enough that handing it to a thread costs nothing.
const BUFFER: usize = 256 << 10;

/// Fetches files over HTTP and HTTPS, and keeps connections open between them.
///
/// Clones share connections. Works on a single-threaded runtime; what blocks (disk, digests) is
/// done on the runtime's blocking threads.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    pub(crate) settings: Arc<Settings>,
}

/// Called with the state of a transfer after every piece of it.
pub type OnProgress<'a> = &'a mut (dyn FnMut(Progress) + Send);

impl Fetcher {
    /// A fetcher with these settings.
    pub fn new(settings: Settings) -> Result<Self, FetchError> {
        Ok(Self {
            client: client::build(&settings)?,
            settings: Arc::new(settings),
        })
    }

    /// Fetches one file to its place, resuming what an earlier attempt left.
    ///
    /// A file that is at its place already with the right digest is not fetched again.
    pub async fn fetch(
        &self,
        request: &Request,
        on_progress: OnProgress<'_>,
    ) -> Result<Fetched, FetchError> {
        let url = parse(&request.url)?;
        let path = request.destination.clone();
        let wanted = request.clone();
        if let Some((size, sha256)) = blocking(move || sink::existing(&wanted)).await {
            on_progress(Progress {
                received: size,
                total: Some(size),
            });
            return Ok(Fetched {
                path,
                size,
                sha256,
                transferred: 0,
            });
        }

        let wanted = request.clone();
        let disk = Disk::new(blocking(move || Sink::open(&wanted)).await?);
        let mut transferred = 0;
        let mut retry = Retry::new(self.settings.patience);
        loop {
            let mut transfer = Transfer {
                fetcher: self,
                url: url.clone(),
                request,
                disk: &disk,
                on_progress: &mut *on_progress,
                received: 0,
            };
            let tried = transfer.attempt().await;
            transferred += transfer.received;
            let failed = match tried {
                Ok((size, sha256)) => {
                    return Ok(Fetched {
                        path,
                        size,
                        sha256,
                        transferred,
                    });
                }
                Err(failed) => failed,
            };
            match retry.after(failed.failure) {
                Next::Wait(wait) => sleep(wait).await,
                Next::GiveUp(_) => return Err(failed.error),
            }
        }
    }

    pub(crate) fn get(&self, url: &Url) -> RequestBuilder {
        // What is stored and hashed is what the server has, not what a proxy compressed.
        self.client
            .get(url.clone())
            .header(ACCEPT_ENCODING, "identity")
    }

    /// Sends a request and waits for the answer's head.
    pub(crate) async fn ask(&self, request: RequestBuilder, url: &str) -> Result<Response, Failed> {
        let patience = self
            .settings
            .connect_timeout
            .saturating_add(self.settings.stall_timeout);
        match timeout(patience, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Failed::before_answer(url, error)),
            Err(_) => Err(Failed::stalled(url, 0)),
        }
    }
}

/// A status that brings no file. A success of another kind than was asked for makes no sense.
pub(crate) fn refusal(url: &str, response: &Response) -> Failed {
    if response.status().is_success() {
        Failed::garbled(url)
    } else {
        Failed::status(url, response, SystemTime::now())
    }
}

pub(crate) fn parse(url: &str) -> Result<Url, FetchError> {
    let fits = |parsed: &Url| matches!(parsed.scheme(), "http" | "https") && parsed.has_host();
    let parsed = Url::parse(url).ok().filter(fits);
    parsed.ok_or_else(|| FetchError::Url {
        url: url.to_owned(),
    })
}

/// One attempt at a file.
struct Transfer<'a> {
    fetcher: &'a Fetcher,
    url: Url,
    request: &'a Request,
    disk: &'a Disk,
    on_progress: OnProgress<'a>,
    /// Bytes of the file in this attempt.
    received: u64,
}

impl Transfer<'_> {
    async fn attempt(&mut self) -> Result<(u64, Sha256), Failed> {
        let state =
            |sink: &mut Sink| Ok((sink.len(), sink.validator().cloned(), sink.is_complete()));
        let (offset, validator, complete) = self.disk.run(state).await?;
        if !complete {
            self.receive(offset, validator).await?;
        }
        match self.disk.run(Sink::finish).await? {
            Finished::Good { size, sha256 } => Ok((size, sha256)),
            Finished::Damaged(error) => Err(Failed {
                error,
                failure: Failure::Garbled,
            }),
        }
    }

    /// Asks for what is missing and writes it.
    async fn receive(&mut self, offset: u64, known: Option<Validator>) -> Result<(), Failed> {
        let url = &self.request.url;
        let mut get = self.fetcher.get(&self.url);
        if offset > 0 {
            get = get.header(RANGE, format!("bytes={offset}-"));
            if let Some(known) = &known {
                get = get.header(IF_RANGE, known.as_str());
            }
        }
        let response = self.fetcher.ask(get, url).await?;
        let headers = response.headers();
        let current = Validator::from_headers(text(headers, &ETAG), text(headers, &LAST_MODIFIED));
        let total = match response.status() {
            StatusCode::OK => {
                let len = response.content_length();
                self.check_size(len)?;
                self.disk.run(move |sink| sink.restart(current)).await?;
                len
            }
            StatusCode::PARTIAL_CONTENT if offset > 0 => {
                let range = text(headers, &CONTENT_RANGE).and_then(ContentRange::parse);
                let range = range.filter(|range| range.is_rest_from(offset));
                let Some(range) =
                    range.filter(|_| is_same_version(known.as_ref(), current.as_ref()))
                else {
                    // The two halves may not belong together.
                    self.disk.run(|sink| sink.restart(None)).await?;
                    return Err(Failed::garbled(url));
                };
                self.check_size(range.total)?;
                self.disk
                    .run(|sink| {
                        sink.join();
                        Ok(())
                    })
                    .await?;
                range.total
            }
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
                self.disk.run(|sink| sink.restart(None)).await?;
                return Box::pin(self.receive(0, None)).await;
            }
            _ => return Err(refusal(url, &response)),
        };
        self.copy(response, total).await
    }

    /// Refuses a file whose announced size cannot be right, before anything of it is written.
    fn check_size(&self, announced: Option<u64>) -> Result<(), Failed> {
        let url = self.request.url.clone();
        let error = match (self.request.size, announced) {
            (Size::Exactly(want), Some(got)) if got != want => FetchError::Size { url, want, got },
            (Size::AtMost(max), Some(got)) if got > max => FetchError::TooLong { url, max },
            _ => return Ok(()),
        };
        Err(Failed::for_good(error))
    }

    /// Writes the body, and what came of it also if it breaks off.
    async fn copy(&mut self, response: Response, announced: Option<u64>) -> Result<(), Failed> {
        let url = &self.request.url;
        let max = self.request.size.limit();
        let total = self.request.size.known().or(announced);
        let mut written = self.disk.run(|sink| Ok(sink.len())).await?;
        let mut body = Body::new(response, &self.fetcher.settings, url);
        let mut buffer = Vec::new();
        let ended = loop {
            let piece = match body.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break Ok(()),
                Err(failed) => break Err(failed),
            };
            if written + (buffer.len() + piece.len()) as u64 > max {
                break Err(Failed::for_good(FetchError::TooLong {
                    url: url.clone(),
                    max,
                }));
            }
            buffer.extend_from_slice(&piece);
            self.received = body.received;
            let received = written + buffer.len() as u64;
            (self.on_progress)(Progress { received, total });
            if buffer.len() >= BUFFER {
                written = received;
                buffer = self.disk.write(buffer).await?;
                // The disk's slowness is not the server's.
                body.restart_clock();
            }
        };
        self.disk.write(buffer).await?;
        ended?;
        // Without a length, a body that is cut off looks like one that has ended.
        let complete = self.disk.run(|sink| Ok(sink.is_complete())).await?;
        match self.request.size {
            Size::Exactly(_) if !complete => Err(Failed::lost(url, self.received)),
            _ => Ok(()),
        }
    }
}

/// Whether a partial answer is about the version that we have the beginning of. A server that
/// does not know `If-Range` may send the rest of another one.
fn is_same_version(known: Option<&Validator>, current: Option<&Validator>) -> bool {
    match (known, current) {
        (Some(Validator::Etag(known)), Some(Validator::Etag(current)))
        | (Some(Validator::Modified(known)), Some(Validator::Modified(current))) => {
            known == current
        }
        _ => true,
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// A sink that is used on blocking threads, one call at a time.
struct Disk(Arc<Mutex<Sink>>);

impl Disk {
    fn new(sink: Sink) -> Self {
        Self(Arc::new(Mutex::new(sink)))
    }

    async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Sink) -> Result<T, FetchError> + Send + 'static,
    ) -> Result<T, Failed> {
        let sink = Arc::clone(&self.0);
        let done = blocking(move || {
            // A panic in a sink has ended the download that it belonged to.
            f(&mut sink.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await.map_err(Failed::for_good)
    }

    /// Appends a buffer and gives it back, empty.
    async fn write(&self, mut buffer: Vec<u8>) -> Result<Vec<u8>, Failed> {
        self.run(move |sink| {
            sink.write(&buffer)?;
            buffer.clear();
            Ok(buffer)
        })
        .await
    }
}

pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(f).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and this future will not be polled again.
            Err(_) => std::future::pending().await,
        },
    }
}

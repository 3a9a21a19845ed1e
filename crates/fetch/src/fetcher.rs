//! Fetches files: one attempt after another, at one source after another, until a file is whole and
//! right.
//!
//! In: a request. Out: the file, or why not. The rules are elsewhere: `retry` says when to try
//! again, `answer` what an answer means, `sink` how a file is written. Dropping a future pauses its
//! download; fetching again goes on with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Response, Url};
use tokio::time::{sleep, timeout};

use crate::client::{self, Failed, Settings};
use crate::digest::Digest;
use crate::disk::{Disk, blocking};
use crate::error::FetchError;
use crate::headers::given;
use crate::inflate::Coding;
use crate::proxy::Proxies;
use crate::received::Received;
use crate::redirect::Trail;
use crate::request::{Event, Fetched, Place, Progress, Request};
use crate::retry::{Next, Retry};
use crate::sink::{self, Sink, part_of};
use crate::throttle::Limits;
use crate::transfer::Transfer;

/// Fetches files over HTTP and HTTPS, and keeps connections open between them.
///
/// Clones share connections. Works on a single-threaded runtime; what blocks (disk, digests) is
/// done on the runtime's blocking threads.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: Client,
    proxies: Arc<Proxies>,
    pub(crate) settings: Arc<Settings>,
}

/// Called with the state of a transfer after every piece of it.
pub type OnProgress<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// Called with what happens to a transfer, and with its state after every piece.
pub type OnEvent<'a> = &'a mut (dyn FnMut(Event) + Send);

impl Fetcher {
    /// A fetcher with these settings.
    pub fn new(settings: Settings) -> Result<Self, FetchError> {
        Ok(Self {
            client: client::build(&settings)?,
            proxies: Arc::new(Proxies::new(&settings)),
            settings: Arc::new(settings),
        })
    }

    /// Fetches one file to its place, resuming what an earlier attempt left. What is there is
    /// replaced.
    ///
    /// A file that is at its place already with the right digest is not fetched again.
    pub async fn fetch(
        &self,
        request: &Request,
        on_progress: OnProgress<'_>,
    ) -> Result<Fetched, FetchError> {
        let wanted = request.clone();
        if let Some((size, digest)) = blocking(move || sink::existing(&wanted)).await {
            on_progress(Progress {
                received: size,
                total: Some(size),
            });
            return Ok(Fetched {
                path: request.destination.clone(),
                size,
                digest: Some(digest),
                transferred: 0,
            });
        }
        let mut on_event = |event| match event {
            Event::Progress(progress) => on_progress(progress),
            Event::Retrying { .. } => {}
        };
        let mut received = self.receive(request, &mut on_event).await?;
        received.place(&request.destination, Place::Replace).await
    }

    /// Receives one file, resuming what an earlier attempt left, and leaves it under its temporary
    /// name. What is at its place is not looked at.
    ///
    /// The last event of a file that was received is its progress, whole.
    pub async fn receive(
        &self,
        request: &Request,
        on_event: OnEvent<'_>,
    ) -> Result<Received, FetchError> {
        let mut sources = vec![parse(&request.url)?];
        for mirror in &request.how.mirrors {
            sources.push(parse(mirror)?);
        }
        let mut headers = given(&request.how.headers)?;
        // What is stored and hashed is what the server has, not what a proxy compressed.
        let accepted = if request.how.decompress {
            Coding::ACCEPTED
        } else {
            "identity"
        };
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
        let texts: Vec<_> = sources.iter().map(Url::to_string).collect();

        let mut disk = Disk::open(request, &texts).await?;
        let source = disk.run(|sink| Ok(sink.position().known.url)).await?;
        let begun = texts.iter().position(|text| *text == source);
        let mut job = Job {
            fetcher: self,
            request,
            headers,
            limits: Limits::new(&request.how.limits),
            disk,
            on_event,
            alone: request.how.connections <= 1 || request.how.decompress,
            transferred: 0,
        };
        // The one that has brought the beginning goes first.
        sources.rotate_left(begun.unwrap_or(0));
        let mut left = sources.len();
        loop {
            left -= 1;
            let source = &sources[sources.len() - 1 - left];
            let others: Vec<_> = sources.iter().filter(|other| *other != source).collect();
            let error = match job.exhaust(source, &others).await {
                Ok((size, digest)) => {
                    (job.on_event)(Event::Progress(Progress {
                        received: size,
                        total: Some(size),
                    }));
                    let known = job.disk.run(|sink| Ok(sink.position().known)).await?;
                    return Ok(Received {
                        size,
                        transferred: job.transferred,
                        digest,
                        content_type: known.content_type,
                        name: known.name,
                        part: part_of(&request.destination, request.how.suffix),
                        disk: job.disk,
                    });
                }
                Err(error) => error,
            };
            if left == 0 || !error.is_the_sources() {
                if let FetchError::Checksum { .. } = error {
                    job.disk.run(Sink::remove).await?;
                }
                return Err(error);
            }
            job.tell(Duration::ZERO, &error);
            if request.digest.is_none() {
                // Nothing can tell that another source has the same file.
                job.disk.run(Sink::restart).await?;
            }
        }
    }

    /// Sends a request and waits for the answer's head, at the end of any redirects. `told` is the
    /// address for errors.
    pub(crate) async fn ask(
        &self,
        url: &Url,
        headers: &HeaderMap,
        told: &str,
    ) -> Result<Response, Failed> {
        let max = self.settings.max_redirects;
        let (mut trail, mut headers) = (Trail::new(url.clone(), max), headers.clone());
        loop {
            let response = self.send(trail.here(), headers.clone(), told).await?;
            let location = response.headers().get(LOCATION);
            let location = location.map(HeaderValue::as_bytes);
            match trail.follow(response.status(), location, &mut headers) {
                Ok(true) => {}
                Ok(false) => return Ok(response),
                Err(refused) => return Err(Failed::redirect(told, refused, max)),
            }
        }
    }

    async fn send(&self, url: &Url, headers: HeaderMap, told: &str) -> Result<Response, Failed> {
        let patience = self
            .settings
            .connect_timeout
            .saturating_add(self.settings.stall_timeout);
        let request = self.client.get(url.clone()).headers(headers);
        match timeout(patience, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let proxied = self.proxies.serve(url);
                Err(Failed::before_answer(told, proxied, error))
            }
            Err(_) => Err(Failed::stalled(told, 0)),
        }
    }
}

/// One file on its way.
struct Job<'a> {
    fetcher: &'a Fetcher,
    request: &'a Request,
    headers: HeaderMap,
    limits: Limits,
    disk: Disk,
    on_event: OnEvent<'a>,
    /// Whether one request at a time is all that can be done.
    alone: bool,
    transferred: u64,
}

impl Job<'_> {
    /// Tries one source until it has brought the file or the retry rules say that it is enough.
    async fn exhaust(
        &mut self,
        url: &Url,
        others: &[&Url],
    ) -> Result<(u64, Option<Digest>), FetchError> {
        let mut retry = Retry::new(self.fetcher.settings.patience);
        loop {
            let mut transfer = Transfer {
                fetcher: self.fetcher,
                request: self.request,
                url,
                headers: &self.headers,
                disk: &mut self.disk,
                limits: &mut self.limits,
                on_event: &mut *self.on_event,
                others,
                alone: &mut self.alone,
                spreading: false,
                received: 0,
            };
            let tried = transfer.attempt().await;
            self.transferred += transfer.received;
            let failed = match tried {
                Ok(good) => return Ok(good),
                Err(failed) => failed,
            };
            match retry.after(failed.failure) {
                Next::Wait(wait) => {
                    self.tell(wait, &failed.error);
                    sleep(wait).await;
                }
                Next::GiveUp(_) => return Err(failed.error),
            }
        }
    }

    fn tell(&mut self, wait: Duration, error: &FetchError) {
        (self.on_event)(Event::Retrying {
            wait,
            why: error.to_string(),
        });
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
    let text = || url.to_owned();
    let mut parsed = Url::parse(url).map_err(|_| FetchError::Url { url: text() })?;
    if !matches!(parsed.scheme(), "http" | "https") {
        let scheme = parsed.scheme().to_owned();
        return Err(FetchError::Scheme {
            url: text(),
            scheme,
        });
    }
    if !parsed.has_host() {
        return Err(FetchError::Url { url: text() });
    }
    parsed.set_fragment(None);
    Ok(parsed)
}

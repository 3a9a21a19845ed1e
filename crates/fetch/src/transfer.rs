//! One attempt at a file: asks for what is missing, and writes what comes.

use reqwest::header::{HeaderMap, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};

use crate::answer::{Asked, Head, Verdict, judge};
use crate::batch::Batch;
use crate::body::{Arrived, Body};
use crate::client::Failed;
use crate::digest::Digest;
use crate::disk::Disk;
use crate::error::FetchError;
use crate::fetcher::{Fetcher, OnEvent, refusal};
use crate::inflate::Coding;
use crate::inflow::Inflow;
use crate::range::Validator;
use crate::request::{How, Request, Size};
use crate::retry::Failure;
use crate::side::Known;
use crate::sink::{Finished, Position, Sink};
use crate::spread::{Span, Spread, can_spread, range_len};
use crate::throttle::Limits;

/// Compressed bytes that may be more than a sixteenth longer than what they stand for: headers, and
/// what cannot be compressed.
const COMPRESSED_MORE: u64 = 64 << 10;

pub(crate) struct Transfer<'a> {
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) request: &'a Request,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) disk: &'a mut Disk,
    pub(crate) limits: &'a mut Limits,
    pub(crate) on_event: OnEvent<'a>,
    /// Other addresses of the file.
    pub(crate) others: &'a [&'a Url],
    /// Whether one request at a time is all that can be done.
    pub(crate) alone: &'a mut bool,
    /// Whether ranges were fetched side by side in this attempt.
    pub(crate) spreading: bool,
    /// Bytes that came over the network in this attempt.
    pub(crate) received: u64,
}

impl Transfer<'_> {
    /// Has the whole file under its temporary name in the end, and its digest checked.
    pub(crate) async fn attempt(&mut self) -> Result<(u64, Option<Digest>), Failed> {
        let mut position = self.position().await?;
        if self.request.how.decompress && position.len > 0 {
            self.disk.run(Sink::restart).await?;
            position = self.position().await?;
        }
        if !position.complete {
            let mut received = self.receive(position).await;
            if self.spreading && received.is_err() && *self.alone {
                // Side by side it did not work, which says nothing of the usual way.
                let position = self.position().await?;
                received = self.receive(position).await;
            }
            received?;
        }
        match self.disk.run(Sink::check).await? {
            Finished::Good { size, digest } => Ok((size, digest)),
            Finished::Wrong { error, joined } => {
                // Of several sources one may have been wrong.
                *self.alone |= self.spreading;
                let failure = if joined {
                    Failure::Garbled
                } else {
                    Failure::Refused
                };
                Err(Failed { error, failure })
            }
        }
    }

    /// What is here, as far as this source can be asked to go on with it.
    async fn position(&mut self) -> Result<Position, Failed> {
        let mut position = self.disk.run(|sink| Ok(sink.position())).await?;
        if position.known.url != self.url.as_str() {
            // A validator is one server's word.
            position.known.validator = None;
        }
        let strong = position.known.validator.as_ref();
        let proof = self.request.digest.is_some() || strong.is_some_and(Validator::is_strong);
        if !proof && !position.complete {
            // Nothing could tell that the rest fits, so it is not asked for. What is here stays
            // until something better comes.
            position.len = 0;
            position.known = Known::default();
        }
        Ok(position)
    }

    /// Asks for what is missing and writes it.
    async fn receive(&mut self, mut position: Position) -> Result<(), Failed> {
        let url = &self.request.url;
        let asked = Asked {
            digest: self.request.digest.is_some(),
            empty: self.request.how.empty_answers,
        };
        loop {
            let range = range_len(self.connections());
            let span = (!*self.alone).then(|| Span::from(position.len, range));
            let headers = self.headers_for(&position, span);
            let response = self.fetcher.ask(self.url, &headers, url).await?;
            let head = Head::of(&response);
            if let Some(span) = span {
                if let Some(total) = can_spread(span, &head, &position, asked) {
                    return self.spread(response, &head, span, total, asked).await;
                }
                *self.alone = true;
                let without_range =
                    head.status == StatusCode::RANGE_NOT_SATISFIABLE && span.first == 0;
                if head.status == StatusCode::PARTIAL_CONTENT || without_range {
                    continue;
                }
            }
            match judge(&head, &position, asked) {
                Verdict::Whole { total } => {
                    let coding = self.coding(&head)?;
                    let total = total.filter(|_| coding.is_none());
                    self.check_size(total)?;
                    let known = head.known(self.url.as_str(), total);
                    let begin = move |sink: &mut Sink| {
                        sink.begin(known)?;
                        if let Some(coding) = coding {
                            sink.inflate(coding);
                        }
                        Ok(())
                    };
                    self.disk.run(begin).await?;
                    return self.copy(response, 0, total, coding).await;
                }
                Verdict::Rest { total } => {
                    self.check_size(total)?;
                    self.disk.run(move |sink| sink.join(total)).await?;
                    return self.copy(response, position.len, total, None).await;
                }
                Verdict::Complete => return Ok(()),
                Verdict::Empty => {
                    self.check_size(Some(0))?;
                    let known = head.known(self.url.as_str(), Some(0));
                    return Ok(self.disk.run(move |sink| sink.begin(known)).await?);
                }
                Verdict::Again => {
                    self.disk.run(Sink::restart).await?;
                    position = self.position().await?;
                }
                Verdict::Mixed => {
                    self.disk.run(Sink::restart).await?;
                    return Err(Failed::garbled(url));
                }
                Verdict::Refused => return Err(refusal(url, &response)),
            }
        }
    }

    /// How the content is compressed, where that is to be undone.
    fn coding(&self, head: &Head) -> Result<Option<Coding>, Failed> {
        let Some(encoding) = head
            .encoding
            .as_ref()
            .filter(|_| self.request.how.decompress)
        else {
            return Ok(None);
        };
        let coding = Coding::read(encoding);
        let unknown = || Failed::garbled(&self.request.url);
        coding.map(Some).ok_or_else(unknown)
    }

    fn connections(&self) -> u8 {
        self.request.how.connections.min(How::MAX_CONNECTIONS)
    }

    /// The headers of a request for what is missing.
    fn headers_for(&self, position: &Position, span: Option<Span>) -> HeaderMap {
        let mut headers = self.headers.clone();
        if position.len > 0 || span.is_some() {
            let rest = || format!("bytes={}-", position.len);
            let range = span.map_or_else(rest, Span::header).parse();
            headers.insert(RANGE, range.expect("it is plain text"));
            let validator = position.known.validator.as_ref();
            let known = validator.and_then(|validator| validator.if_range()?.parse().ok());
            if let Some(known) = known {
                headers.insert(IF_RANGE, known);
            }
        }
        headers
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

    fn inflow(&mut self, here: u64, announced: Option<u64>, inflating: bool) -> Inflow<'_> {
        let max = self.request.size.limit();
        Inflow {
            url: &self.request.url,
            disk: &mut *self.disk,
            limits: &mut *self.limits,
            on_event: &mut *self.on_event,
            inflating,
            here,
            total: self.request.size.known().or(announced),
            max: if inflating {
                max.saturating_add(max / 16 + COMPRESSED_MORE)
            } else {
                max
            },
            batch: Batch::default(),
            write_by: None,
        }
    }

    /// Writes the body, and what came of it also if it breaks off.
    async fn copy(
        &mut self,
        response: Response,
        here: u64,
        announced: Option<u64>,
        coding: Option<Coding>,
    ) -> Result<(), Failed> {
        let (request, fetcher) = (self.request, self.fetcher);
        let mut body = Body::new(response, &fetcher.settings, &request.url);
        let mut inflow = self.inflow(here, announced, coding.is_some());
        if coding.is_some() {
            inflow.total = None;
        }
        let ended = loop {
            let busy = match body.next_until(inflow.write_by).await {
                Ok(Arrived::Piece(piece)) => inflow.take(piece).await,
                Ok(Arrived::Nothing) => inflow.write().await,
                Ok(Arrived::End) => break Ok(()),
                Err(failed) => break Err(failed),
            };
            match busy {
                Ok(busy) => body.excuse(busy),
                Err(failed) => break Err(failed),
            }
        };
        let finished = inflow.finish().await;
        let (here, total) = (inflow.here, inflow.total);
        drop(inflow);
        self.received += body.received;
        finished?;
        ended?;
        if coding.is_some() {
            let len = self.disk.run(Sink::inflated).await?;
            return self.check_size(Some(len));
        }
        // A body that is cut off looks like one that has ended, where its length is not told.
        match total {
            Some(total) if here < total => Err(Failed::lost(&request.url, self.received)),
            _ => Ok(()),
        }
    }

    /// Fetches the file, from the answer to the request for `span` on, in ranges side by side.
    async fn spread(
        &mut self,
        response: Response,
        head: &Head,
        span: Span,
        total: u64,
        asked: Asked,
    ) -> Result<(), Failed> {
        self.spreading = true;
        self.check_size(Some(total))?;
        let known = head.known(self.url.as_str(), Some(total));
        let first = known.clone();
        let here = span.first;
        let begin = move |sink: &mut Sink| {
            if here == 0 {
                sink.begin(first)?;
            }
            sink.join(Some(total))
        };
        self.disk.run(begin).await?;
        let mut sources = vec![self.url];
        if asked.digest {
            sources.extend(self.others);
        }
        let spread = Spread {
            fetcher: self.fetcher,
            sources: &sources,
            headers: self.headers,
            url: &self.request.url,
            known: &known,
            asked,
            total,
            at_a_time: self.connections(),
        };
        let mut inflow = self.inflow(here, Some(total), false);
        let ended = spread.run(span, response, &mut inflow).await;
        let finished = inflow.finish().await;
        let received = inflow.here - here;
        drop(inflow);
        self.received += received;
        finished?;
        let Err(mut failed) = ended else {
            return Ok(());
        };
        match &mut failed.failure {
            // The network's doing: the next attempt goes on in the same way.
            Failure::Lost { received: one } | Failure::Stalled { received: one }
                if received > 0 =>
            {
                *one = received;
            }
            _ => *self.alone = failed.error.is_the_sources(),
        }
        Err(failed)
    }
}

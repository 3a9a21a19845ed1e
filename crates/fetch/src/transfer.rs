//! One attempt at a file: asks for what is missing, and writes what comes.

use reqwest::header::{HeaderMap, IF_RANGE, RANGE};
use reqwest::{Response, Url};

use crate::answer::{Asked, Head, Verdict, judge};
use crate::batch::Batch;
use crate::body::{Arrived, Body};
use crate::client::Failed;
use crate::digest::Digest;
use crate::disk::Disk;
use crate::error::FetchError;
use crate::fetcher::{Fetcher, OnEvent, refusal};
use crate::inflow::Inflow;
use crate::request::{Request, Size};
use crate::retry::Failure;
use crate::sink::{Finished, Position, Sink};
use crate::throttle::Limits;

pub(crate) struct Transfer<'a> {
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) request: &'a Request,
    pub(crate) url: &'a Url,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) disk: &'a mut Disk,
    pub(crate) limits: &'a mut Limits,
    pub(crate) on_event: OnEvent<'a>,
    /// Bytes that came over the network in this attempt.
    pub(crate) received: u64,
}

impl Transfer<'_> {
    /// Has the whole file under its temporary name in the end, and its digest checked.
    pub(crate) async fn attempt(&mut self) -> Result<(u64, Option<Digest>), Failed> {
        let position = self.disk.run(|sink| Ok(sink.position())).await?;
        if !position.complete {
            self.receive(position).await?;
        }
        match self.disk.run(Sink::check).await? {
            Finished::Good { size, digest } => Ok((size, digest)),
            Finished::Wrong { error, joined } => Err(Failed {
                error,
                failure: if joined {
                    Failure::Garbled
                } else {
                    Failure::Refused
                },
            }),
        }
    }

    /// Asks for what is missing and writes it.
    async fn receive(&mut self, mut position: Position) -> Result<(), Failed> {
        let url = &self.request.url;
        let asked = Asked {
            digest: self.request.digest.is_some(),
            empty: self.request.how.empty_answers,
        };
        loop {
            let headers = self.headers_from(&position);
            let response = self.fetcher.ask(self.url, &headers, url).await?;
            let head = Head::of(&response);
            match judge(&head, &position, asked) {
                Verdict::Whole { total } => {
                    self.check_size(total)?;
                    let known = head.known(self.url.as_str(), total);
                    self.disk.run(move |sink| sink.begin(known)).await?;
                    return self.copy(response, 0, total).await;
                }
                Verdict::Rest { total } => {
                    self.check_size(total)?;
                    self.disk.run(move |sink| sink.join(total)).await?;
                    return self.copy(response, position.len, total).await;
                }
                Verdict::Complete => return Ok(()),
                Verdict::Empty => {
                    self.check_size(Some(0))?;
                    let known = head.known(self.url.as_str(), Some(0));
                    return Ok(self.disk.run(move |sink| sink.begin(known)).await?);
                }
                Verdict::Again => {
                    position = self
                        .disk
                        .run(|sink| {
                            sink.restart()?;
                            Ok(sink.position())
                        })
                        .await?;
                }
                Verdict::Mixed => {
                    self.disk.run(Sink::restart).await?;
                    return Err(Failed::garbled(url));
                }
                Verdict::Refused => return Err(refusal(url, &response)),
            }
        }
    }

    /// The headers of a request for what is missing.
    fn headers_from(&self, position: &Position) -> HeaderMap {
        let mut headers = self.headers.clone();
        if position.len > 0 {
            let range = format!("bytes={}-", position.len).parse();
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

    /// Writes the body, and what came of it also if it breaks off.
    async fn copy(
        &mut self,
        response: Response,
        here: u64,
        announced: Option<u64>,
    ) -> Result<(), Failed> {
        let url = &self.request.url;
        let total = self.request.size.known().or(announced);
        let mut body = Body::new(response, &self.fetcher.settings, url);
        let mut inflow = Inflow {
            url,
            disk: &mut *self.disk,
            limits: &mut *self.limits,
            on_event: &mut *self.on_event,
            here,
            total,
            max: self.request.size.limit(),
            batch: Batch::default(),
            write_by: None,
        };
        let ended = loop {
            let busy = match body.next_until(inflow.write_by).await {
                Ok(Arrived::Piece(piece)) => {
                    self.received = body.received;
                    inflow.take(piece).await
                }
                Ok(Arrived::Nothing) => inflow.write().await,
                Ok(Arrived::End) => break Ok(()),
                Err(failed) => break Err(failed),
            };
            match busy {
                Ok(busy) => body.excuse(busy),
                Err(failed) => break Err(failed),
            }
        };
        let here = inflow.here;
        inflow.finish().await?;
        ended?;
        // A body that is cut off looks like one that has ended, where its length is not told.
        match total {
            Some(total) if here < total => Err(Failed::lost(url, self.received)),
            _ => Ok(()),
        }
    }
}

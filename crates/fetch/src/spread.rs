//! Fetches the rest of a file in ranges side by side, and writes it in order.
//!
//! Each range is of the version and the size that the first answer told, or the attempt ends and one
//! request goes on from there: whatever is odd about a server that serves ranges is not worth more
//! than that. Memory is bounded by the ranges that are under way.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use reqwest::header::{HeaderMap, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode, Url};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::answer::{Asked, Head, is_same_version};
use crate::batch::Batch;
use crate::body::Body;
use crate::client::Failed;
use crate::error::{FetchError, Trouble};
use crate::fetcher::{Fetcher, refusal};
use crate::inflow::Inflow;
use crate::side::Known;
use crate::sink::Position;

/// Most bytes of one range: enough that asking for it costs little.
const MAX_RANGE: u64 = 1 << 20;

/// Most bytes of all ranges that are under way: they wait in memory for their turn.
const MAX_WAITING: u64 = 4 << 20;

/// Bytes of a range that are passed on together.
const GATHERED: usize = 16 << 10;

/// Bytes of one of so many ranges side by side.
pub(crate) fn range_len(at_a_time: u8) -> u64 {
    (MAX_WAITING / u64::from(at_a_time.max(1))).min(MAX_RANGE)
}

/// Bytes of a file, the last included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Span {
    /// So many bytes from a place on.
    pub(crate) fn from(first: u64, len: u64) -> Self {
        let last = first.saturating_add(len - 1);
        Self { first, last }
    }

    /// The same within a file of so many bytes; none if that ends before it.
    fn within(self, total: u64) -> Option<Self> {
        let last = self.last.min(total.checked_sub(1)?);
        (self.first <= last).then_some(Self { last, ..self })
    }

    fn len(self) -> u64 {
        self.last - self.first + 1
    }

    /// The value of `Range`.
    pub(crate) fn header(self) -> String {
        format!("bytes={}-{}", self.first, self.last)
    }

    /// Whether an answer is exactly this part of a file of known size; then that size.
    fn total(self, head: &Head) -> Option<u64> {
        let told = head.range?;
        let total = told.total?;
        let wanted = self.within(total)?;
        let fits = head.status == StatusCode::PARTIAL_CONTENT
            && (told.first, told.last) == (wanted.first, wanted.last)
            && head.len.is_none_or(|len| len == wanted.len());
        fits.then_some(total)
    }
}

/// The size of the file, if the answer to a request for `span` can be the first of many: it is that
/// part, it goes with what is here, and the later ones can be told to go with it.
pub(crate) fn can_spread(
    span: Span,
    head: &Head,
    position: &Position,
    asked: Asked,
) -> Option<u64> {
    let total = span.total(head)?;
    let known = &position.known;
    let joins = if position.len > 0 {
        known.total.is_none_or(|known| known == total) && is_same_version(head, known, asked)
    } else {
        asked.digest
            || head
                .validator
                .as_ref()
                .is_some_and(crate::range::Validator::is_strong)
    };
    joins.then_some(total)
}

/// A file whose rest is fetched side by side.
pub(crate) struct Spread<'a> {
    pub(crate) fetcher: &'a Fetcher,
    /// Where its ranges come from, in turn: more than one only if a digest decides in the end.
    pub(crate) sources: &'a [&'a Url],
    pub(crate) headers: &'a HeaderMap,
    /// The address for errors.
    pub(crate) url: &'a str,
    /// What the first answer told.
    pub(crate) known: &'a Known,
    pub(crate) asked: Asked,
    pub(crate) total: u64,
    pub(crate) at_a_time: u8,
}

/// One range on its way.
struct Lane {
    left: u64,
    pieces: UnboundedReceiver<Bytes>,
}

impl Spread<'_> {
    /// Fetches everything from the answer to `first` to the end of the file.
    pub(crate) async fn run(
        &self,
        first: Span,
        response: Response,
        inflow: &mut Inflow<'_>,
    ) -> Result<(), Failed> {
        let busy = AtomicU64::new(0);
        let (mut workers, mut lanes) = (FuturesUnordered::new(), VecDeque::new());
        let (mut next, mut given, mut number) = (first, Some(response), 0usize);
        loop {
            while lanes.len() < usize::from(self.at_a_time)
                && let Some(span) = next.within(self.total)
            {
                let (sender, pieces) = unbounded_channel();
                let left = span.len();
                lanes.push_back(Lane { left, pieces });
                let source = self.sources[number % self.sources.len()];
                workers.push(self.bring(span, source, given.take(), sender, &busy));
                next = Span::from(span.last + 1, range_len(self.at_a_time));
                number += 1;
            }
            let Some(lane) = lanes.front_mut() else {
                return Ok(());
            };
            if lane.left == 0 {
                lanes.pop_front();
                continue;
            }
            // Both are asked anew each time, so that no worker waits for another.
            let piece = match select(pin!(lane.pieces.recv()), workers.next()).await {
                Either::Left((Some(piece), _)) => piece,
                Either::Right((Some(Err(failed)), _)) => return Err(failed),
                Either::Right((Some(Ok(())), _)) => continue,
                // It has ended too soon; why, its worker says.
                Either::Left((None, _)) | Either::Right((None, _)) => match workers.next().await {
                    Some(Err(failed)) => return Err(failed),
                    Some(Ok(())) => continue,
                    None => return Err(Failed::garbled(self.url)),
                },
            };
            lane.left -= piece.len() as u64;
            let time = inflow.take(piece).await?;
            let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            busy.fetch_add(time, Ordering::Relaxed);
        }
    }

    /// Brings one range, by an answer that is there already or by a new one.
    async fn bring(
        &self,
        span: Span,
        source: &Url,
        given: Option<Response>,
        sender: UnboundedSender<Bytes>,
        busy: &AtomicU64,
    ) -> Result<(), Failed> {
        let response = match given {
            Some(response) => response,
            None => self.ask(span, source).await?,
        };
        let mut body = Body::new(response, &self.fetcher.settings, self.url);
        let mut batch = Batch::default();
        loop {
            let before = busy.load(Ordering::Relaxed);
            let piece = match body.next().await {
                Ok(piece) => piece,
                Err(failed) => {
                    let since = busy.load(Ordering::Relaxed) - before;
                    if since == 0 || !is_stalled(&failed) {
                        return Err(failed);
                    }
                    // Nobody was listening.
                    body.excuse(Duration::from_millis(since));
                    continue;
                }
            };
            let ended = piece.is_none();
            if let Some(piece) = piece {
                batch.push(piece);
            }
            if body.received > span.len() {
                return Err(Failed::garbled(self.url));
            }
            if ended || batch.len() >= GATHERED {
                for piece in std::mem::take(&mut batch).into_pieces() {
                    // Nobody is there any more if another range has failed.
                    let _ = sender.send(piece);
                }
            }
            if ended {
                return if body.received == span.len() {
                    Ok(())
                } else {
                    Err(Failed::lost(self.url, body.received))
                };
            }
        }
    }

    async fn ask(&self, span: Span, source: &Url) -> Result<Response, Failed> {
        let mut headers = self.headers.clone();
        headers.insert(RANGE, span.header().parse().expect("it is plain text"));
        let validator = self.known.validator.as_ref();
        // A validator is one server's word.
        let same_server = source.as_str() == self.known.url;
        if let Some(known) = validator.and_then(|known| known.if_range()?.parse().ok())
            && same_server
        {
            headers.insert(IF_RANGE, known);
        }
        let response = self.fetcher.ask(source, &headers, self.url).await?;
        let head = Head::of(&response);
        if !matches!(head.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Err(refusal(self.url, &response));
        }
        let fits = span.total(&head) == Some(self.total)
            && (!same_server || is_same_version(&head, self.known, self.asked));
        if fits {
            Ok(response)
        } else {
            Err(Failed::garbled(self.url))
        }
    }
}

fn is_stalled(failed: &Failed) -> bool {
    let FetchError::Transfer { trouble, .. } = &failed.error else {
        return false;
    };
    *trouble == Trouble::Stalled
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::range::ContentRange;

    proptest! {
        #[test]
        fn ranges_cover_a_file_without_a_gap(
            here in 0u64..5 << 20, more in 0u64..20 << 20, at_a_time in 1u8..=8
        ) {
            let (total, len) = (here + more, range_len(at_a_time));
            prop_assert!(len * u64::from(at_a_time) <= MAX_WAITING);
            let (mut next, mut covered) = (Span::from(here, len), here);
            while let Some(span) = next.within(total) {
                prop_assert_eq!(span.first, covered);
                prop_assert!(span.len() <= len);
                covered += span.len();
                next = Span::from(span.last + 1, len);
            }
            prop_assert_eq!(covered, total);
        }

        #[test]
        fn only_the_very_range_is_taken(first in 0u64..9, last in 0u64..12, total in 0u64..12) {
            let span = Span { first: 3, last: 7 };
            let text = format!("bytes {first}-{last}/{total}");
            let head = Head {
                status: StatusCode::PARTIAL_CONTENT,
                range: ContentRange::parse(&text),
                ..Head::default()
            };
            let whole = last == 7 && total > 7;
            let fits = first == 3 && (whole || last + 1 == total && (3..7).contains(&last));
            prop_assert_eq!(span.total(&head), fits.then_some(total));
        }
    }
}

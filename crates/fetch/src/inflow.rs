//! Received bytes on their way to the disk: limited, counted, and gathered until writing them pays.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::batch::Batch;
use crate::client::Failed;
use crate::disk::Disk;
use crate::error::FetchError;
use crate::fetcher::OnEvent;
use crate::request::{Event, Progress};
use crate::throttle::Limits;

/// Written at a time, in bytes: large enough that handing it to a thread costs nothing.
const BATCH: usize = 256 << 10;

/// What has come is written after this time at the latest, however slowly more comes.
const WRITE_WITHIN: Duration = Duration::from_secs(1);

pub(crate) struct Inflow<'a> {
    pub(crate) url: &'a str,
    pub(crate) disk: &'a mut Disk,
    pub(crate) limits: &'a mut Limits,
    pub(crate) on_event: OnEvent<'a>,
    /// Whether what comes is compressed, so that its bytes are not those of the file.
    pub(crate) inflating: bool,
    /// Bytes that have come, those of earlier answers included.
    pub(crate) here: u64,
    /// Bytes that it has, if that is known.
    pub(crate) total: Option<u64>,
    /// Bytes that it may have.
    pub(crate) max: u64,
    pub(crate) batch: Batch,
    pub(crate) write_by: Option<Instant>,
}

impl Inflow<'_> {
    /// Takes what has come, and says how long it was busy with other things than the network.
    pub(crate) async fn take(&mut self, mut piece: Bytes) -> Result<Duration, Failed> {
        self.check(piece.len() as u64).await?;
        let mut busy = Duration::ZERO;
        while !piece.is_empty() {
            let mut passing = piece.len();
            if self.limits.any() {
                let begin = Instant::now();
                passing = self.limits.pass(passing).await;
                busy += begin.elapsed();
            }
            let slice = piece.split_to(passing);
            self.here += slice.len() as u64;
            self.batch.push(slice);
            (self.on_event)(Event::Progress(Progress {
                received: if self.inflating {
                    self.disk.written()
                } else {
                    self.here
                },
                total: self.total,
            }));
            let now = Instant::now();
            let by = *self.write_by.get_or_insert(now + WRITE_WITHIN);
            if by <= now || self.batch.len() >= BATCH {
                busy += self.write().await?;
            }
        }
        Ok(busy)
    }

    /// Has written what has come so far; says how long it waited for the disk.
    pub(crate) async fn write(&mut self) -> Result<Duration, Failed> {
        let begin = Instant::now();
        self.write_by = None;
        self.disk.write(std::mem::take(&mut self.batch)).await?;
        Ok(begin.elapsed())
    }

    /// Has written all and waits for that.
    pub(crate) async fn finish(&mut self) -> Result<(), Failed> {
        self.write().await?;
        Ok(self.disk.settle().await?)
    }

    /// Refuses more bytes than there may be, and more than there are.
    async fn check(&mut self, more: u64) -> Result<(), Failed> {
        let url = self.url;
        let len = self.here.saturating_add(more);
        if len > self.max {
            return Err(Failed::for_good(FetchError::TooLong {
                url: url.to_owned(),
                max: self.max,
            }));
        }
        if self.total.is_some_and(|total| len > total) {
            self.batch = Batch::default();
            self.disk.run(crate::sink::Sink::restart).await?;
            return Err(Failed::garbled(url));
        }
        Ok(())
    }
}

/// What has come stays, also when nobody waits for more.
impl Drop for Inflow<'_> {
    fn drop(&mut self) {
        self.disk.leave(std::mem::take(&mut self.batch));
    }
}

//! An answer's body, piece by piece, with an eye on the clock.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use crate::client::{Failed, Settings};

/// What is left of an answer.
pub(crate) struct Body<'a> {
    response: Response,
    settings: &'a Settings,
    url: &'a str,
    pub(crate) received: u64,
    /// Until when `in_time` must have reached the least progress.
    deadline: Instant,
    in_time: u64,
}

/// What a wait for a body brought.
pub(crate) enum Arrived {
    Piece(Bytes),
    End,
    /// Nothing, but the time that was to be waited is over.
    Nothing,
}

impl<'a> Body<'a> {
    pub(crate) fn new(response: Response, settings: &'a Settings, url: &'a str) -> Self {
        let deadline = Instant::now() + settings.stall_timeout;
        Self {
            response,
            settings,
            url,
            received: 0,
            deadline,
            in_time: 0,
        }
    }

    /// The next piece; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failed> {
        match self.next_until(None).await? {
            Arrived::Piece(piece) => Ok(Some(piece)),
            Arrived::End | Arrived::Nothing => Ok(None),
        }
    }

    /// The next piece, if it comes until then.
    pub(crate) async fn next_until(&mut self, until: Option<Instant>) -> Result<Arrived, Failed> {
        let earlier = until.filter(|until| *until < self.deadline);
        let wait = timeout_at(earlier.unwrap_or(self.deadline), self.response.chunk());
        let piece = match wait.await {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => return Ok(Arrived::End),
            Ok(Err(error)) => return Err(Failed::within_answer(self.url, error, self.received)),
            Err(_) if earlier.is_some() => return Ok(Arrived::Nothing),
            Err(_) => return Err(Failed::stalled(self.url, self.received)),
        };
        self.received += piece.len() as u64;
        self.in_time += piece.len() as u64;
        if self.in_time >= self.settings.min_progress {
            self.deadline = Instant::now() + self.settings.stall_timeout;
            self.in_time = 0;
        }
        Ok(Arrived::Piece(piece))
    }

    /// Gives the server back a time in which nobody listened to it: the disk's slowness, or a limit
    /// of speed, is not the server's.
    pub(crate) fn excuse(&mut self, time: Duration) {
        self.deadline += time;
    }
}

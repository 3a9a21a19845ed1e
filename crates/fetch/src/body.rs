//! An answer's body, piece by piece, with an eye on the clock.

use std::ops::Deref;

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

    pub(crate) async fn next(
        &mut self,
    ) -> Result<Option<impl Deref<Target = [u8]> + use<>>, Failed> {
        let piece = match timeout_at(self.deadline, self.response.chunk()).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Err(Failed::within_answer(self.url, error, self.received)),
            Err(_) => return Err(Failed::stalled(self.url, self.received)),
        };
        let len = piece.as_ref().map_or(0, |piece| piece.len() as u64);
        self.received += len;
        self.in_time += len;
        if self.in_time >= self.settings.min_progress {
            self.restart_clock();
        }
        Ok(piece)
    }

    pub(crate) fn restart_clock(&mut self) {
        self.deadline = Instant::now() + self.settings.stall_timeout;
        self.in_time = 0;
    }
}

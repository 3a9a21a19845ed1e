//! Events between the task that receives them and whoever asks for them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{DownloadError, Event};

/// Events in order. Of progress that nobody asked for yet only the last stays, so it does not grow.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Result<Event, DownloadError>>,
    over: bool,
}

impl Queue {
    /// Adds one. Nothing may follow an error or a last event.
    pub(super) fn push(&self, event: Result<Event, DownloadError>) {
        let mut waiting = self.lock();
        let is_progress = |event: &Result<_, _>| matches!(event, Ok(Event::Progress { .. }));
        if is_progress(&event) && waiting.events.back().is_some_and(is_progress) {
            waiting.events.pop_back();
        }
        waiting.over = event.as_ref().map_or(true, Event::is_last);
        waiting.events.push_back(event);
        drop(waiting);
        self.more.notify_one();
    }

    /// Waits for the next; none after the last.
    pub(super) async fn next(&self) -> Option<Result<Event, DownloadError>> {
        loop {
            {
                let mut waiting = self.lock();
                let next = waiting.events.pop_front();
                if next.is_some() || waiting.over {
                    return next;
                }
            }
            self.more.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that is done under the lock stops half-way.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// The next, unless that has yet to come.
    fn next(queue: &Queue) -> Result<Event, &'static str> {
        let next = queue.next().now_or_never().ok_or("more may come")?;
        Ok(next.ok_or("over")?.unwrap())
    }

    #[test]
    fn only_the_last_of_the_same_progress_waits() {
        let queue = Queue::default();
        let progress = |received| Event::Progress { received, total: 9 };
        for event in [
            Event::Started,
            progress(1),
            progress(2),
            Event::Paused,
            progress(2),
        ] {
            queue.push(Ok(event));
        }
        for event in [Event::Started, progress(2), Event::Paused, progress(2)] {
            assert_eq!(next(&queue), Ok(event));
        }
        assert_eq!(next(&queue), Err("more may come"));
        queue.push(Ok(Event::Canceled));
        assert_eq!(next(&queue), Ok(Event::Canceled));
        assert_eq!(next(&queue), Err("over"));
    }
}

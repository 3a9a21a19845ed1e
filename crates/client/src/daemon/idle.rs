//! When to leave the bus: when nobody has asked for anything, and nothing has been told, for the
//! configured time. Whatever the next one needs to know is on the disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// Nothing more comes of what was going on.
const QUIET: Duration = Duration::from_secs(2);

/// Counts the time in which nothing happens.
#[derive(Debug, Default)]
pub(super) struct Idle {
    touched: Notify,
    over: AtomicBool,
}

impl Idle {
    /// Something has happened.
    pub(super) fn touch(&self) {
        self.touched.notify_one();
    }

    /// Ends the wait at once.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.touched.notify_one();
    }

    /// Waits until nothing has happened for `lifetime`, while nothing is at work. Calls `quiet` as
    /// soon as it looks as if that may last.
    pub(super) async fn wait(
        &self,
        lifetime: Duration,
        at_work: impl Fn() -> bool,
        quiet: impl Fn(),
    ) {
        let first = lifetime.min(QUIET);
        loop {
            let mut touched = self.is_touched_within(first).await;
            if !touched && !at_work() {
                quiet();
                touched = self.is_touched_within(lifetime.saturating_sub(first)).await;
            }
            if self.over.load(Ordering::Relaxed) || !touched && !at_work() {
                return;
            }
        }
    }

    async fn is_touched_within(&self, time: Duration) -> bool {
        timeout(time, self.touched.notified()).await.is_ok()
    }
}

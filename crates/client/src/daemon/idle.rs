//! When to leave the bus: when nobody has asked for anything, and nothing has been told, for the
//! configured time. Whatever the next one needs to know is on the disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

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

    /// Waits until nothing has happened for `lifetime`, while nothing is at work.
    pub(super) async fn wait(&self, lifetime: Duration, at_work: impl Fn() -> bool) {
        loop {
            let touched = timeout(lifetime, self.touched.notified()).await.is_ok();
            if self.over.load(Ordering::Relaxed) || !touched && !at_work() {
                return;
            }
        }
    }
}

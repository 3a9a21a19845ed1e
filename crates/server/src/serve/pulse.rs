//! Decides when a connection has waited too long, and for what. No clock and no socket here:
//! those who read, write and answer tell what happened and when.

use std::time::{Duration, Instant};

use http::Version;

/// How long a connection may make others wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the whole head of a request, from its first byte, and for the TLS handshake.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// While an answer is under way and the client takes nothing of it.
    pub stall: Duration,
}

/// Why a connection was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Head,
    Idle,
    Stalled,
}

/// What a connection is doing, and since when.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    /// Requests whose answer is not written yet; HTTP/2 may have several.
    answering: usize,
    /// Bytes are ready that the client's window has no room for.
    blocked: bool,
    /// When the first byte of a head came that is not complete.
    head_since: Option<Instant>,
    /// HTTP/2: bytes between requests are pings and windows as well as heads.
    multiplexed: bool,
    /// When something last went forward: it began, a request came, bytes were taken.
    progress: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            answering: 0,
            blocked: false,
            head_since: None,
            multiplexed: false,
            progress: now,
        }
    }

    /// Bytes came in.
    pub(super) fn received(&mut self, now: Instant) {
        if self.answering == 0 && !self.multiplexed {
            self.head_since.get_or_insert(now);
        }
    }

    /// A head is complete.
    pub(super) fn began(&mut self, now: Instant, version: Version) {
        self.multiplexed = version == Version::HTTP_2;
        self.answering += 1;
        self.head_since = None;
        self.progress = now;
    }

    /// An answer was handed to the connection, or given up. Its last bytes are progress when they
    /// are sent.
    pub(super) fn ended(&mut self) {
        self.answering = self.answering.saturating_sub(1);
    }

    /// The client took bytes.
    pub(super) fn sent(&mut self, now: Instant) {
        self.blocked = false;
        self.progress = now;
    }

    /// There is more to send than the client takes.
    pub(super) fn blocked(&mut self) {
        self.blocked = true;
    }

    /// When the connection has to be ended unless something happens, and why.
    pub(super) fn deadline(&self, patience: &Patience) -> (Instant, Overdue) {
        if self.answering > 0 || self.blocked {
            return (self.progress + patience.stall, Overdue::Stalled);
        }
        match self.head_since {
            Some(since) => (since + patience.head, Overdue::Head),
            None => (self.progress + patience.idle, Overdue::Idle),
        }
    }
}

impl Patience {
    /// A deadline that is set later cannot come earlier than this from now: whoever looks that
    /// often misses none.
    pub(super) fn shortest(&self) -> Duration {
        self.head.min(self.idle).min(self.stall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        stall: Duration::from_secs(30),
    };

    fn at(start: Instant, pulse: &Pulse) -> (u64, Overdue) {
        let (deadline, why) = pulse.deadline(&PATIENCE);
        ((deadline - start).as_secs(), why)
    }

    #[test]
    fn each_wait_has_its_own_limit() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut pulse = Pulse::new(start);
        assert_eq!(at(start, &pulse), (60, Overdue::Idle));
        pulse.received(after(5));
        pulse.received(after(14));
        assert_eq!(
            at(start, &pulse),
            (15, Overdue::Head),
            "more bytes give no more time"
        );
        pulse.began(after(14), Version::HTTP_11);
        assert_eq!(at(start, &pulse), (44, Overdue::Stalled));
        pulse.sent(after(20));
        assert_eq!(at(start, &pulse), (50, Overdue::Stalled));
        pulse.blocked();
        pulse.ended();
        assert_eq!(
            at(start, &pulse),
            (50, Overdue::Stalled),
            "the rest is not taken yet"
        );
        pulse.sent(after(22));
        assert_eq!(at(start, &pulse), (82, Overdue::Idle));
    }

    #[test]
    fn a_ping_is_no_head() {
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        pulse.began(start, Version::HTTP_2);
        pulse.ended();
        pulse.received(start);
        assert_eq!(at(start, &pulse), (60, Overdue::Idle));
    }
}
